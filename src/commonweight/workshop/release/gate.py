"""The gate: holds a release's evidence against a policy, row by row, with what was compared and why."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, FiniteFloat

from commonweight.lineage.digests import LineageError
from commonweight.lineage.record import EVALUATION, Record, Sha256
from commonweight.workshop.release.documents import ReleaseError, encode_document, quote
from commonweight.workshop.release.evidence import Evidence, quote_sentence
from commonweight.workshop.release.figures import find_figure
from commonweight.workshop.release.layout import GATE, WEIGHTS
from commonweight.workshop.release.obligations import check_licence, fold_obligations, name_licences
from commonweight.workshop.release.policy import CheckRow, ComputeRow, FigureRow, ParityRow, Policy, Row
from commonweight.workshop.release.settings import Waiver

Result = Literal["pass", "fail", "not evaluated"]
TOKENS = "trained_tokens"
"""Fact of a record that trained something: tokens that it trained on, each pass counted."""
TRAINING_KINDS = frozenset({"pretrain", "sft", "dpo", "preference", "adapter", "import", "base"})
"""Kinds of records of which the tokens must be known for the compute to be."""
_MAX_VALUES = 10_000


class Finding(NamedTuple):
    """What one row came to."""

    result: Result
    value: int | float | str | None
    reason: str
    bound: int | float | None = None


class RowResult(BaseModel):
    """One row of ``gate.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    statement: str
    required: bool
    result: Result
    value: int | FiniteFloat | str | None
    operator: str | None = None
    bound: int | FiniteFloat | None = None
    reason: str
    by_compute: bool = False
    waiver: Waiver | None = None
    """The waiver that keeps it from blocking."""

    @property
    def blocks(self) -> bool:
        """Whether the release must not go out because of it."""
        return self.required and self.result != "pass" and self.waiver is None


