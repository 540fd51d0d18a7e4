"""The figures as a Markdown table."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One figure, taken on both servers once a round."""

    label: str
    unit: str
    digits: int
    """Shown behind the point."""
    commonweight: list[float]
    llama_server: list[float]

    def __str__(self) -> str:
        ratio = median(self.commonweight) / median(self.llama_server)
        return (
            f"| {self.label} | {self._cell(self.commonweight)} | {self._cell(self.llama_server)} | {ratio:.2f} |"
        )

    def _cell(self, values: list[float]) -> str:
        middle, low, high = (f"{value:.{self.digits}f}" for value in (median(values), min(values), max(values)))
        return f"{middle} {self.unit} ({low} to {high})"


def render(rows: list[Row]) -> str:
    """Medians with the range around them, and Commonweight's median over llama-server's."""
    head = ["| median (range) | Commonweight | llama-server | ratio |", "|---|--:|--:|--:|"]
    return "\n".join([*head, *map(str, rows)])
