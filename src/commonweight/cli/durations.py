"""Parsing and formatting of durations and dates."""

import re
import time
from datetime import UTC, datetime

import typer

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_duration(text: str) -> float:
    """Parse a duration, such as "90d", "12h", "30m" or "2w", to seconds."""
    if match := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower(), re.ASCII):
        number, unit = match.groups()
        if int(number):
            return float(int(number) * _SECONDS[unit])
    raise typer.BadParameter(f"{text!r} is no duration; write for example 90d, 12h or 2w.")


def parse_moment(text: str) -> float:
    """Parse a day such as "2026-01-31" (its beginning in UTC), or a duration ago, to seconds since the epoch."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        try:
            return time.time() - parse_duration(text)
        except typer.BadParameter:
            raise typer.BadParameter(f"{text!r} is no day; write for example 2026-01-31, or 7d.") from None


def format_day(at: float) -> str:
    """Format the day of a time, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def format_moment(at: float | None) -> str | None:
    """Format a time for programs, in UTC, such as "2026-01-31T12:00:00Z"."""
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
