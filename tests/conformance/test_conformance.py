"""The whole suite against our own server, each check a test."""

import pytest

from commonweight.conformance import SECTIONS, Check, NotApplicableError, open_target
from conftest import Server

CHECKS = [check for checks in SECTIONS.values() for check in checks]


@pytest.mark.parametrize(
    "check", [pytest.param(check, id=f"{check.section}-{check.name.replace(' ', '_')}") for check in CHECKS]
)
async def test_our_server(check: Check, server: Server) -> None:
    async with open_target(server.url, server.key) as target:
        try:
            await check(target)
        except NotApplicableError as reason:
            pytest.skip(str(reason))
