"""The ledger of a stage: a line for every row that it read, with what became of it and why; no texts."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from commonweight.workshop.alignment.settings import AlignmentError
from commonweight.workshop.data.rows import Row

LEDGER = "ledger.jsonl"
KEPT = "kept"


class LedgerWriter:
    """Writes the ledger of an output folder."""

    def __init__(self, folder: Path, **common: str | None) -> None:
        self.dropped: Counter[str] = Counter()
        """Rows that were left out, by reason."""
        self._file = (folder / LEDGER).open("w", encoding="utf-8")
        self._common = common

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def keep(self, row: Row, output: Row, **facts: object) -> None:
        """Note that a row became one of the output."""
        self._write(row, {"decision": KEPT, "output": output.row_id, "principle": output.principle, **facts})

    def drop(self, row: Row, reason: str, **facts: object) -> None:
        """Note that a row was left out."""
        self.dropped[reason] += 1
        self._write(row, {"decision": reason, "principle": row.principle, **facts})

    def _write(self, row: Row, facts: Mapping[str, object]) -> None:
        line = {"row": row.row_id, "source": row.source, "licence": row.licence, **self._common, **facts}
        self._file.write(json.dumps(line, sort_keys=True) + "\n")


def read_ledger(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Lines of the rows that an output folder holds, by their ids; None: the folder has no ledger.

    Raises:
        AlignmentError: it is damaged.
    """
    path = folder / LEDGER
    if not path.exists():
        return None
    lines: dict[str, dict[str, Any]] = {}
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["decision"] == KEPT:
                lines[line["output"]] = line
    except (ValueError, KeyError, TypeError) as error:
        raise AlignmentError(f"The file {LEDGER} of {folder.name} is damaged; build it again.") from error
    return lines
