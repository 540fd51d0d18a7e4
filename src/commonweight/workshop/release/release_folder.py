"""Writing a release: the gate as a stage, and the release folder, written aside and renamed."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from commonweight.lineage.digests import LineageError, digest_bytes, digest_file
from commonweight.lineage.record import Record
from commonweight.workshop.release.bom import check_bom, make_bom
from commonweight.workshop.release.card import make_card
from commonweight.workshop.release.collect import Evaluation, collect_evidence, copy_weights, list_model_files
from commonweight.workshop.release.documents import ReleaseError, decode_model, quote, read_file
from commonweight.workshop.release.evidence import Evidence
from commonweight.workshop.release.gate import Gate, describe_gate, evaluate_gate, require_gate
from commonweight.workshop.release.layout import (
    BOM,
    CARD,
    GATE,
    LICENCE,
    NOTICE,
    PUBLIC_KEY,
    SUMS,
    encode_sums,
    is_allowed_name,
)
from commonweight.workshop.release.licence_file import find_licence_text
from commonweight.workshop.release.notices import make_notice
from commonweight.workshop.release.policy import read_policy
from commonweight.workshop.release.settings import ReleaseSettings
from commonweight.workshop.release.signature import find_key, read_public_part, sign_folder
from commonweight.workshop.release.verify import verify_release

Report = Callable[[str], None]


def run_gate(
    settings: ReleaseSettings,
    records: Mapping[str, Record],
    export: Path,
    model: Path,
    evaluations: Sequence[Evaluation],
    day: date,
    output: Path,
    report: Report,
) -> Gate:
    """Hold a build's outputs against the policy and write ``gate.json``, also where it blocks.

    Args:
        records: records by identity, at least all that those of the folders depend on.
        day: the release's date; waivers must hold on it.

    Raises:
        ReleaseError: an output is not as it should be. A gate that blocks is no error here.
        LineageError: a record is missing or damaged.
    """
    evidence = collect_evidence(settings, records, export, model, evaluations, day)
    gate = evaluate_gate(read_policy(settings.policy), evidence)
    (output / GATE).write_bytes(gate.encode())
    for row in gate.rows:
        report(f"{row.result + (', waived' if row.waiver else ''):>14}  {row.id}: {row.reason}")
    report(describe_gate(gate))
    return gate


def run_release(
    settings: ReleaseSettings,
    records: Mapping[str, Record],
    export: Path,
    model: Path,
    evaluations: Sequence[Evaluation],
    gate: Path,
    keys: Path,
    day: date,
    output: Path,
    report: Report,
) -> None:
    """Write a signed release folder.

    Nothing but the signature differs between two releases of equal inputs. An empty folder or an earlier release
    at ``output`` is replaced when the new one is complete; anything else there is left alone.

    Args:
        gate: folder with the ``gate.json`` that :func:`run_gate` wrote from the same inputs.
        keys: folder outside the release for a key that is to be made.

    Raises:
        ReleaseError: the gate blocks, or an input is not as it should be.
        LineageError: a record is missing or damaged.
    """
    _check_output(output)
    evidence = collect_evidence(settings, records, export, model, evaluations, day)
    verdict = evaluate_gate(read_policy(settings.policy), evidence)
    given = decode_model(Gate, read_file(gate / GATE), GATE)
    if given != verdict:
        raise ReleaseError("The gate was run on something else than what is released; run it again.")
    require_gate(verdict)
    licence_text = find_licence_text(settings.licence, settings.licence_text, settings.copyright)
    key = find_key(settings.signing_key, keys)
    if output.resolve() in key.resolve().parents:
        raise ReleaseError("The private key lies in the release's folder.")
    report(f"writing {settings.name}: {len(evidence.declaration.weights)} files of weights")
    workplace = output.with_name(f".{output.name}.draft")
    shutil.rmtree(workplace, ignore_errors=True)
    draft = workplace / settings.name  # the signature holds the name of the folder
    draft.mkdir(parents=True)
    try:
        digests = _copy_model(settings, export, model, evidence.head, draft)
        documents = make_documents(evidence, verdict)
        check_bom(documents[BOM])
        documents[LICENCE] = licence_text
        documents[PUBLIC_KEY] = read_public_part(key)
        for name, data in documents.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(data)
            digests[name] = digest_bytes(data)
        (draft / SUMS).write_bytes(encode_sums(digests))
        report("signing")
        sign_folder(draft, key)
        checked = verify_release(draft, quick=True)
        if not checked.passed:
            raise ReleaseError("; ".join(statement.text.rstrip(".") for statement in checked.failures[:5]) + ".")
        _replace(output, draft)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    report(f"released {settings.name}: {describe_gate(verdict)}")


def make_documents(evidence: Evidence, gate: Gate) -> dict[str, bytes]:
    """All documents that are computed from the evidence, and the evidence itself, by name.

    Raises:
        LineageError: the licences cannot be met at once.
    """
    return {
        **evidence.encode_inputs(),
        GATE: gate.encode(),
        CARD: make_card(evidence, gate),
        NOTICE: make_notice(evidence),
        BOM: make_bom(evidence),
    }


def _copy_model(settings: ReleaseSettings, export: Path, model: Path, head: str, draft: Path) -> dict[str, str]:
    digests: dict[str, str] = {}
    for name, (path, expected) in list_model_files(settings, export, model).items():
        if not is_allowed_name(name):
            raise ReleaseError(f"{quote(name)} is not a name that a file of a release can have.")
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or digest_file(path) != expected:
            raise LineageError(f"{quote(name)} is not the file that its record names: its digest differs.")
        copy_weights(path, draft / name, head)
        digests[name] = digest_file(draft / name)
    return digests


def _check_output(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ReleaseError(f"{output.name} is not a folder.")
    if output.exists() and any(output.iterdir()) and not (output / SUMS).exists():
        raise ReleaseError(f"The folder {output.name} holds something that is not a release; nothing was written.")


def _replace(output: Path, draft: Path) -> None:
    if output.exists():
        old = draft.with_name("old")
        output.rename(old)
    draft.rename(output)
