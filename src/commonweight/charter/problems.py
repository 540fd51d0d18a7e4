"""Problems of charters, and the exception that carries them."""

from typing import NamedTuple


class Problem(NamedTuple):
    """Problem in a charter's file, with its line (from 1)."""

    line: int
    text: str


class CharterError(Exception):
    """The file is no valid charter; ``problems`` are all of its problems, by line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("; ".join(f"line {problem.line}: {problem.text}" for problem in self.problems))
