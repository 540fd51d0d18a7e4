"""Reads dataset folders: Parquet rows of text, of messages and of preferences."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from commonweight.workshop.training.settings import TrainingError

COLUMNS = ["row_id", "kind", "text", "messages", "chosen", "rejected", "given", "split"]
CONVERSATIONS = ("messages", "chosen", "rejected")
HELD = {"text": ("text",), "messages": ("messages",), "preference": CONVERSATIONS}
"""Columns that rows of a kind must have."""
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Row:
    """A text, a conversation, or a conversation with two continuations."""

    row_id: str
    text: str | None
    messages: Messages | None
    given: int = 0
    """Characters at the beginning of the last answer that are not learned."""
    chosen: Messages | None = None
    """The better continuation of a preference."""
    rejected: Messages | None = None


def read_rows(folder: Path, split: str, kinds: tuple[str, ...] = ("text", "messages")) -> Iterator[Row]:
    """Rows of a split (``train``, ``validation``) and of these kinds, in the order of the files."""
    files = sorted(folder.glob("rows-*.parquet"))
    if not files:
        raise TrainingError(f"the dataset folder {folder.name} holds no rows-*.parquet")
    for file in files:
        try:
            table = pyarrow.parquet.read_table(file, columns=COLUMNS)
        except (pyarrow.ArrowException, OSError) as error:
            raise TrainingError(
                f"{folder.name}/{file.name} cannot be read as rows: it is torn or lacks columns"
            ) from error
        for row in table.to_pylist():
            if row["split"] != split or row["kind"] not in kinds:
                continue
            for column in HELD[row["kind"]]:
                if row[column] is None:
                    raise TrainingError(f"row {row['row_id']} of kind {row['kind']} has no {column}")
            held = {name: row[name] if name in HELD[row["kind"]] else None for name in CONVERSATIONS}
            yield Row(row["row_id"], row["text"], given=row["given"], **held)


def split_rows(folder: Path, kind: str, share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and held out: the dataset's validation rows, else a share by the seed."""
    rows = list(read_rows(folder, "train", (kind,)))
    held_out = list(read_rows(folder, "validation", (kind,)))
    if rows and not held_out:
        count = max(1, round(len(rows) * share))
        chosen = set(np.random.default_rng(seed).permutation(len(rows))[:count].tolist())
        held_out = [row for i, row in enumerate(rows) if i in chosen]
        rows = [row for i, row in enumerate(rows) if i not in chosen]
    return rows, held_out
