"""Documents of a release against its evidence: each is made again and compared, byte for byte."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from commonweight.lineage.chain import CHAIN
from commonweight.lineage.digests import LineageError, digest_bytes
from commonweight.workshop.release.bom import make_bom
from commonweight.workshop.release.card import make_card
from commonweight.workshop.release.documents import ReleaseError, decode_model, quote, read_file
from commonweight.workshop.release.evidence import Evidence, check_evaluation_files, quote_sentence
from commonweight.workshop.release.figures import check_scores
from commonweight.workshop.release.gate import TOKENS, Gate, describe_gate, evaluate_gate
from commonweight.workshop.release.layout import (
    BOM,
    CARD,
    GATE,
    LICENCE,
    NOTICE,
    PARITY,
    PUBLIC_KEY,
    RESULTS,
    SAFETENSORS,
    SAMPLES,
    WEIGHTS,
    name_evaluation,
)
from commonweight.workshop.release.licence_file import check_licence_text, describe_text
from commonweight.workshop.release.notices import list_sources, make_notice
from commonweight.workshop.release.obligations import check_licence, fold_obligations, name_licences
from commonweight.workshop.release.policy import list_policies, read_policy
from commonweight.workshop.release.report import Checks

_MAX_SHOWN = 160


def check_documents(folder: Path, evidence: Evidence, checks: Checks) -> None:
    """Recompute the gate, fold the licences, and make the card, notice and bill of material again."""
    gate = _check_gate(folder, evidence, checks)
    _check_licences(folder, evidence, checks)
    if gate is not None:
        _compare(folder, CARD, lambda: make_card(evidence, gate), checks, "agrees with records, figures and gate")
    _compare(folder, BOM, lambda: make_bom(evidence), checks, "agrees with the lineage")


def check_names(evidence: Evidence, sums: Mapping[str, str], checks: Checks) -> None:
    """Check that every file has its place in the layout, and that models' files are those of the records."""
    documents = {*evidence.encode_inputs(), GATE, CARD, NOTICE, BOM, LICENCE, PUBLIC_KEY}
    export = evidence.export
    described = [export, *(evidence.get_record(i.record) for i in export.inputs if i.record)]
    recorded = 0
    for name, digest in sums.items():
        if name in documents or name == WEIGHTS:
            continue
        own = name.removeprefix(f"{SAFETENSORS}/") if name.startswith(f"{SAFETENSORS}/") else name
        sources = described if own != name else [export]
        if digest in {record.files.get(own) for record in sources}:
            recorded += 1
        else:
            checks.fail(f"{name} is no file that the records of the model or its export have.", name)
    checks.add("consistent", f"{recorded} files of the model have the digests that its records state.", CHAIN)


def check_figures(evidence: Evidence, checks: Checks) -> None:
    """Compare figures with the scores behind them."""
    for number, facts in enumerate(evidence.declaration.evaluations, start=1):
        place = name_evaluation(number, facts.subject)
        files = (evidence.evaluations[f"{place}/{RESULTS}"], evidence.evaluations[f"{place}/{SAMPLES}"])
        try:
            check_evaluation_files(evidence.get_record(facts.record), *files)
        except ReleaseError as error:
            checks.fail(f"{place}: {error}", place)
        else:
            checks.add("consistent", f"{place} is what the record {facts.record[:12]} names.", place)
    for figure in evidence.figures:
        name = f"{figure.subject} {figure.task} {figure.metric} ({figure.dataset.name})"
        if problem := check_scores(figure, evidence.samples):
            checks.fail(f"{RESULTS}: {name} is not what {SAMPLES} gives: {problem}.", RESULTS)
        else:
            checks.add("proved", f"{name} is the sum of its scores by {figure.n}.", RESULTS)
    known = {(figure.task, figure.subject) for figure in evidence.figures}
    if others := sorted({s.task for s in evidence.samples if (s.task, s.subject) not in known}):
        checks.fail(f"{SAMPLES} has scores of {', '.join(others)}, of which there is no figure.", SAMPLES)


def check_parity(evidence: Evidence, checks: Checks) -> None:
    """Compare the digests of files in the parity report with the weights."""
    if evidence.export.files.get(PARITY) != digest_bytes(evidence.parity_bytes):
        checks.fail(f"{PARITY} is not the report that the record of the export names.", PARITY)
        return
    weights = {n: f.sha256 for n, f in evidence.declaration.weights.items() if n.endswith(".gguf")}
    stated = dict(_list_digests(evidence.parity))
    missing = [name for name, digest in weights.items() if digest not in stated]
    for name in missing:
        checks.fail(f"{PARITY} has no measurement of {name}.", PARITY)
    if not missing:
        checks.add("consistent", f"{PARITY} is about the {len(weights)} GGUF files of the release.", PARITY)


