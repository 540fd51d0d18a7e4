"""Shared by all tests: a live server on the starter model, started once, as a person would start it."""

import contextlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time and no deadline, so that a slow or busy machine changes nothing.
settings.register_profile("commonweight", derandomize=True, deadline=None)
settings.load_profile("commonweight")

# Read when the kernels are loaded: the engine sets it for its process, some tests compute in this one.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# Nothing that tests leave behind belongs to the user, and nothing of theirs decides how a test ends.
CACHES = tempfile.TemporaryDirectory(prefix="commonweight-tests-")
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_DATA_HOME"] = CACHES.name

pytest_plugins = ["databases", "batching"]

KEY = "sk-local-test"
WORKSHOP = Path(__file__).parent / "workshop"
_NEEDS_EXTRA = re.compile(r"^pytestmark = .*\bworkshop\b", re.MULTILINE)
ALIAS = "claude-test-alias"
LONGEST_START = 180.0
LONGEST_EXIT = 30.0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out modules that import the extra `workshop`, where it is missing and they are not asked for."""
    markers = str(config.getoption("markexpr"))
    is_asked_for = "workshop" in markers and "not workshop" not in markers
    if is_asked_for or WORKSHOP not in collection_path.parents or importlib.util.find_spec("torch"):
        return None
    is_module = collection_path.suffix == ".py"
    return True if is_module and _NEEDS_EXTRA.search(collection_path.read_text()) else None


@dataclass(frozen=True)
class Server:
    """A running ``commonweight serve``."""

    url: str
    key: str
    alias: str
    """A further name that it lists its model under."""
    pid: int
    log: Path
    """What it prints, both streams."""


@contextlib.contextmanager
def running(log: Path, *arguments: str) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """``commonweight serve`` with a free port and a key until the block ends; it must not leave earlier."""
    command = [sys.executable, "-m", "commonweight", "serve", "--port", "0", "--api-key", KEY, "--alias", ALIAS]
    # Several threads spin for each other, which is very slow as soon as anything else keeps a core busy.
    command += ["--threads", "1", "--cache-disk", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Server(_wait_for_url(process, log), KEY, ALIAS, process.pid, log), process
    finally:
        process.terminate()
        try:
            process.wait(LONGEST_EXIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline and process.poll() is None:
        # The address is on a line of its own, and connections wait from then on.
        if match := re.search(r"^ +(https?://\S+)\n", log.read_text(), re.MULTILINE):
            return match[1]
        time.sleep(0.05)
    pytest.fail(f"the server did not start (exit code {process.poll()}):\n{log.read_text()}", pytrace=False)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole session; tests must leave it as usable as they found it."""
    with running(tmp_path_factory.mktemp("server") / "output.txt") as (server, process):
        yield server
        assert process.poll() is None, f"the server left during the tests:\n{server.log.read_text()}"
    assert process.returncode == 0, server.log.read_text()


@pytest.fixture
def restored_logs() -> Iterator[None]:
    """Logging is afterwards as it was."""
    root, ours = logging.getLogger(), logging.getLogger("commonweight")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    for logger, level in zip((root, ours), levels, strict=True):
        logger.setLevel(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails against the server shows what the server printed."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and isinstance(server, Server):
        report.sections.append(("Output of the server", server.log.read_text()))
    return report
