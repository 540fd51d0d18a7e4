"""The chain of records that a release carries: every record after those it depends on, each with a digest.

Each line holds the digest of the line before. A chain proves order and completeness, not truth: whoever can write
all of it can write another.
"""

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from commonweight.lineage.digests import LineageError, digest_bytes, encode_json
from commonweight.lineage.record import Record, Sha256, decode_record

CHAIN = "lineage.jsonl"
START = "0" * 64
"""The digest before the first line."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    previous: Sha256
    record: Record


@dataclass(frozen=True)
class Chain:
    """Records in topological order."""

    records: tuple[Record, ...]

    @property
    def head(self) -> str:
        """Digest of the last line; :data:`START` of an empty chain."""
        head = START
        for line in _make_lines(self.records):
            head = digest_bytes(line)
        return head

    def encode(self) -> bytes:
        """The bytes of ``lineage.jsonl``."""
        return b"".join(line + b"\n" for line in _make_lines(self.records))


def select_records(roots: Iterable[str], records: Mapping[str, Record]) -> dict[str, Record]:
    """Select the records that some depend on, these included.

    Raises:
        LineageError: one is missing.
    """
    needed: dict[str, Record] = {}
    pending = list(roots)
    while pending:
        identity = pending.pop()
        if identity in needed:
            continue
        if identity not in records:
            raise LineageError(f"The record {identity[:12]} is missing, and others depend on it.")
        needed[identity] = records[identity]
        pending += [item.record for item in needed[identity].inputs if item.record]
    return needed


def make_chain(roots: Iterable[str], records: Mapping[str, Record]) -> Chain:
    """Order the records that some records depend on, these included.

    The order depends on the records alone: of those that could come next, the one with the smallest identity does.

    Args:
        roots: identities of the records that everything else is there for.
        records: records by identity; may hold others, too.

    Raises:
        LineageError: a record that one depends on is missing, or they depend on each other in a circle.
    """
    needed = select_records(roots, records)
    waiting = {identity: {i.record for i in record.inputs if i.record} for identity, record in needed.items()}
    users: dict[str, list[str]] = {}
    for identity, inputs in waiting.items():
        for item in inputs:
            users.setdefault(item, []).append(identity)
    ready = [identity for identity, inputs in waiting.items() if not inputs]
    heapq.heapify(ready)
    ordered: list[Record] = []
    while ready:
        identity = heapq.heappop(ready)
        ordered.append(needed[identity])
        for user in users.get(identity, ()):
            waiting[user].discard(identity)
            if not waiting[user]:
                heapq.heappush(ready, user)
    if len(ordered) != len(needed):
        raise LineageError("Records depend on each other in a circle.")
    return Chain(tuple(ordered))


def decode_chain(data: bytes, name: str = CHAIN) -> Chain:
    """Read a chain and check it: every line follows the one before, and every record those that it depends on.

    Raises:
        LineageError: a line is not as it should be; says which.
    """
    if data and not data.endswith(b"\n"):
        raise LineageError(f"{name} is cut off: its last line does not end.")
    previous = START
    records: list[Record] = []
    seen: dict[str, Record] = {}
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        record = _decode_line(line, previous, f"{name}, line {number}")
        for item in record.inputs:
            if item.record and item.record not in seen:
                raise LineageError(
                    f"{name}, line {number}: the record {item.record[:12]} of {item.name} is not above."
                )
            if item.record and seen[item.record].content != item.digest:
                raise LineageError(
                    f"{name}, line {number}: {item.name} is not what its record {item.record[:12]} says."
                )
        check_fold(record, seen, f"{name}, line {number}")
        seen[record.identity] = record
        records.append(record)
        previous = digest_bytes(line)
    return Chain(tuple(records))


def fold(inputs: Sequence[Record], own: Iterable[str], field: str) -> tuple[str, ...]:
    """Licences (or generators) of an output: its own and those of everything that enters it.

    Args:
        inputs: records of the inputs, without those that are only measured on.
        field: ``licences`` or ``generators``.
    """
    return tuple(sorted({*own, *(value for record in inputs for value in getattr(record, field))}))


def check_fold(record: Record, records: Mapping[str, Record], name: str) -> None:
    """Check that a record carries the licences and generators of all that entered it.

    Raises:
        LineageError: it has others.
    """
    inputs = [records[i.record] for i in record.inputs if i.record and i.enters]
    for field, own in (("licences", record.own_licences), ("generators", record.own_generators)):
        expected, stated = fold(inputs, own, field), getattr(record, field)
        if expected != stated:
            raise LineageError(
                f"{name}: {record.name} has the {field} {', '.join(expected) or 'none'} by its inputs, "
                f"and states {', '.join(stated) or 'none'}."
            )


def _make_lines(records: Iterable[Record]) -> Iterable[bytes]:
    previous = START
    for record in records:
        line = encode_json({"previous": previous, "record": record.model_dump(mode="json")})
        previous = digest_bytes(line)
        yield line


def _decode_line(line: bytes, previous: str, name: str) -> Record:
    try:
        content = json.loads(line)
        parsed = _Line.model_validate(content)
    except (ValueError, ValidationError) as error:
        raise LineageError(f"{name} is not a line of a chain.") from error
    if parsed.previous != previous:
        raise LineageError(f"{name} does not follow the line before it: a line was changed, added or left out.")
    record = decode_record(encode_json(content["record"]) + b"\n", name)
    if encode_json({"previous": previous, "record": record.model_dump(mode="json")}) != line:
        raise LineageError(f"{name} is not written as chains are.")
    return record
