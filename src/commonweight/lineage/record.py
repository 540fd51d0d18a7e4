"""Records of outputs: what an output folder was made of, by what, under which licences."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from commonweight.lineage.digests import (
    OBSERVED,
    RECORD,
    LineageError,
    digest_bytes,
    digest_content,
    digest_files,
    encode_json,
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

EVALUATION = "evaluation"
"""Role of an input that is measured on or kept out."""
PARITY = "parity"
"""Role of text that an export is compared with its model on."""

IMPORTED = "imported"
"""Fact of a record whose output was taken from a run elsewhere: that this ran as recorded is declared only."""


class Input(BaseModel):
    """One thing that an output was made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    """What it was to the stage: ``data``, ``tokenizer``, ``model``, :data:`EVALUATION`."""
    name: str
    digest: Sha256
    """Of its content: of a file, or of the files of a folder."""
    record: Sha256 | None = None
    """Identity of the record that describes it; None for what came from outside."""

    @property
    def enters(self) -> bool:
        """Whether something of it is in the output."""
        return self.role not in (EVALUATION, PARITY)


class Decision(BaseModel):
    """What a provenance rule said about rows of one origin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    verdict: Literal["pass", "block"]
    source: str
    licence: str | None
    generator: str | None
    content: str
    """``text``, ``prompts``, ``answers`` or ``weights``."""
    rows: int
    rows_digest: str | None = None
    """Digest of the ids of the rows."""
    reason: str


class Record(BaseModel):
    """What stands in ``record.json``. Its bytes hold no time, host or path: equal work has equal records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    kind: str
    """The kind of stage: ``source``, ``mix``, ``pretrain``, ..."""
    name: str
    inputs: tuple[Input, ...] = ()
    files: dict[str, Sha256]
    licences: tuple[str, ...] = ()
    """Licences of all material that is in the output, its inputs' included; sorted."""
    generators: tuple[str, ...] = ()
    """Models whose outputs are in it, its inputs' included; sorted."""
    own_licences: tuple[str, ...] = ()
    """The part of ``licences`` that this stage brought in from outside."""
    own_generators: tuple[str, ...] = ()
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Effective parameters: those of the recipe and every default."""
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    """What is known of the output and the same whenever the same work is done: tokens trained on, final losses."""
    stage_version: int = 1
    seed: int | None = None
    charter: str | None = None
    """Hash of the charter, where the stage follows one."""
    tools: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that computed it, by name."""
    decisions: tuple[Decision, ...] = ()

    @property
    def content(self) -> str:
        """Digest of the output's files: what decides whether later stages must run again."""
        return digest_content(self.files)

    @property
    def is_imported(self) -> bool:
        """Whether the output was taken from a run elsewhere."""
        return self.facts.get(IMPORTED) is True

    def encode(self) -> bytes:
        """The bytes of ``record.json``."""
        return encode_json(self.model_dump(mode="json")) + b"\n"

    @property
    def identity(self) -> str:
        """SHA-256 of the record's bytes."""
        return digest_bytes(self.encode())


def write_record(folder: Path, record: Record, observed: Mapping[str, JsonValue]) -> None:
    """Write ``record.json``, and ``observed.json`` beside it, into an output folder."""
    (folder / OBSERVED).write_text(json.dumps(dict(observed), sort_keys=True, indent=1) + "\n")
    (folder / RECORD).write_bytes(record.encode())


def decode_record(data: bytes, name: str) -> Record:
    """Read a record from its bytes; they must be exactly those that it would be written as.

    Args:
        name: what the sentence of an error calls it.

    Raises:
        LineageError: it is no record, or its bytes are not in the one form that records have.
    """
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the whole"
        raise LineageError(f"{name} is not a record: {place}: {problem['msg']}.") from error
    if record.encode() != data:
        raise LineageError(f"{name} is not written as records are.")
    return record


def read_record(folder: Path) -> Record:
    """Read the record of an output folder, without looking at its files.

    Raises:
        LineageError: it has none, or none that can be read.
    """
    path = folder / RECORD
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LineageError(f"{folder} has no {RECORD}: {error.strerror}.") from error
    return decode_record(data, str(path))


def check_files(folder: Path, record: Record) -> None:
    """Compare an output folder's files with its record.

    Raises:
        LineageError: one is missing, changed or not in the record.
    """
    found = digest_files(folder)
    for name in sorted(record.files.keys() | found.keys()):
        if name not in found:
            raise LineageError(f"{folder} has no {name}, which its record names.")
        if name not in record.files:
            raise LineageError(f"{folder} has {name}, which its record does not name.")
        if found[name] != record.files[name]:
            raise LineageError(f"{folder}/{name} is not the file that its record names: its digest differs.")
