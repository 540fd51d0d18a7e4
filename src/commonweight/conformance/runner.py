"""Runs checks, one after the other, and says how each came out."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Literal

from commonweight.conformance.checks import Check, NotApplicableError
from commonweight.conformance.target import Target

LONGEST_CHECK = 120.0
"""Seconds."""
LONGEST_REASON = 240
"""Characters."""


@dataclass(frozen=True)
class Outcome:
    """How one check came out."""

    check: Check
    status: Literal["passed", "failed", "not applicable"]
    why: str
    """One line, or nothing for a check that passed."""
    seconds: float


async def run(target: Target, checks: Iterable[Check]) -> AsyncIterator[Outcome]:
    """Outcomes as they come. One check at a time, so that none decides what another sees."""
    for check in checks:
        yield await _outcome(target, check)


async def _outcome(target: Target, check: Check) -> Outcome:
    began = time.monotonic()
    status: Literal["passed", "failed", "not applicable"] = "failed"
    try:
        async with asyncio.timeout(LONGEST_CHECK):
            await check(target)
        status, why = "passed", ""
    except NotApplicableError as reason:
        status, why = "not applicable", str(reason)
    except AssertionError as error:
        why = _line(str(error)) or check.rule
    except TimeoutError:
        why = f"not done after {LONGEST_CHECK:.0f} seconds"
    # Answers of any shape may raise anything in the code that reads them; what it says is what went wrong.
    except Exception as error:
        why = _line(f"{type(error).__name__}: {error}")
    return Outcome(check, status, why, time.monotonic() - began)


def _line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
