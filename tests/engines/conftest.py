"""One engine process for the tests of a module."""

from collections.abc import AsyncIterator

import pytest_asyncio
from outcomes import starter_options

from commonweight.engines.llama import LlamaEngine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaEngine]:
    """A small engine on the starter model."""
    engine = LlamaEngine(starter_options())
    await engine.start()
    yield engine
    await engine.close()
