"""Readers of source files: plain text, JSON lines (also gzipped) and Parquet, as records with their places."""

import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from commonweight.workshop.data.rows import DataError

TEXT_SUFFIXES = (".txt", ".md")
DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
MOST_LINE_BYTES = 64 * 2**20
"""Longest line of a JSONL file."""
_BATCH_ROWS = 256


@dataclass(frozen=True)
class SourceFile:
    """A file of a source."""

    name: str
    """Its path in the source, for messages and digests."""
    path: Path

    @property
    def is_text(self) -> bool:
        """Whether it is plain text, by its name."""
        return self.name.lower().endswith(TEXT_SUFFIXES)


@dataclass(frozen=True)
class Record:
    """A row as its file has it."""

    fields: Mapping[str, Any]
    place: str
    """Where it is: the file and a number."""


def is_source_file(name: str) -> bool:
    """Whether a reader knows this type of file, by its name."""
    return name.lower().endswith((*TEXT_SUFFIXES, *DATA_SUFFIXES))


def read_records(file: SourceFile, columns: Collection[str]) -> Iterator[Record]:
    """Records of a JSONL or Parquet file, one by one.

    Args:
        columns: those that Parquet files are read for.

    Raises:
        DataError: the file is torn, or a line is no JSON object.
    """
    if file.name.lower().endswith(".parquet"):
        yield from _read_parquet(file, columns)
    else:
        yield from _read_json_lines(file)


def read_text_rows(file: SourceFile, most_characters: int) -> Iterator[Record]:
    """Parts of a plain text, which together are the text.

    A part ends at the last blank line before it would become too long, else at the end of a line, else within.

    Raises:
        DataError: the file is not UTF-8.
    """
    buffer = ""
    number = 0
    for line in _read_text_lines(file, most_characters):
        if len(buffer) + len(line) > most_characters:
            cut = buffer.rfind("\n\n") + 2
            cut = cut if cut > 2 and len(buffer) - cut + len(line) <= most_characters else len(buffer)
            number += 1
            yield Record({"text": buffer[:cut]}, f"{file.name}, part {number}")
            buffer = buffer[cut:]
        buffer += line
    if buffer:
        yield Record({"text": buffer}, f"{file.name}, part {number + 1}")


def read_prompt_lines(file: SourceFile) -> Iterator[Record]:
    """Lines of a plain text, each a prompt; empty ones left out.

    Raises:
        DataError: the file is not UTF-8.
    """
    for number, line in enumerate(_read_text_lines(file, MOST_LINE_BYTES), 1):
        if line.strip():
            yield Record({"prompt": line.strip()}, f"{file.name}, line {number}")


def _read_text_lines(file: SourceFile, most_characters: int) -> Iterator[str]:
    with file.path.open(encoding="utf-8-sig") as stream:
        try:
            while line := stream.readline(most_characters):
                yield line
        except UnicodeDecodeError:
            raise DataError(f"{file.name} is not UTF-8 text.") from None


def _read_json_lines(file: SourceFile) -> Iterator[Record]:
    is_compressed = file.name.lower().endswith(".gz")
    with gzip.open(file.path) if is_compressed else file.path.open("rb") as stream:
        for number, line in enumerate(_read_lines(stream, file), 1):
            place = f"{file.name}, line {number}"
            data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not data.strip():
                continue
            try:
                fields = msgspec.json.decode(data)
            except ValueError:  # its message may quote the line
                raise DataError(f"{place}: it is not valid JSON.") from None
            except RecursionError:
                raise DataError(f"{place}: it is nested too deeply.") from None
            if not isinstance(fields, dict):
                raise DataError(f"{place}: it is no JSON object.")
            yield Record(fields, place)


def _read_lines(stream: IO[bytes] | gzip.GzipFile, file: SourceFile) -> Iterator[bytes]:
    number = 0
    try:
        while line := stream.readline(MOST_LINE_BYTES + 1):
            number += 1
            if len(line) > MOST_LINE_BYTES:
                raise DataError(f"{file.name}, line {number}: it is longer than {MOST_LINE_BYTES // 2**20} MiB.")
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(
            f"{file.name} is torn: its gzip data breaks off or is damaged after line {number}."
        ) from None


def _read_parquet(file: SourceFile, columns: Collection[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(io.FileIO(file.path), pre_buffer=False) as shard:
            present = [name for name in shard.schema_arrow.names if name in columns]
            for batch in shard.iter_batches(_BATCH_ROWS, columns=present):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{file.name}, row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise DataError(
            f"{file.name} is torn or no Parquet file: nothing can be read after row {number}."
        ) from None