def list_declarations(evidence: Evidence) -> Iterable[str]:
    """What the publisher says, and nothing in the release can show."""
    sources = sorted({source.name for source in list_sources(evidence.material)})
    if sources:
        yield f"Origin, licence and generator of the material: {quote_sentence(', '.join(sources))}."
    kinds = sorted({record.kind for record in evidence.material})
    yield f"That the stages ran as recorded: {quote_sentence(', '.join(kinds))}."
    for record in evidence.material:
        if record.is_imported:
            yield (
                f"Training of {quote_sentence(record.name)}: it ran elsewhere, and its weights were imported; "
                "nothing here shows that they were trained as recorded."
            )
    if any(TOKENS in record.facts for record in evidence.material):
        yield "How many tokens the weights were trained on, by which the gate reckons compute."
    yield f"The values in {PARITY}, which were measured with an engine."
    if evidence.figures:
        yield "The answers behind the scores, that the figures are of these weights, and their intervals."
    for waiver in evidence.declaration.waivers:
        yield quote_sentence(f"Waived until {waiver.until} by {waiver.name}: {waiver.row}, {waiver.reason}.")
    yield "Description and limitations in the card."


def _check_gate(folder: Path, evidence: Evidence, checks: Checks) -> Gate | None:
    try:
        data = read_file(folder / GATE)
        gate = decode_model(Gate, data, GATE)
        again = evaluate_gate(gate.policy, evidence)
    except (ReleaseError, LineageError) as error:
        checks.fail(f"{GATE}: {quote_sentence(str(error))}", GATE)
        return None
    changed = [
        name
        for name in gate.inputs.keys() | again.inputs.keys()
        if gate.inputs.get(name) != again.inputs.get(name)
    ]
    for name in sorted(changed):
        checks.fail(f"{GATE} was computed from another {quote(name)}.", name)
    if again.encode() != data:
        differing = [new.id for old, new in zip(gate.rows, again.rows, strict=False) if old != new]
        place = f"the row {differing[0]} differs" if differing else _find_difference(again.encode(), data)
        checks.fail(f"{GATE} is not what its policy gives: {quote_sentence(place)}.", GATE)
        return None
    if again.verdict == "blocked":
        checks.fail(f"{GATE}: the gate blocks this release.", GATE)
        return None
    checks.add("proved", describe_gate(again), GATE)
    if gate.policy.name in list_policies() and read_policy(gate.policy.name) == gate.policy:
        checks.add("proved", f"The policy {gate.policy.name} is the one that ships with this program.", GATE)
    else:
        checks.add("declared", f"The policy {gate.policy.name} is the publisher's own.", GATE)
    return gate


def _check_licences(folder: Path, evidence: Evidence, checks: Checks) -> None:
    declaration = evidence.declaration
    try:
        obligations = fold_obligations(evidence)
        check_licence(evidence, obligations)
    except (ReleaseError, LineageError) as error:
        checks.fail(f"{LICENCE}: {quote_sentence(str(error))}", LICENCE)
        return
    names = name_licences(licence.id for licence in obligations.licences)
    checks.add("proved", f"The licences of the records fold, and {declaration.licence} meets {names}.", LICENCE)
    try:
        is_known = check_licence_text(declaration.licence, read_file(folder / LICENCE))
    except ReleaseError as error:
        checks.fail(quote_sentence(str(error)), LICENCE)
    else:
        checks.add("proved" if is_known else "declared", describe_text(declaration.licence, is_known), LICENCE)
    _compare(folder, NOTICE, lambda: make_notice(evidence), checks, "agrees with the licences of the records")


def _compare(folder: Path, name: str, make: Callable[[], bytes], checks: Checks, sentence: str) -> None:
    try:
        expected, actual = make(), read_file(folder / name)
    except (ReleaseError, LineageError) as error:
        checks.fail(f"{name}: {quote_sentence(str(error))}", name)
        return
    if expected == actual:
        checks.add("consistent", f"{name} {sentence}.", name)
    else:
        checks.fail(f"{name} is not what the records give: {_find_difference(expected, actual)}.", name)


def _find_difference(expected: bytes, actual: bytes) -> str:
    old, new = expected.split(b"\n"), actual.split(b"\n")
    number = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    shown = new[number].decode(errors="replace")[:_MAX_SHOWN] if number < len(new) else "the end"
    return f"line {number + 1} differs ({quote_sentence(shown.strip())})"


def _list_digests(value: object) -> Iterable[tuple[str, bool]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str) and re.fullmatch(r"[0-9a-f]{64}", item):
            yield item, True
