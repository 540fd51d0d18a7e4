"""Evidence: everything that the documents of a release are computed from, as it stands in the release itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from commonweight.lineage.chain import CHAIN, Chain, decode_chain, make_chain
from commonweight.lineage.digests import LineageError, digest_bytes
from commonweight.lineage.record import Record, Sha256
from commonweight.workshop.release.documents import (
    MAX_LINES_BYTES,
    ReleaseError,
    decode_json,
    decode_model,
    encode_document,
    quote,
    read_file,
    refuse_texts,
)
from commonweight.workshop.release.figures import (
    Figure,
    Sample,
    Subject,
    read_figures,
    read_samples,
)
from commonweight.workshop.release.layout import DECLARATION, PARITY, RESULTS, SAMPLES, name_evaluation
from commonweight.workshop.release.settings import Line, Name, Text, Waiver

MAX_PARAMETER_CHARACTERS = 2000
"""Longest string among the parameters of a record that is released."""


class WeightsFacts(BaseModel):
    """One file of weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(gt=0)
    sha256: Sha256
    sample: Sha256
    """Digest of sampled bytes, for a quick look."""
    parameters: int = Field(gt=0)
    head: Sha256 | None
    """The lineage's head that stands in its metadata."""


class EvaluationFacts(BaseModel):
    """One evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Subject
    record: Sha256


class Declaration(BaseModel):
    """``release.json``: what the publisher says, and which files and records it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    """Of all documents of the release."""
    name: Name
    title: Line
    licence: str = Field(max_length=100)
    description: Text
    limitations: Text
    base_model: str | None = Field(max_length=200)
    languages: tuple[str, ...]
    pipeline_tag: str = Field(max_length=50)
    share_alike: Literal["propagate", "attribute"]
    waivers: tuple[Waiver, ...]
    date: date
    export: Sha256
    """Identity of the record of the export."""
    evaluations: tuple[EvaluationFacts, ...]
    weights: dict[Annotated[str, Field(max_length=200)], WeightsFacts]


@dataclass(frozen=True)
class Evidence:
    """What the gate, the card, the notices and the bill of material are computed from."""

    declaration: Declaration
    chain: Chain
    parity: Any
    """The parity report, as JSON."""
    parity_bytes: bytes
    evaluations: dict[str, bytes]
    """The files of evaluations, by name."""
    figures: tuple[Figure, ...]
    samples: tuple[Sample, ...]

    @property
    def export(self) -> Record:
        """The record of the export.

        Raises:
            ReleaseError: the chain does not have it.
        """
        return self.get_record(self.declaration.export)

    @property
    def head(self) -> str:
        """The head of the chain of what was exported: of the records before the export."""
        return find_export_head(self.export, self.records)

    @property
    def records(self) -> dict[str, Record]:
        """The chain's records by identity."""
        return {record.identity: record for record in self.chain.records}

    @property
    def material(self) -> tuple[Record, ...]:
        """Records that something in the weights comes from, the export's last."""
        return find_material(self.export, self.records)

    @property
    def measured_files(self) -> tuple[str | None, ...]:
        """For each figure the GGUF file that it was measured on, as its record states; None: it states none."""
        files: list[str | None] = []
        for number, facts in enumerate(self.declaration.evaluations, start=1):
            place = f"{name_evaluation(number, facts.subject)}/{RESULTS}"
            kind = self.get_record(facts.record).parameters.get("file")
            name = f"{kind}.gguf" if facts.subject == "release" and isinstance(kind, str) else None
            found = [file for file in self.declaration.weights if name is not None and file.endswith(f"-{name}")]
            count = len(read_figures(self.evaluations[place], place, facts.subject))
            files += [found[0] if len(found) == 1 else None] * count
        return tuple(files)

    def get_record(self, identity: str) -> Record:
        """A record of the chain.

        Raises:
            ReleaseError: the chain does not have it.
        """
        try:
            return self.records[identity]
        except KeyError as error:
            raise ReleaseError(f"{CHAIN} has no record {identity[:12]}, which {DECLARATION} names.") from error

    def encode_inputs(self) -> dict[str, bytes]:
        """The bytes of the files that this is, by name."""
        return {
            DECLARATION: encode_document(self.declaration.model_dump(mode="json")),
            CHAIN: self.chain.encode(),
            PARITY: self.parity_bytes,
            **self.evaluations,
        }

    def digest_inputs(self) -> dict[str, str]:
        """Digests of the files that this is, by name."""
        return {name: digest_bytes(data) for name, data in self.encode_inputs().items()}


