"""Each of the servers once for a whole run, and ours before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import MAKERS, Machine, running

from conftest import Server
from conftest import running as serving


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them write, and keep their data."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="session", params=list(MAKERS))
def machine(request: pytest.FixtureRequest, logs: Path) -> Iterator[Machine]:
    """Each of the servers in its turn."""
    with running(MAKERS[request.param](logs / f"{request.param}.log")) as machine:
        yield machine


@pytest.fixture(scope="session")
def front(machine: Machine, logs: Path) -> Iterator[Server]:
    """``commonweight serve`` before it."""
    arguments = ("--engine", machine.kind, "--engine-url", machine.url, "--data", str(logs / machine.kind))
    with serving(logs / f"front-{machine.kind}.log", *arguments) as (server, _):
        yield server
