"""What is wrong with a charter."""

from typing import NamedTuple


class Problem(NamedTuple):
    """Something that has to be put right, and where: the line in the file, from 1."""

    line: int
    text: str


class CharterError(Exception):
    """The file is no charter. It says everything that is wrong with it, in the order of the lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("; ".join(f"line {problem.line}: {problem.text}" for problem in self.problems))
