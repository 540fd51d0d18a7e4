"""The report of a verification: statements, each labelled by what stands behind it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

Label = Literal["failed", "proved", "consistent", "declared"]

_MEANINGS: dict[Label, str] = {
    "failed": "not as it should be",
    "proved": "computed again from the bytes",
    "consistent": "documents of the release agree",
    "declared": "the publisher says so",
}

WITHOUT_KEY = (
    "A release that was rewritten whole and signed with another key: documents, records, scores and weights that "
    "agree with each other. Compare the key with one that you have from elsewhere (--trust).",
)
"""What a verification without a trusted key cannot see."""
WITH_KEY = (
    "What the holder of the trusted key chose to say: sources, generators and parameters in records that describe "
    "other work, scores of answers that were never given, records that were left out where nothing names them.",
    "A release that was withdrawn or replaced by a newer one: signatures do not expire.",
)
"""What no verification of a release alone can see."""


@dataclass(frozen=True)
class Statement:
    """One statement about a release."""

    label: Label
    text: str
    file: str | None = None


@dataclass(frozen=True)
class Report:
    """What a verification came to."""

    name: str
    kind: Literal["release", "file"]
    statements: tuple[Statement, ...]
    left_out: tuple[str, ...] = ()
    """What was not looked at, and why."""
    undetectable: tuple[str, ...] = ()
    """What this verification cannot see, however carefully."""

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Statement, ...]:
        """The statements that failed."""
        return tuple(statement for statement in self.statements if statement.label == "failed")


@dataclass
class Checks:
    """Statements as they are found."""

    statements: list[Statement] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def fail(self, text: str, file: str | None = None) -> None:
        """Add what is not as it should be."""
        self.statements.append(Statement("failed", text, file))

    def add(self, label: Label, text: str, file: str | None = None) -> None:
        """Add a statement."""
        self.statements.append(Statement(label, text, file))

    def has_failures(self, file: str) -> bool:
        """Whether something about a file failed."""
        return any(item.label == "failed" and item.file == file for item in self.statements)


def render(report: Report) -> str:
    """A report as plain text: what failed first."""
    lines = [f"{report.name}: {'passed' if report.passed else 'FAILED'}"]
    for label, meaning in _MEANINGS.items():
        own = [statement.text for statement in report.statements if statement.label == label]
        lines += _list_section(f"{label} ({meaning})", own)
    lines += _list_section("left out", report.left_out)
    lines += _list_section("not detectable", report.undetectable)
    return "\n".join(lines) + "\n"


def render_json(report: Report) -> str:
    """A report as JSON."""
    return json.dumps(asdict(report) | {"passed": report.passed}, indent=1) + "\n"


def _list_section(title: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    return [title, *(f"  {item}" for item in items)] if items else []
