"""Batches over a replaying engine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batching import Clock, Office, model

from commonweight.catalog.model import ModelCard
from commonweight.prompting import Tokenizer
from commonweight.store import Database


@pytest.fixture(scope="session")
def starter() -> Iterator[tuple[ModelCard, Tokenizer]]:
    """Its card and its vocabulary."""
    with model() as found:
        yield found


@pytest.fixture
def clock() -> Clock:
    """One for all servers of a test."""
    return Clock()


@pytest.fixture
def office_on(starter: tuple[ModelCard, Tokenizer], tmp_path: Path, clock: Clock) -> Callable[[Database], Office]:
    """A server on a database."""
    return lambda database: Office(database, tmp_path, *starter, clock)


@pytest.fixture
def office(office_on: Callable[[Database], Office], database: Database) -> Office:
    """One server."""
    return office_on(database)
