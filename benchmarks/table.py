"""The report: a Markdown table."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One figure, measured on both servers once a round."""

    label: str
    unit: str
    commonweight: list[float]
    llama_server: list[float]

    def __str__(self) -> str:
        ratio = median(self.commonweight) / median(self.llama_server)
        return (
            f"| {self.label} | {self._cell(self.commonweight)} | {self._cell(self.llama_server)} | {ratio:.2f} |"
        )

    def _cell(self, values: list[float]) -> str:
        return f"{median(values):.3g} {self.unit} ({min(values):.3g} to {max(values):.3g})"


def render(rows: list[Row]) -> str:
    """Medians, the range around them, and Commonweight's median over llama-server's."""
    head = ["| median (range) | Commonweight | llama-server | ratio |", "|---|--:|--:|--:|"]
    return "\n".join([*head, *map(str, rows)])