class Gate(BaseModel):
    """``gate.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    policy: Policy
    date: date
    inputs: dict[str, Sha256]
    """Digests of the files that it was computed from."""
    rows: tuple[RowResult, ...]
    verdict: Literal["pass", "waived", "blocked"]

    def encode(self) -> bytes:
        """The bytes of ``gate.json``."""
        return encode_document(self.model_dump(mode="json"))


def evaluate_gate(policy: Policy, evidence: Evidence) -> Gate:
    """Hold evidence against a policy. The same evidence gives the same bytes.

    Raises:
        ReleaseError: a waiver is of a row that the policy does not have, or has ended.
    """
    declaration = evidence.declaration
    waivers = _check_waivers(policy, declaration.waivers, declaration.date)
    rows = tuple(_evaluate_row(row, evidence, waivers) for row in policy.rows)
    blocked = any(row.blocks for row in rows)
    waived = any(row.waiver is not None for row in rows)
    return Gate(
        policy=policy,
        date=declaration.date,
        inputs=evidence.digest_inputs(),
        rows=rows,
        verdict="blocked" if blocked else "waived" if waived else "pass",
    )


def require_gate(gate: Gate) -> None:
    """Stop where the gate blocks.

    Raises:
        ReleaseError: names every row that blocks, and why.
    """
    blocking = [f"{row.id} ({row.result}: {row.reason})" for row in gate.rows if row.blocks]
    if blocking:
        raise ReleaseError(f"The gate {gate.policy.name} blocks: {'; '.join(blocking)}.")


def _check_waivers(policy: Policy, waivers: Sequence[Waiver], day: date) -> dict[str, Waiver]:
    ids = {row.id for row in policy.rows}
    found: dict[str, Waiver] = {}
    for waiver in waivers:
        if waiver.row not in ids:
            raise ReleaseError(f"A waiver is of {waiver.row}, which is no row of the policy {policy.name}.")
        if waiver.until < day:
            raise ReleaseError(f"The waiver of the row {waiver.row} ended on {waiver.until}.")
        if waiver.row in found:
            raise ReleaseError(f"The row {waiver.row} has two waivers.")
        found[waiver.row] = waiver
    return found


def _evaluate_row(row: Row, evidence: Evidence, waivers: Mapping[str, Waiver]) -> RowResult:
    try:
        finding = _find(row, evidence)
    except (ReleaseError, LineageError) as error:
        finding = Finding("fail", None, quote_sentence(str(error)).rstrip("."))
    return RowResult(
        id=row.id,
        statement=row.statement,
        required=row.required,
        result=finding.result,
        value=finding.value,
        operator=None if isinstance(row, CheckRow) else "<" if isinstance(row, ComputeRow) else row.operator,
        bound=finding.bound,
        reason=finding.reason,
        by_compute=isinstance(row, ComputeRow) and finding.result == "pass",
        waiver=waivers.get(row.id) if row.required and finding.result != "pass" else None,
    )


def _find(row: Row, evidence: Evidence) -> Finding:
    match row:
        case ParityRow():
            return _compare_parity(row, evidence.parity)
        case FigureRow():
            return _compare_figure(row, evidence)
        case ComputeRow():
            return _compare_compute(row, evidence)
    match row.kind:
        case "provenance":
            return _check_provenance(evidence)
        case "licences":
            return _check_licences(evidence)
        case "evaluation-sets":
            return _check_evaluation_sets(evidence)
        case _:
            return _check_lineage(evidence)


def _compare_parity(row: ParityRow, report: object) -> Finding:
    bound: int | float | None = row.bound
    if row.bound_path is not None:
        bounds = list(_look_up(report, row.bound_path.split(".")))
        bound = bounds[0] if bounds else None
    values = list(_look_up(report, row.path.split(".")))
    if not values or bound is None:
        return Finding("not evaluated", None, f"the parity report has no number at {row.path}", bound)
    if row.operator == "==":
        worst = max(values, key=lambda value: abs(value - bound))
    else:
        worst = max(values) if row.operator == "<=" else min(values)
    return _compare(worst, row.operator, bound, f"{row.path} of the parity report")


def _look_up(value: object, path: list[str]) -> Iterable[int | float]:
    pending: list[tuple[object, int]] = [(value, 0)]
    found: list[int | float] = []
    while pending and len(found) < _MAX_VALUES:
        item, place = pending.pop()
        if place == len(path):
            if not isinstance(item, bool | int | float):
                return []  # one that is no number leaves the row without evidence
            found.append(int(item) if isinstance(item, bool) else item)
        elif isinstance(item, dict) and (path[place] == "*" or path[place] in item):
            keys = item if path[place] == "*" else [path[place]]
            pending += [(item[key], place + 1) for key in keys]
        elif isinstance(item, list) and path[place] == "*":
            pending += [(content, place + 1) for content in item]
        else:
            return []
    return found


def _compare_figure(row: FigureRow, evidence: Evidence) -> Finding:
    figure = find_figure(evidence.figures, row.task, row.metric, "release")
    value = getattr(figure, row.part) if figure is not None else None
    if value is None or figure is None:
        return Finding("not evaluated", None, f"{row.task} {row.metric} was not measured", row.bound)
    if figure.n < row.minimum_n:
        reason = f"{row.task} {row.metric} has n = {figure.n}, and {row.minimum_n} is needed"
        return Finding("not evaluated", value, reason, row.bound)
    what = f"{row.task} {row.metric} ({row.part}, n = {figure.n})"
    if row.relative_to == "base":
        base = find_figure(evidence.figures, row.task, row.metric, "base")
        if base is None:
            reason = f"{row.task} {row.metric} of the base was not measured"
            return Finding("not evaluated", None, reason, row.bound)
        return _compare(round(value - base.value, 12), row.operator, row.bound, f"{what} less the base's")
    return _compare(value, row.operator, row.bound, what)


def _compare(value: int | float, operator: str, bound: int | float, what: str) -> Finding:
    holds = value <= bound if operator == "<=" else value >= bound if operator == ">=" else value == bound
    verb = "is" if holds else "is not"
    return Finding("pass" if holds else "fail", value, f"{what} {verb} {operator} the bound", bound)


def _compare_compute(row: ComputeRow, evidence: Evidence) -> Finding:
    weights = evidence.declaration.weights
    parameters = max((facts.parameters for facts in weights.values()), default=0)
    if WEIGHTS in weights:
        parameters = weights[WEIGHTS].parameters
    tokens = 0
    trained = [r for r in evidence.material if r.kind in TRAINING_KINDS or TOKENS in r.facts]
    for record in trained:
        count = record.facts.get(TOKENS)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            return Finding("not evaluated", None, f"the record {quote(record.name)} states no tokens", row.bound)
        tokens += count
    if not trained or not parameters:
        return Finding("not evaluated", None, "no record says what was trained", row.bound)
    operations = 6.0 * parameters * tokens
    is_below = operations < row.bound
    reason = f"6 x {parameters} parameters x {tokens} tokens, {'' if is_below else 'not '}below the bound"
    return Finding("pass" if is_below else "fail", operations, reason, row.bound)


def _check_provenance(evidence: Evidence) -> Finding:
    decisions = [decision for record in evidence.material for decision in record.decisions]
    if not decisions:
        return Finding("not evaluated", None, "no record has a decision on its material")
    blocked = sorted({decision.source for decision in decisions if decision.verdict == "block"})
    if blocked:
        return Finding("fail", len(blocked), f"blocked: {quote(', '.join(blocked))}")
    undecided = set(evidence.export.licences) - {decision.licence for decision in decisions}
    undecided |= set(evidence.export.generators) - {str(decision.generator) for decision in decisions}
    if undecided:
        return Finding("not evaluated", None, f"no decision on material of {quote(name_licences(undecided))}")
    return Finding("pass", len(decisions), f"{len(decisions)} of {len(decisions)} decisions pass")


def _check_licences(evidence: Evidence) -> Finding:
    if not evidence.export.licences:
        return Finding("not evaluated", None, "no record states a licence")
    obligations = fold_obligations(evidence)
    check_licence(evidence, obligations)
    names = name_licences(licence.id for licence in obligations.licences)
    return Finding("pass", names, f"{evidence.declaration.licence} meets what is asked by {names}")


def _check_evaluation_sets(evidence: Evidence) -> Finding:
    sets = {figure.dataset.digest: figure.dataset.name for figure in evidence.figures}
    for record in evidence.chain.records:
        sets |= {item.digest: item.name for item in record.inputs if item.role == EVALUATION}
    if not sets:
        return Finding("not evaluated", None, "nothing was measured")
    used = set(_list_digests(evidence.material))
    shared = sorted(name for digest, name in sets.items() if digest in used)
    if shared:
        return Finding("fail", len(shared), f"in training, validation or calibration: {quote(', '.join(shared))}")
    names = set(sets.values())
    reason = f"none of {len(names)} evaluation sets is among {len(used)} digests of material"
    return Finding("pass", len(names), reason)


def _list_digests(material: Iterable[Record]) -> Iterable[str]:
    for record in material:
        yield record.content
        yield from record.files.values()
        yield from (item.digest for item in record.inputs if item.enters)
        yield from (decision.rows_digest for decision in record.decisions if decision.rows_digest)


def _check_lineage(evidence: Evidence) -> Finding:
    export, head = evidence.export, evidence.head
    weights = evidence.declaration.weights
    for name, facts in weights.items():
        if name.endswith(".gguf") and export.files.get(name) != facts.sha256:
            return Finding("fail", None, f"{quote(name)} is not a file of the export")
        if facts.head != head:
            return Finding("fail", None, f"{quote(name)} states another head than that before the export")
    for evaluation in evidence.declaration.evaluations:
        evidence.get_record(evaluation.record)
    return Finding("pass", head, f"{len(evidence.chain.records)} records, head before export {head[:12]}")


def describe_gate(gate: Gate) -> str:
    """One sentence about a gate."""
    passed = sum(row.result == "pass" for row in gate.rows)
    return f"{GATE}: the policy {gate.policy.name} gives {gate.verdict}, {passed} of {len(gate.rows)} rows pass."
