"""Collecting a release's evidence from the outputs of a build: export, model and evaluations."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from commonweight.lineage.chain import make_chain
from commonweight.lineage.digests import digest_file
from commonweight.lineage.record import Record, read_record
from commonweight.workshop.release.documents import ReleaseError, read_file
from commonweight.workshop.release.evidence import (
    Declaration,
    EvaluationFacts,
    Evidence,
    WeightsFacts,
    check_evaluation_files,
    check_record_texts,
    find_export_head,
    find_material,
    make_evidence,
    read_evaluation,
)
from commonweight.workshop.release.figures import Subject
from commonweight.workshop.release.layout import PARITY, SAFETENSORS, WEIGHTS
from commonweight.workshop.release.safetensors_head import copy_with_head
from commonweight.workshop.release.settings import ReleaseSettings
from commonweight.workshop.release.weights import digest_sample, read_header

_MODEL_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
"""Files of a model folder that go out."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation folder, and what was measured in it."""

    folder: Path
    subject: Subject = "release"


def collect_evidence(
    settings: ReleaseSettings,
    records: Mapping[str, Record],
    export: Path,
    model: Path,
    evaluations: Sequence[Evaluation],
    day: date,
) -> Evidence:
    """Collect what the documents of a release are computed from.

    Args:
        records: records by identity, at least all that the folders' own depend on.
        export, model: output folders; the export is of the model.
        day: the release's date.

    Raises:
        ReleaseError: a folder is not as it should be, or does not belong to the others.
        LineageError: a record is missing or damaged.
    """
    exported = read_record(export)
    measured = [read_record(evaluation.folder) for evaluation in evaluations]
    known = {**records, exported.identity: exported, **{record.identity: record for record in measured}}
    chain = make_chain([exported.identity, *(record.identity for record in measured)], known)
    for record in chain.records:
        check_record_texts(record)
    ordered = {record.identity: record for record in chain.records}
    material = {record.identity for record in find_material(exported, ordered)}
    files: list[tuple[bytes, bytes]] = []
    for evaluation, record in zip(evaluations, measured, strict=True):
        _check_subject(evaluation, record, material)
        files.append(read_evaluation(evaluation.folder))
        check_evaluation_files(record, *files[-1])
    declaration = Declaration(
        name=settings.name,
        title=settings.title,
        licence=settings.licence,
        description=settings.description,
        limitations=settings.limitations,
        base_model=settings.base_model,
        languages=settings.languages,
        pipeline_tag=settings.pipeline_tag,
        share_alike=settings.share_alike,
        waivers=settings.waivers,
        date=day,
        export=exported.identity,
        evaluations=tuple(
            EvaluationFacts(subject=evaluation.subject, record=record.identity)
            for evaluation, record in zip(evaluations, measured, strict=True)
        ),
        weights=_describe_weights(settings, export, model, find_export_head(exported, ordered)),
    )
    return make_evidence(declaration, chain, read_file(export / PARITY), files)


def list_model_files(settings: ReleaseSettings, export: Path, model: Path) -> dict[str, tuple[Path, str]]:
    """Files of the export and the model that go out: path and digest by record, by their name in the release.

    Raises:
        ReleaseError: the export is not of the model, or a file is not in a record.
    """
    exported = read_record(export)
    found = {
        name: (export / name, digest)
        for name, digest in exported.files.items()
        if name.endswith(".gguf") and "/" not in name
    }
    if not found:
        raise ReleaseError("The export has no GGUF file.")
    if settings.safetensors:
        described = read_record(model)
        if described.identity not in {item.record for item in exported.inputs}:
            raise ReleaseError("The export was not made from the model folder that goes out with it.")
        for name in _MODEL_FILES:
            if name in exported.files:
                found[f"{SAFETENSORS}/{name}"] = (export / name, exported.files[name])
            elif name in described.files:
                found[f"{SAFETENSORS}/{name}"] = (model / name, described.files[name])
        if WEIGHTS not in found:
            raise ReleaseError("The model folder has no model.safetensors.")
    return found


def copy_weights(source: Path, target: Path, head: str) -> None:
    """Copy a file of the model; to safetensors without a lineage head, the head before export is added.

    Raises:
        ReleaseError: it is damaged.
    """
    if source.suffix == ".safetensors" and read_header(source).head is None:
        copy_with_head(source, target, head)
    else:
        shutil.copyfile(source, target)


def _describe_weights(settings: ReleaseSettings, export: Path, model: Path, head: str) -> dict[str, WeightsFacts]:
    found: dict[str, WeightsFacts] = {}
    for name, (path, _) in sorted(list_model_files(settings, export, model).items()):
        if path.suffix == ".safetensors":
            with tempfile.TemporaryDirectory(prefix="commonweight-release-") as place:
                copy_weights(path, Path(place) / path.name, head)
                found[name] = describe_weights(Path(place) / path.name)
        elif path.suffix == ".gguf":
            found[name] = describe_weights(path)
    return found


def describe_weights(path: Path) -> WeightsFacts:
    """What a release says of a file of weights.

    Raises:
        ReleaseError: it is damaged.
    """
    header = read_header(path)
    return WeightsFacts(
        size=path.stat().st_size,
        sha256=digest_file(path),
        sample=digest_sample(path),
        parameters=header.parameters,
        head=header.head,
    )


def _check_subject(evaluation: Evaluation, record: Record, material: set[str]) -> None:
    subjects = [item for item in record.inputs if item.enters and item.record]
    is_release = any(item.record in material for item in subjects)
    if evaluation.subject == "release" and not is_release:
        raise ReleaseError(f"The evaluation {record.name} is not of the model that is released.")
