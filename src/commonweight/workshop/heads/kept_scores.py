"""Scores of an evaluation that are kept until it is done, so that one that was stopped goes on.

A line of the file has the code of what was scored (HMAC of bundle, charter, model, place and text, with this
installation's key) and what was found: no text, and nothing to find one by without the key.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commonweight.signing.mac import Purpose, compute_mac


@dataclass(frozen=True)
class Outcome:
    """What a guard found in one text."""

    score: float = 0.0
    """The probability of a violation."""
    is_refused: bool = False
    principle: str | None = None
    """What the refusal rests on."""
    noted: tuple[str, ...] = ()
    """Principles with a verdict, whether it refused, recorded or would have refused."""
    is_encoded: bool = False
    """The first look did not suffice."""
    is_read: bool = True
    """False: a server would not take the request, which is longer than the model's window, or blank."""


class KeptScores:
    """Outcomes by what was scored, in a file that only its owner can read."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._key = key
        self._found: dict[str, Outcome] = {}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "a+", encoding="utf-8")
        self._file.seek(0)
        line = ""
        for line in self._file:
            self._read_line(line)
        if line and not line.endswith("\n"):  # the process was ended while it wrote
            self._file.write("\n")

    def find(self, *what: str | None) -> Outcome | None:
        """Find the outcome of what was scored."""
        return self._found.get(self._compute_code(what))

    def add(self, outcome: Outcome, *what: str | None) -> None:
        """Keep an outcome, which is written at once."""
        code = self._compute_code(what)
        self._found[code] = outcome
        self._file.write(json.dumps({"code": code, **vars(outcome)}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _compute_code(self, what: tuple[str | None, ...]) -> str:
        return compute_mac(self._key, Purpose.EVALUATION, json.dumps(what).encode()).hex()

    def _read_line(self, line: str) -> None:
        try:
            fields: dict[str, Any] = json.loads(line)
            code = fields.pop("code")
            self._found[code] = Outcome(**{**fields, "noted": tuple(fields["noted"])})
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # a line that is torn, or of another version: its text is scored again
