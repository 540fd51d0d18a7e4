"""What a dataset folder says of itself: counts, origins and provenance."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from commonweight.workshop.data.rows import DataError, Kind, Row, Split

MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
MOST_GROUPS = 1000
"""Different terms and generators in a dataset: the gate decides on each, and manifests and records list them."""

_CHUNK = 10_000
_Model = TypeVar("_Model")


class SourceOrigin(BaseModel):
    """Where a source's bytes came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    location: str
    """``from``, as the recipe writes it."""
    revision: str | None
    """Commit, of a source on the hub; as declared where a local mirror stands for the hub."""
    sha256: str
    """Digest of the file; of a folder, that of its files' paths and digests."""
    files: int


class RowCount(BaseModel):
    """Rows that share source, terms, kind and split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    licence: str
    generator: str | None
    kind: Kind
    split: Split
    rows: int
    characters: int


class MixShare(BaseModel):
    """What a mix took of one input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weight: float
    """Its share as the recipe asks for it; all together are 1."""
    share: float
    """Its share of the training characters."""
    epochs: float
    """How often its rows stand in the mix, on average by characters."""
    rows: int
    characters: int


class Manifest(BaseModel):
    """Counts of a dataset folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    characters: int
    evaluation: bool = False
    """Whether something is measured on it; then no filter and no mix takes it."""
    counts: tuple[RowCount, ...]
    dropped: dict[str, int] = Field(default_factory=dict)
    """Rows that this stage left out, by reason."""
    contaminated: dict[str, int] = Field(default_factory=dict)
    """Of these, rows that share text with an evaluation set, by set; a row may count for several."""
    sources: tuple[SourceOrigin, ...]
    mix: tuple[MixShare, ...] = ()


class ProvenanceGroup(BaseModel):
    """Rows of one origin and the same terms: what the licence gate decides on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    licence: str
    generator: str | None
    kind: Kind
    rows: int
    sha256: str
    """Digest of the source."""
    row_ids_digest: str
    """SHA-256 of the distinct row ids, sorted, each followed by a newline."""


@dataclass
class RowTally:
    """Counts rows while they are written."""

    rows: int = 0
    characters: int = 0
    _counts: dict[tuple[str, str, str | None, Kind, Split], list[int]] = field(default_factory=dict)
    _ids: dict[tuple[str, str, str | None, Kind], "array[int]"] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count a row.

        Raises:
            DataError: its rows have too many different licences and generators, so that these can be no names.
        """
        kind, characters = row.content.kind, row.content.count_characters()
        count = self._counts.setdefault((row.source, row.licence, row.generator, kind, row.split), [0, 0])
        count[0] += 1
        count[1] += characters
        self.rows += 1
        self.characters += characters
        self._ids.setdefault((row.source, row.licence, row.generator, kind), array("Q")).append(
            int(row.row_id, 16)
        )
        if len(self._ids) > MOST_GROUPS:
            raise DataError(
                f"More than {MOST_GROUPS:,} different licences and generators of rows cannot be judged: "
                f"in {row.source}, does a column licence or generator hold something else?"
            )

    def list_counts(self) -> tuple[RowCount, ...]:
        """All counts, in a fixed order."""
        return tuple(
            RowCount(
                source=source,
                licence=licence,
                generator=generator,
                kind=kind,
                split=split,
                rows=rows,
                characters=characters,
            )
            for (source, licence, generator, kind, split), (rows, characters) in sorted(
                self._counts.items(), key=lambda item: [part or "" for part in item[0]]
            )
        )

    def list_provenance(self, sources: Iterable[SourceOrigin]) -> tuple[ProvenanceGroup, ...]:
        """The groups that the licence gate decides on, in a fixed order."""
        digests = {source.name: source.sha256 for source in sources}
        return tuple(
            ProvenanceGroup(
                source=source,
                licence=licence,
                generator=generator,
                kind=kind,
                rows=len(ids),
                sha256=digests[source],
                row_ids_digest=digest_row_ids(ids),
            )
            for (source, licence, generator, kind), ids in sorted(
                self._ids.items(), key=lambda item: [part or "" for part in item[0]]
            )
        )


def digest_row_ids(ids: "array[int]") -> str:
    """SHA-256 of distinct row ids as sorted lines of hex digits."""
    distinct = np.unique(np.frombuffer(ids, np.uint64))
    digest = hashlib.sha256()
    for start in range(0, len(distinct), _CHUNK):  # a million lines at once would take 130 MB
        digest.update("".join(f"{row_id:016x}\n" for row_id in distinct[start : start + _CHUNK].tolist()).encode())
    return digest.hexdigest()


def merge_origins(manifests: Mapping[str, Manifest]) -> tuple[SourceOrigin, ...]:
    """Origins of all sources of several folders.

    Raises:
        DataError: two sources have one name.
    """
    origins: dict[str, SourceOrigin] = {}
    for name, manifest in manifests.items():
        for origin in manifest.sources:
            known = origins.setdefault(origin.name, origin)
            if known.sha256 != origin.sha256:
                raise DataError(
                    f"The input {name} has a source called {origin.name} with the digest {origin.sha256}, another "
                    f"input one with the digest {known.sha256}; give one of them another name."
                )
    return tuple(origins[name] for name in sorted(origins))


def require_training_data(name: str, manifest: Manifest) -> None:
    """Stop where an input is something that is measured on.

    Raises:
        DataError: names the input.
    """
    if manifest.evaluation:
        raise DataError(f"The input {name} is an evaluation set, which trains nothing.")


def write_manifest(folder: Path, manifest: Manifest, groups: Iterable[ProvenanceGroup]) -> None:
    """Write both files; the manifest last, as it says that the folder is whole."""
    listed = [group.model_dump(mode="json") for group in groups]
    (folder / PROVENANCE).write_text(_format_json(listed), encoding="utf-8")
    (folder / MANIFEST).write_text(_format_json(manifest.model_dump(mode="json")), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a dataset folder.

    Raises:
        DataError: it is missing or damaged.
    """
    return _read_json(folder / MANIFEST, TypeAdapter(Manifest))


def read_provenance(folder: Path) -> tuple[ProvenanceGroup, ...]:
    """The groups of a dataset folder that the licence gate decides on.

    Raises:
        DataError: they are missing or damaged.
    """
    return _read_json(folder / PROVENANCE, TypeAdapter(tuple[ProvenanceGroup, ...]))


def _format_json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _read_json(path: Path, adapter: "TypeAdapter[_Model]") -> _Model:
    try:
        return adapter.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path.parent.name} is no whole dataset folder: it has no {path.name}.") from None
    except ValidationError:
        raise DataError(f"The file {path.name} of the dataset folder {path.parent.name} is damaged.") from None
