"""The ledger of a stage that makes rows of rows: what became of each, and why. It holds no texts."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import JsonValue

LEDGER = "ledger.jsonl"


class RowDecisions:
    """Writes one line for each row that was made or dropped, and counts the reasons of the latter."""

    def __init__(self, folder: Path) -> None:
        self.dropped: Counter[str] = Counter()
        self._file = (folder / LEDGER).open("w", encoding="utf-8", newline="\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def keep(self, row_id: str, made_of: Mapping[str, JsonValue]) -> None:
        """Note a row that was made.

        Args:
            made_of: ids of the rows it was made of, and what was drawn.
        """
        self._write({"row_id": row_id, **made_of})

    def drop(self, reason: str, made_of: Mapping[str, JsonValue]) -> None:
        """Note a row that was not made."""
        self.dropped[reason] += 1
        self._write({"dropped": reason, **made_of})

    def describe_dropped(self) -> str:
        """The reasons and how often each occurred, for messages."""
        return ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.dropped.items())) or "none dropped"

    def _write(self, line: Mapping[str, JsonValue]) -> None:
        self._file.write(json.dumps(line, sort_keys=True) + "\n")