def find_export_head(export: Record, records: dict[str, Record]) -> str:
    """The head of the chain of all that an export reads, before the export itself.

    Raises:
        LineageError: a record is missing.
    """
    roots = [item.record for item in export.inputs if item.record and item.enters]
    return make_chain(roots, records).head


def find_material(root: Record, records: dict[str, Record]) -> tuple[Record, ...]:
    """Records of what enters a record's output, in the order of the chain, the record's own last.

    Raises:
        ReleaseError: one is missing.
    """
    needed: dict[str, Record] = {}
    pending = [root]
    while pending:
        record = pending.pop()
        if record.identity in needed:
            continue
        needed[record.identity] = record
        for item in record.inputs:
            if item.record and item.enters:
                if item.record not in records:
                    raise ReleaseError(f"The record {item.record[:12]} of {quote(item.name)} is missing.")
                pending.append(records[item.record])
    return tuple(record for identity, record in records.items() if identity in needed)


def check_evaluation_files(record: Record, results: bytes, samples: bytes) -> None:
    """Check that figures and scores are those that the record of their evaluation names.

    Raises:
        ReleaseError: they are others.
    """
    for name, data in ((RESULTS, results), (SAMPLES, samples)):
        if record.files.get(name) != digest_bytes(data):
            raise ReleaseError(f"{name} of the evaluation {quote(record.name)} is not that of its record.")


def check_record_texts(record: Record) -> None:
    """Refuse a record whose parameters hold a long text.

    Raises:
        ReleaseError: says where.
    """
    name = f"The record {quote(record.name)}"
    refuse_texts(record.parameters, name, MAX_PARAMETER_CHARACTERS, words=None)


def make_evidence(
    declaration: Declaration, chain: Chain, parity: bytes, evaluations: Sequence[tuple[bytes, bytes]]
) -> Evidence:
    """Parse evidence.

    Args:
        evaluations: the bytes of ``results.json`` and ``samples.jsonl`` of each that is declared.

    Raises:
        ReleaseError: one is malformed, or holds a text.
    """
    files: dict[str, bytes] = {}
    figures: list[Figure] = []
    samples: list[Sample] = []
    for number, (facts, (results, scores)) in enumerate(
        zip(declaration.evaluations, evaluations, strict=True), start=1
    ):
        place = name_evaluation(number, facts.subject)
        files |= {f"{place}/{RESULTS}": results, f"{place}/{SAMPLES}": scores}
        figures += read_figures(results, f"{place}/{RESULTS}", facts.subject)
        samples += read_samples(scores, f"{place}/{SAMPLES}", facts.subject)
    return Evidence(
        declaration=declaration,
        chain=chain,
        parity=decode_json(parity, PARITY),
        parity_bytes=parity,
        evaluations=files,
        figures=tuple(figures),
        samples=tuple(samples),
    )


def read_evaluation(folder: Path) -> tuple[bytes, bytes]:
    """The bytes of an evaluation's figures and scores; its private logs are not looked at.

    Raises:
        ReleaseError: a file is missing or too large.
    """
    return read_file(folder / RESULTS), read_file(folder / SAMPLES, MAX_LINES_BYTES)


def read_evidence(folder: Path) -> Evidence:
    """Read the evidence of a release folder; every file must be in the one form that releases have.

    Raises:
        ReleaseError: a file is missing or malformed.
    """
    declaration = decode_model(Declaration, read_file(folder / DECLARATION), DECLARATION)
    chain = read_chain(folder)
    evidence = make_evidence(
        declaration,
        chain,
        read_file(folder / PARITY),
        [
            read_evaluation(folder / name_evaluation(number, facts.subject))
            for number, facts in enumerate(declaration.evaluations, start=1)
        ],
    )
    for name, data in evidence.encode_inputs().items():
        if read_file(folder / name, MAX_LINES_BYTES) != data:
            raise ReleaseError(f"{name} is not written as releases are.")
    return evidence


def read_chain(folder: Path) -> Chain:
    """Read ``lineage.jsonl`` of a release.

    Raises:
        ReleaseError: it is missing, too large, or not a chain.
    """
    try:
        chain = decode_chain(read_file(folder / CHAIN, MAX_LINES_BYTES))
    except (LineageError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise ReleaseError(f"{CHAIN} is nested too deep.") from error
        raise ReleaseError(quote_sentence(str(error))) from error
    for record in chain.records:
        check_record_texts(record)
    return chain


def quote_sentence(sentence: str) -> str:
    """A sentence that may repeat a part of a release, for a terminal."""
    return ascii(sentence[:400])[1:-1]
