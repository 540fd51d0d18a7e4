"""Ledger of an evaluation: a line for each finished sample, so that a killed evaluation goes on where it was."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.results import write_whole

Score = Mapping[str, int | float]
"""What a sample adds to figures, by metric."""


class SampleLine(BaseModel):
    """A finished sample: identities, digests and scores, and no text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    sample_id: str
    digest: str
    """SHA-256 of the prompt."""
    answer: str | None
    """SHA-256 of the answer; None: there is none."""
    score: dict[str, int | float]
    """Outcomes that are right, by metric; what the figure is made of, in whole numbers where it can be."""
    error: Literal[True] | None = None
    """The sample has no answer, for a reason that stands in the private logs."""


def digest_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Ledger:
    """Finished samples in a file that is appended to, line by line.

    A last line that a kill tore is dropped. Samples that ended with an error are not finished: a further run
    tries them again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = {key: line for key, line in _read_lines(path).items() if line.error is None}
        self._write_all(list(self._lines.values()))
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def find(self, task: str, sample_id: str, digest: str) -> SampleLine | None:
        """The line of a finished sample, if its prompt is still the same."""
        line = self._lines.get((task, sample_id))
        return line if line is not None and line.digest == digest else None

    def get(self, task: str, sample_id: str) -> SampleLine:
        """The line of a sample that was added, error or not."""
        return self._lines[task, sample_id]

    def add(self, line: SampleLine) -> None:
        """Add a finished sample; it is on disk when this returns."""
        self._lines[line.task, line.sample_id] = line
        self._file.write(_format_line(line))
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """Write the lines of exactly these samples (task and id), in this order, whichever order they ended in."""
        self._write_all([self._lines[key] for key in order])

    def _write_all(self, lines: Sequence[SampleLine]) -> None:
        write_whole(self._path, "".join(map(_format_line, lines)))


def _format_line(line: SampleLine) -> str:
    return json.dumps(line.model_dump(exclude_defaults=True), sort_keys=True) + "\n"


def _read_lines(path: Path) -> Mapping[tuple[str, str], SampleLine]:
    if not path.exists():
        return {}
    text = path.read_bytes().decode("utf-8", "replace")
    lines = text.split("\n")
    found: dict[tuple[str, str], SampleLine] = {}
    for number, content in enumerate(lines[:-1], 1):
        try:
            line = SampleLine.model_validate_json(content)
        except ValidationError:
            if number == len(lines) - 1:
                break
            raise EvaluationError(
                f"line {number} of {path.name} is damaged: remove the file to measure all samples again"
            ) from None
        found[line.task, line.sample_id] = line
    return found
