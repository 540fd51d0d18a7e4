"""The whole suite against our own server, each check a test."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from commonweight.conformance import SECTIONS, Check, NotApplicableError, Target, open_target
from conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CHECKS = [check for checks in SECTIONS.values() for check in checks]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(server: Server) -> AsyncIterator[Target]:
    """Our server, connected to once: to make an SDK's client takes longer than most checks."""
    async with open_target(server.url, server.key) as target:
        yield target


@pytest.mark.parametrize(
    "check", [pytest.param(check, id=f"{check.section}-{check.name.replace(' ', '_')}") for check in CHECKS]
)
async def test_our_server(check: Check, target: Target) -> None:
    try:
        await check(target)
    except NotApplicableError as reason:
        pytest.skip(str(reason))
