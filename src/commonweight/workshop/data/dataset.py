"""Dataset folders: rows in Parquet shards, written and read without holding them all."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from commonweight.workshop.data.manifest import (
    MANIFEST,
    PROVENANCE,
    Manifest,
    MixShare,
    RowTally,
    SourceOrigin,
    read_manifest,
    write_manifest,
)
from commonweight.workshop.data.rows import Content, DataError, Message, Row, Split

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        ("text", pa.string()),
        ("messages", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        pa.field("given", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        ("generator", pa.string()),
        ("principle", pa.string()),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""Columns of the shards."""

_GROUP_ROWS, _GROUP_CHARACTERS = 1000, 4_000_000
_SHARD_ROWS, _SHARD_CHARACTERS = 100_000, 256_000_000


class DatasetWriter:
    """Writes one dataset folder; equal rows in equal order make equal bytes.

    What an earlier run left of it is removed. Without :meth:`finish` the folder has no manifest and is not read.
    """

    def __init__(
        self,
        folder: Path,
        shard_rows: int = _SHARD_ROWS,
        shard_characters: int = _SHARD_CHARACTERS,
    ) -> None:
        self.tally = RowTally()
        self._folder = folder
        self._most = shard_rows, shard_characters
        self._shards = 0
        self._shard: pq.ParquetWriter | None = None
        self._in_shard = [0, 0]
        self._waiting: list[Row] = []
        self._waiting_characters = 0
        for path in (folder / MANIFEST, folder / PROVENANCE, *_list_shards(folder)):
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shard is not None:
            self._shard.close()

    def add(self, row: Row) -> None:
        """Write a row."""
        self.tally.add(row)
        self._waiting.append(row)
        self._waiting_characters += row.content.count_characters()
        if len(self._waiting) >= _GROUP_ROWS or self._waiting_characters >= _GROUP_CHARACTERS:
            self._write_group()

    def finish(
        self,
        sources: Sequence[SourceOrigin],
        *,
        dropped: Mapping[str, int],
        contaminated: Mapping[str, int] | None = None,
        evaluation: bool = False,
        mix: Sequence[MixShare] = (),
    ) -> Manifest:
        """Write what waits, then manifest and provenance."""
        if self._waiting or not self._shards:
            self._write_group()
        if self._shard is not None:
            self._shard.close()
            self._shard = None
        manifest = Manifest(
            rows=self.tally.rows,
            characters=self.tally.characters,
            evaluation=evaluation,
            counts=self.tally.list_counts(),
            dropped={reason: dropped[reason] for reason in sorted(dropped) if dropped[reason]},
            contaminated=dict(sorted((contaminated or {}).items())),
            sources=tuple(sources),
            mix=tuple(mix),
        )
        write_manifest(self._folder, manifest, self.tally.list_provenance(sources))
        return manifest

    def _write_group(self) -> None:
        if self._shard is None:
            path = self._folder / f"rows-{self._shards:05}.parquet"
            self._shard = pq.ParquetWriter(path, SCHEMA, compression="zstd", write_statistics=False)
            self._shards += 1
            self._in_shard = [0, 0]
        self._shard.write_table(pa.Table.from_pylist([_encode(row) for row in self._waiting], schema=SCHEMA))
        self._in_shard[0] += len(self._waiting)
        self._in_shard[1] += self._waiting_characters
        self._waiting, self._waiting_characters = [], 0
        if self._in_shard[0] >= self._most[0] or self._in_shard[1] >= self._most[1]:
            self._shard.close()
            self._shard = None


def read_rows(folder: Path, split: Split | None = None) -> Iterator[Row]:
    """Rows of a dataset folder in order, without holding them all.

    Raises:
        DataError: the folder is not whole, or a shard is torn.
    """
    expected = read_manifest(folder).rows
    shards = _list_shards(folder)
    found = 0
    for path in shards:
        with _open_shard(path) as shard:
            found += shard.metadata.num_rows
    if found != expected:
        raise DataError(
            f"The dataset folder {folder.name} has {found} of its {expected} rows; a shard is missing."
        )
    for path in shards:
        with _open_shard(path) as shard:
            try:
                for batch in shard.iter_batches(256, use_threads=False):
                    for fields in batch.to_pylist():
                        if split is None or fields["split"] == split:
                            yield _decode(fields)
            except (pa.ArrowException, OSError, UnicodeDecodeError):
                raise _describe_torn_shard(path) from None


def _list_shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.parquet"))


def _open_shard(path: Path) -> pq.ParquetFile:
    try:
        shard = pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError):
        raise _describe_torn_shard(path) from None
    if shard.schema_arrow.names != SCHEMA.names:
        shard.close()
        raise DataError(f"The shard {path.name} of the dataset folder {path.parent.name} has other columns.")
    return shard


def _describe_torn_shard(path: Path) -> DataError:
    return DataError(f"The shard {path.name} of the dataset folder {path.parent.name} is torn; build it again.")


def _encode(row: Row) -> dict[str, Any]:
    content = row.content
    return {
        "row_id": row.row_id,
        "kind": content.kind,
        "text": content.text,
        "messages": _encode_messages(content.messages),
        "chosen": _encode_messages(content.chosen),
        "rejected": _encode_messages(content.rejected),
        "given": content.given,
        "source": row.source,
        "licence": row.licence,
        "generator": row.generator,
        "principle": row.principle,
        "split": row.split,
    }


def _encode_messages(messages: tuple[Message, ...] | None) -> list[dict[str, str]] | None:
    return None if messages is None else [{"role": item.role, "content": item.content} for item in messages]


def _decode(fields: Mapping[str, Any]) -> Row:
    content = Content(
        kind=fields["kind"],
        text=fields["text"],
        messages=_decode_messages(fields["messages"]),
        chosen=_decode_messages(fields["chosen"]),
        rejected=_decode_messages(fields["rejected"]),
        given=fields["given"],
    )
    return Row(
        row_id=fields["row_id"],
        content=content,
        source=fields["source"],
        licence=fields["licence"],
        generator=fields["generator"],
        principle=fields["principle"],
        split=fields["split"],
    )


def _decode_messages(value: list[dict[str, str]] | None) -> tuple[Message, ...] | None:
    return None if value is None else tuple(Message(item["role"], item["content"]) for item in value)
