"""Reading data sets of evaluations: JSON lines, gzipped or not, with the digest of their file."""

import gzip
import hashlib
import io
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.results import DatasetIdentity

MAX_BYTES = 1 << 30
"""Of a data set, unpacked; it is held in memory."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Dataset:
    """Rows of a data set, and its identity."""

    identity: DatasetIdentity
    rows: Sequence[dict[str, object]]


@dataclass(frozen=True)
class DatasetFile:
    """A file of samples, one JSON object a line, gzipped or not."""

    path: Path
    licence: str
    """SPDX identifier or ``LicenseRef-*``."""


def read_dataset(name: str, files: Mapping[str, DatasetFile]) -> Dataset:
    """Read a data set.

    Raises:
        EvaluationError: its file is missing, or no JSON lines.
    """
    file = files.get(name)
    if file is None or not file.path.is_file():
        raise EvaluationError(f"the data set {name} has no file")
    content = file.path.read_bytes()
    identity = DatasetIdentity(name=name, digest=hashlib.sha256(content).hexdigest(), licence=file.licence)
    return Dataset(identity, _parse(name, _unpack(name, content)))


def choose_rows(rows: Sequence[Row], limit: int | None, seed: int) -> list[tuple[int, Row]]:
    """Rows to measure, with their numbers from 0, in the order of the data set.

    With a limit they are drawn at random, since the beginning of a set is seldom like the rest of it. A larger
    limit adds rows to those of a smaller one.
    """
    numbered = list(enumerate(rows))
    if limit is None or limit >= len(numbered):
        return numbered
    random.Random(seed).shuffle(numbered)
    return sorted(numbered[:limit], key=lambda pair: pair[0])


def _unpack(name: str, content: bytes) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MAX_BYTES + 1)
        except (zlib.error, EOFError, OSError):
            raise EvaluationError(f"the data set {name} is a damaged gzip file") from None
    if len(content) > MAX_BYTES:
        raise EvaluationError(f"the data set {name} is larger than {MAX_BYTES} bytes")
    return content


def _parse(name: str, content: bytes) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise EvaluationError(f"line {number} of the data set {name} is not a JSON object")
        rows.append(row)
    if not rows:
        raise EvaluationError(f"the data set {name} has no rows")
    return rows
