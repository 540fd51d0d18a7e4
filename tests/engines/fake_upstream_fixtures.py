"""Servers that misbehave on demand, two of them, and the starter's file."""

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from fake_upstreams import Far
from outcomes import starter_path

from commonweight.catalog.gguf import Gguf


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(starter_path())) as gguf:
        yield gguf


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    async with Far().running() as far:
        yield far


@pytest.fixture
async def other() -> AsyncIterator[Far]:
    async with Far().running() as other:
        yield other
