"""Rewriting a release whole: other evidence, every document and digest made again, another signature."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file
from tiny_build import quantise, write_f16

from commonweight.lineage.chain import make_chain
from commonweight.lineage.digests import digest_bytes, digest_file
from commonweight.lineage.record import EVALUATION, Record
from commonweight.workshop.release.collect import describe_weights
from commonweight.workshop.release.evidence import Evidence, make_evidence, read_evidence
from commonweight.workshop.release.gate import Gate, evaluate_gate
from commonweight.workshop.release.layout import PUBLIC_KEY, SIGNATURE, SUMS, WEIGHTS, encode_sums, list_files
from commonweight.workshop.release.policy import CheckRow, Policy
from commonweight.workshop.release.release_folder import make_documents
from commonweight.workshop.release.safetensors_head import copy_with_head
from commonweight.workshop.release.signature import read_public_part, sign_folder

RESULTS, SAMPLES = "evaluation/release-1/results.json", "evaluation/release-1/samples.jsonl"
F16, Q8, Q4 = "tiny-F16.gguf", "tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf"
Edit = Callable[[Path, Evidence], Evidence]


def write_sums(folder: Path) -> None:
    """Make the list of digests again."""
    names = [name for name in list_files(folder)[0] if name not in (SUMS, SIGNATURE)]
    (folder / SUMS).write_bytes(encode_sums({name: digest_file(folder / name) for name in names}))


def rewrite_documents(folder: Path, evidence: Evidence, policy: Policy) -> None:
    """Make all documents again, of other evidence or another policy."""
    for name, data in make_documents(evidence, evaluate_gate(policy, evidence)).items():
        (folder / name).write_bytes(data)


@dataclass(frozen=True)
class Seal:
    key: Path

    def __call__(self, folder: Path) -> None:
        (folder / PUBLIC_KEY).write_bytes(read_public_part(self.key))
        write_sums(folder)
        sign_folder(folder, self.key)


def rewrite(key: Path, edit: Edit) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        policy = Gate.model_validate_json((folder / "gate.json").read_bytes()).policy
        rewrite_documents(folder, edit(folder, read_evidence(folder)), policy)
        Seal(key)(folder)

    return apply


def weaken(key: Path) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        row = CheckRow(id="lineage", statement="There is a chain", kind="lineage")
        rewrite_documents(folder, read_evidence(folder), Policy(name="public", description="Less", rows=(row,)))
        Seal(key)(folder)

    return apply


def declare(evidence: Evidence, **fields: Any) -> Evidence:
    changed = evidence.declaration.model_dump(mode="json") | fields
    declaration = type(evidence.declaration).model_validate(changed)
    return replace(evidence, declaration=declaration)


def _rebuild(
    evidence: Evidence,
    edit: Callable[[Record], Record],
    parity: bytes | None = None,
    results: bytes | None = None,
    samples: bytes | None = None,
) -> Evidence:
    """Edit records and make everything that depends on them again: identities, digests, chain."""
    renamed: dict[str, Record] = {}
    for record in evidence.chain.records:
        inputs = tuple(
            item.model_copy(update={"record": new.identity, "digest": new.content})
            if item.record and (new := renamed[item.record])
            else item
            for item in record.inputs
        )
        changed = edit(record.model_copy(update={"inputs": inputs}))
        carried = [renamed[i.record] for i in record.inputs if i.record and i.role != EVALUATION]
        licences = {*changed.own_licences, *(name for item in carried for name in item.licences)}
        changed = changed.model_copy(update={"licences": tuple(sorted(licences))})
        renamed[record.identity] = changed
    declaration = evidence.declaration.model_dump(mode="json")
    declaration["export"] = renamed[evidence.declaration.export].identity
    for facts in declaration["evaluations"]:
        facts["record"] = renamed[facts["record"]].identity
    roots = [declaration["export"], *(facts["record"] for facts in declaration["evaluations"])]
    return make_evidence(
        type(evidence.declaration).model_validate(declaration),
        make_chain(roots, {record.identity: record for record in renamed.values()}),
        parity or evidence.parity_bytes,
        [(results or evidence.evaluations[RESULTS], samples or evidence.evaluations[SAMPLES])],
    )


def _set_files(kind: str, **files: bytes | str) -> Callable[[Record], Record]:
    digests = {name: value if isinstance(value, str) else digest_bytes(value) for name, value in files.items()}

    def edit(record: Record) -> Record:
        return record.model_copy(update={"files": record.files | digests}) if record.kind == kind else record

    return edit


def improve_scores(_: Path, evidence: Evidence) -> Evidence:
    results = json.loads(evidence.evaluations[RESULTS])
    results["figures"][0]["value"] = 0.8
    lines = evidence.evaluations[SAMPLES].replace(b'{"right": 0}', b'{"right": 1}')
    data = json.dumps(results).encode()
    edit = _set_files("evaluate", **{"results.json": data, "samples.jsonl": lines})
    return _rebuild(evidence, edit, results=data, samples=lines)


def improve_parity(_: Path, evidence: Evidence) -> Evidence:
    parity = evidence.parity_bytes.replace(b"0.0001", b"0.00001")
    return _rebuild(evidence, _set_files("export", **{"parity.json": parity}), parity)


def change_source(_: Path, evidence: Evidence) -> Evidence:
    def edit(record: Record) -> Record:
        if record.kind != "source":
            return record
        decisions = tuple(d.model_copy(update={"licence": "CC0-1.0"}) for d in record.decisions)
        return record.model_copy(update={"own_licences": ("CC0-1.0",), "decisions": decisions})

    return _rebuild(evidence, edit)


def change_source_and_weights(folder: Path, evidence: Evidence) -> Evidence:
    changed = change_source(folder, evidence)
    write_f16(folder / F16, changed.head)
    quantise(folder)
    digests = {name: digest_file(folder / name) for name in (F16, Q8, Q4)}
    parity = changed.parity_bytes
    for name, digest in digests.items():
        parity = parity.replace(changed.export.files[name].encode(), digest.encode())
    changed = _rebuild(changed, _set_files("export", **digests, **{"parity.json": parity}), parity)
    plain = folder.parent / "model.safetensors"
    save_file(load_file(folder / WEIGHTS), plain)
    copy_with_head(plain, folder / WEIGHTS, changed.head)
    plain.unlink()
    facts = {name: describe_weights(folder / name) for name in changed.declaration.weights}
    return declare(changed, weights={name: value.model_dump(mode="json") for name, value in facts.items()})


def leave_out_q4(_: Path, evidence: Evidence) -> Evidence:
    weights = {n: f.model_dump(mode="json") for n, f in evidence.declaration.weights.items() if n != Q4}
    return declare(evidence, weights=weights)


def block(_: Path, evidence: Evidence) -> Evidence:
    parity = evidence.parity_bytes.replace(b"0.0001", b"0.1")
    return _rebuild(evidence, _set_files("export", **{"parity.json": parity}), parity)
