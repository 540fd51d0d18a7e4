"""Reads dataset folders: Parquet rows of text and of messages."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet

from commonweight.workshop.training.settings import TrainingError

COLUMNS = ["row_id", "kind", "text", "messages", "given", "split"]
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Row:
    """A text, or a conversation."""

    row_id: str
    text: str | None
    messages: Messages | None
    given: int = 0
    """Characters at the beginning of the last answer that are not learned."""


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
            if (row["messages"] if row["kind"] == "messages" else row["text"]) is None:
                raise TrainingError(f"row {row['row_id']} of kind {row['kind']} has no {row['kind']}")
            messages = row["messages"] if row["kind"] == "messages" else None
            yield Row(row["row_id"], row["text"], messages, row["given"])
