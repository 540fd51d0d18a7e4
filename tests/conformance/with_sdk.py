"""Runs the checks that drive an SDK, with whichever it finds, and prints how they came out as JSON.

``test_old_sdk.py`` runs it with an SDK as it was years ago. Arguments: the server's URL and its key.
"""

import asyncio
import json
import sys

import anthropic

from commonweight.conformance import SECTIONS, open_target, run


async def main(url: str, key: str) -> None:
    """Print the version of the SDK, and a status and a reason for each check."""
    checks = [check for section in SECTIONS.values() for check in section if "sdk" in check.name.split()]
    async with open_target(url, key) as target:
        outcomes = [outcome async for outcome in run(target, checks)]
    told = {
        f"{outcome.check.section}: {outcome.check.name}": (outcome.status, outcome.why) for outcome in outcomes
    }
    json.dump({"version": anthropic.__version__, "outcomes": told}, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
