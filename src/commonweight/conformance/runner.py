"""Sequential runner of checks."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Literal

from commonweight.conformance.checks import Check, NotApplicableError
from commonweight.conformance.target import Target

CHECK_TIMEOUT_SECONDS = 120.0
"""Seconds that one check may take."""
MAX_REASON_CHARACTERS = 240
"""Length of a reason."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one check."""

    check: Check
    status: Literal["passed", "failed", "not applicable"]
    why: str
    """One line, or nothing for a check that passed."""
    seconds: float


async def run(target: Target, checks: Iterable[Check]) -> AsyncIterator[Outcome]:
    """Outcomes as they come. One check at a time, so that none decides what another sees."""
    for check in checks:
        yield await _run_check(target, check)


async def _run_check(target: Target, check: Check) -> Outcome:
    began = time.monotonic()
    status: Literal["passed", "failed", "not applicable"] = "failed"
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check(target)
        status, why = "passed", ""
    except NotApplicableError as reason:
        status, why = "not applicable", str(reason)
    except AssertionError as error:
        why = _shorten(str(error)) or check.rule
    except TimeoutError:
        why = f"not done after {CHECK_TIMEOUT_SECONDS:.0f} seconds"
    # Answers of any shape may raise anything in the code that reads them; what it says is what went wrong.
    except Exception as error:
        why = _shorten(f"{type(error).__name__}: {error}")
    return Outcome(check, status, why, time.monotonic() - began)


def _shorten(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= MAX_REASON_CHARACTERS else line[: MAX_REASON_CHARACTERS - 1] + "…"
