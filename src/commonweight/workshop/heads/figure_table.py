"""The table of figures: Markdown for people, and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from commonweight.guard.heads.calibration import Interval
from commonweight.workshop.heads.evaluate import Evaluator
from commonweight.workshop.heads.figures import Figure, Goal, Result, Unit

BEGIN = "<!-- rows of figures: written by `commonweight guard eval --all` -->"
END = "<!-- end of the rows of figures -->"
_RESULTS: Mapping[Result, str] = {
    "aim": "aim met",
    "floor": "floor met",
    "missed": "missed",
    "reported": "aim missed",
}
_SUFFIXES: Mapping[Unit, str] = {"ratio": "x", "seconds": " s"}


@dataclass(frozen=True)
class Subject:
    """What was measured."""

    charter: str
    bundle: str
    """Digest."""
    model: str
    seen: str
    """``states`` or ``text``."""
    judge: bool
    date: str

    @classmethod
    def from_evaluator(cls, evaluator: Evaluator) -> "Subject":
        """Describe what an evaluator scores with, today."""
        guard = evaluator.guard
        return cls(
            charter=guard.charter.sha256,
            bundle=guard.digest,
            model=evaluator.assistant.card.id,
            seen="states" if guard.reads_states else "text",
            judge=guard.judge is not None,
            date=date.today().isoformat(),
        )

    def format(self) -> str:
        """Write it as a sentence."""
        parts = [
            f"Charter `{self.charter[:16]}`, bundle `{self.bundle[:16]}`",
            f"{self.seen} of {self.model}",
            "screen and judge" if self.judge else "screen only",
            self.date,
        ]
        return "; ".join(parts) + "."


def format_table(subject: Subject, figures: Sequence[Figure]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        subject.format(),
        "",
        "| figure | n | seen [95 %] | floor | aim | | |",
        "|---|--:|---|---|---|---|---|",
    ]
    for one in figures:
        unread = f"{one.unread} not read" if one.unread else ""
        cells = (
            one.name,
            str(one.texts) if one.value else "",
            _format_value(one.value, one.unit),
            _format_limit(one.goal, one.goal.floor, one.unit) if one.goal else "",
            _format_limit(one.goal, one.goal.aim, one.unit) if one.goal else "",
            _RESULTS.get(one.result, ""),
            "; ".join(filter(None, (one.note, unread))),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def describe_figures(subject: Subject, figures: Sequence[Figure]) -> dict[str, Any]:
    """Describe the rows for JSON."""
    return {
        "subject": vars(subject),
        "figures": [
            {
                "group": one.group,
                "figure": one.name,
                "n": one.texts,
                "unread": one.unread,
                "unit": one.unit,
                "value": one.value.value if one.value else None,
                "interval": [one.value.lower, one.value.upper] if one.value else None,
                "floor": one.goal.floor if one.goal else None,
                "aim": one.goal.aim if one.goal else None,
                "at_most": one.goal.is_upper if one.goal else None,
                "result": one.result,
                "note": one.note,
            }
            for one in figures
        ],
    }


def _format_value(value: Interval | None, unit: Unit) -> str:
    if value is None:
        return ""
    first, *others = (_format_number(one, unit) for one in (value.value, value.lower, value.upper))
    return f"{first}{_SUFFIXES.get(unit, '')} [{', '.join(others)}]"


def _format_number(number: float, unit: Unit) -> str:
    match unit:
        case "share":
            return f"{number:.1%}"
        case "tokens":
            return f"{number:.0f}"
        case "count":
            return f"{number:g}"
        case _:
            return f"{number:.3f}"


def _format_limit(goal: Goal, limit: float | None, unit: Unit) -> str:
    if limit is None:
        return "report"
    sign = "<=" if goal.is_upper else ">="
    return f"{sign} {limit:.1%}" if unit == "share" else f"{sign} {limit:g}{_SUFFIXES.get(unit, '')}"
