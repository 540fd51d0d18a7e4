"""Figures as a Markdown table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was measured here and on a peer, once a round."""

    label: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    """Empty where the figure stands for itself."""
    peer: str = "llama-server"
    more_is_better: bool = False
    target: float | None = None
    """How many times better than the peer, at least; without a peer, the most that it may be."""
    notes: Sequence[str] = field(default_factory=tuple)
    """What was prefilled, and what else a reader should know."""

    @property
    def advantage(self) -> float | None:
        """How many times better: more of what there should be more of, or sooner."""
        if not self.theirs:
            return None
        ratio = median(self.ours) / median(self.theirs)
        return ratio if self.more_is_better else 1 / ratio

    def __str__(self) -> str:
        theirs = f"{_cell(self.theirs, self.unit)}, {self.peer}" if self.theirs else ""
        advantage = "" if self.advantage is None else f"{self.advantage:.2f}x"
        return f"| {self.label} | {_cell(self.ours, self.unit)} | {theirs} | {advantage} | {self._target()} |"

    def _target(self) -> str:
        if self.target is None:
            return "(report)"
        if self.advantage is None:
            return f"<= {self.target:g} {self.unit}, {_verdict(median(self.ours) <= self.target)}"
        return f">= {self.target:g}x, {_verdict(self.advantage >= self.target)}"


def render(figures: Iterable[Figure], failures: Iterable[str]) -> str:
    """Medians with the range around them, how many times better that is, and the targets; then the notes."""
    figures = list(figures)
    table = ["| median (range) | Commonweight | peer | better by | target |", "|---|--:|--:|--:|---|"]
    notes = [f"- {figure.label}: {note}" for figure in figures for note in figure.notes]
    broken = [f"- NOT COMPARABLE, {failure}" for failure in failures]
    return "\n".join([*table, *map(str, figures), "", *notes, *broken]).rstrip()


def _cell(values: Sequence[float], unit: str) -> str:
    middle, low, high = map(_number, (median(values), min(values), max(values)))
    return f"{middle} {unit}" if len(values) == 1 else f"{middle} {unit} ({low} to {high})"


def _number(value: float) -> str:
    # Three digits mean something; the noise is larger than the fourth.
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "missed"
