"""Fixtures: models with a cache in this process, and schedulers for them. Named as a plugin by who needs them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from driving import Driver, Machine
from outcomes import starter_path

CELLS = 2048
FEW = 1024
"""Cells of a machine where room is scarce."""


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models"), "llama")


@pytest.fixture(scope="module")
def machine(tiny_path: Path) -> Iterator[Machine]:
    machine = Machine(tiny_path, CELLS)
    yield machine
    machine.model.close()


@pytest.fixture(scope="module")
def narrow(tiny_path: Path) -> Iterator[Machine]:
    machine = Machine(tiny_path, FEW)
    yield machine
    machine.model.close()


@pytest.fixture(scope="module", params=["gemma3", "mamba", "lfm2"])
def snapshotting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Models whose states cannot be cut anywhere."""
    machine = Machine(tiny.write(tmp_path_factory.mktemp("models"), request.param), FEW)
    yield machine
    machine.model.close()


@pytest.fixture(scope="module")
def starter() -> Iterator[Machine]:
    machine = Machine(starter_path(), 512, sequences=3)
    yield machine
    machine.model.close()


@pytest.fixture
def driver(machine: Machine) -> Iterator[Driver]:
    driver = machine.drive()
    yield driver
    driver.close()
