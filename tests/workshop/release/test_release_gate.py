"""The gate: every kind of row, what blocks, and waivers; on evidence made by hand."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from commonweight.lineage.chain import Chain
from commonweight.lineage.record import Decision, Input, Record
from commonweight.workshop.release.documents import ReleaseError
from commonweight.workshop.release.evidence import Declaration, Evidence, WeightsFacts, check_record_texts
from commonweight.workshop.release.figures import Figure, MeasuredSet
from commonweight.workshop.release.gate import RowResult, evaluate_gate, require_gate
from commonweight.workshop.release.policy import Policy, list_policies, read_policy
from commonweight.workshop.release.settings import ReleaseSettings, Waiver

DAY = date(2026, 11, 30)
SET = "5e" * 32
PARITY = {
    "files": {"F16": {"kl": 0.001}, "Q8_0": {"kl": 0.02}},
    "equal": 40,
    "texts": 40,
    "exact": True,
    "name": "x",
}


def decide(**fields: Any) -> Decision:
    values = {"rule": "licence", "verdict": "pass", "source": "tales", "licence": "MIT", "generator": None}
    return Decision.model_validate(values | {"content": "text", "rows": 3, "reason": "it permits it"} | fields)


def make_evidence(
    licences: tuple[str, ...] = ("MIT",),
    decisions: tuple[Decision, ...] = (decide(),),
    figures: tuple[Figure, ...] = (),
    facts: dict[str, Any] | None = None,
    data: str = "da" * 32,
    head: str | None = None,
    **declared: Any,
) -> Evidence:
    source = Record(
        kind="pretrain",
        name="tales",
        inputs=(Input(role="data", name="tales", digest=data),),
        files={"model.safetensors": "aa" * 32},
        licences=licences,
        own_licences=licences,
        decisions=decisions,
        facts={"trained_tokens": 1000} if facts is None else facts,
    )
    model = Input(role="model", name="tales", digest=source.content, record=source.identity)
    export = Record(
        kind="export", name="gguf", inputs=(model,), files={"t-F16.gguf": "bb" * 32}, licences=licences
    )
    weights = WeightsFacts(
        size=1, sha256="bb" * 32, sample="cc" * 32, parameters=50, head=head or Chain((source,)).head
    )
    values = {
        "name": "t",
        "title": "T",
        "licence": "MIT",
        "description": "",
        "limitations": "",
        "base_model": None,
        "languages": ("en",),
        "pipeline_tag": "text-generation",
        "share_alike": "propagate",
        "waivers": (),
        "date": DAY,
        "export": export.identity,
        "evaluations": (),
        "weights": {"t-F16.gguf": weights},
    }
    declaration = Declaration.model_validate(values | declared)
    return Evidence(declaration, Chain((source, export)), PARITY, b"{}", {}, figures, ())


def make_figure(value: float, subject: str = "release", **fields: Any) -> Figure:
    values = {"subject": subject, "task": "ifeval", "metric": "strict", "value": value, "n": 100, "errors": 0}
    more = {"low": value - 0.1, "high": value + 0.1, "sampling": {}, "harness": "h", "date": DAY}
    return Figure.model_validate(
        values | more | {"dataset": MeasuredSet(name="s", digest=SET, licence=None)} | fields
    )


def evaluate(evidence: Evidence, **row: Any) -> RowResult:
    policy = Policy.model_validate(
        {"name": "p", "description": "d", "rows": [{"id": "row", "statement": "It holds"} | row]}
    )
    return evaluate_gate(policy, evidence).rows[0]


@pytest.mark.parametrize(
    ("row", "result", "value"),
    [
        ({"path": "files.F16.kl", "operator": "<=", "bound": 0.001}, "pass", 0.001),
        ({"path": "files.F16.kl", "operator": "<=", "bound": 0.0009}, "fail", 0.001),
        ({"path": "files.*.kl", "operator": "<=", "bound": 0.01}, "fail", 0.02),
        ({"path": "files.*.kl", "operator": ">=", "bound": 0.01}, "fail", 0.001),
        ({"path": "equal", "operator": "==", "bound_path": "texts"}, "pass", 40),
        ({"path": "exact", "operator": "==", "bound": 1}, "pass", 1),
        ({"path": "files.F32.kl", "operator": "<=", "bound": 1}, "not evaluated", None),
        ({"path": "name", "operator": "==", "bound": 1}, "not evaluated", None),
        ({"path": "files", "operator": "==", "bound": 1}, "not evaluated", None),
        ({"path": "equal", "operator": "==", "bound_path": "nothing"}, "not evaluated", None),
    ],
)
def test_parity(row: dict[str, Any], result: str, value: float | None) -> None:
    found = evaluate(make_evidence(), kind="parity", **row)
    assert (found.result, found.value) == (result, value)


@pytest.mark.parametrize(
    ("row", "figures", "result"),
    [
        ({"bound": 0.4}, (make_figure(0.5),), "pass"),
        ({"bound": 0.45, "part": "low"}, (make_figure(0.5),), "fail"),
        ({"bound": 0.55, "part": "high"}, (make_figure(0.5),), "pass"),
        ({"bound": 0.4}, (), "not evaluated"),
        ({"bound": 0.4}, (make_figure(0.5, "base"),), "not evaluated"),
        ({"bound": 0.4, "minimum_n": 101}, (make_figure(0.5),), "not evaluated"),
        ({"bound": -0.05, "relative_to": "base"}, (make_figure(0.5), make_figure(0.54, "base")), "pass"),
        ({"bound": -0.05, "relative_to": "base"}, (make_figure(0.5), make_figure(0.56, "base")), "fail"),
        ({"bound": -0.05, "relative_to": "base"}, (make_figure(0.5),), "not evaluated"),
        ({"bound": 0.4, "metric": "accuracy by length"}, (make_figure(0.5),), "not evaluated"),
        (
            {"bound": 0.4, "metric": "accuracy by length"},
            (make_figure(0.5, metric="accuracy by length"),),
            "pass",
        ),
    ],
)
def test_figures(row: dict[str, Any], figures: tuple[Figure, ...], result: str) -> None:
    values = {"kind": "figure", "task": "ifeval", "metric": "strict", "operator": ">="}
    found = evaluate(make_evidence(figures=figures), **values | row)
    assert found.result == result


@pytest.mark.parametrize(
    ("evidence", "result"),
    [
        (make_evidence(), "pass"),
        (make_evidence(decisions=()), "not evaluated"),
        (make_evidence(decisions=(decide(), decide(verdict="block"))), "fail"),
        (make_evidence(licences=("Apache-2.0", "MIT")), "not evaluated"),
    ],
)
def test_provenance(evidence: Evidence, result: str) -> None:
    assert evaluate(evidence, kind="provenance").result == result


@pytest.mark.parametrize(
    ("licences", "declared", "result"),
    [
        (("MIT",), {}, "pass"),
        ((), {}, "not evaluated"),
        (("LicenseRef-Nobody",), {}, "fail"),
        (("CC-BY-SA-4.0",), {}, "fail"),
        (("CC-BY-SA-4.0",), {"licence": "CC-BY-SA-4.0"}, "pass"),
        (("CC-BY-SA-3.0",), {"licence": "CC-BY-SA-4.0"}, "pass"),
        (("CC-BY-SA-4.0",), {"share_alike": "attribute"}, "pass"),
        (("CC-BY-SA-4.0", "GPL-3.0-or-later"), {"licence": "CC-BY-SA-4.0"}, "fail"),
        (("CC-BY-NC-4.0",), {}, "fail"),
        (("CC-BY-NC-4.0",), {"licence": "CC-BY-NC-4.0"}, "pass"),
        (("LicenseRef-Llama-3.1",), {}, "fail"),
        (("LicenseRef-Llama-3.1",), {"name": "Llama-t", "title": "Llama T"}, "pass"),
        (("LicenseRef-Llama-3.1",), {"name": "Llamas", "title": "Llama T"}, "fail"),
    ],
)
def test_licences(licences: tuple[str, ...], declared: dict[str, Any], result: str) -> None:
    assert evaluate(make_evidence(licences, **declared), kind="licences").result == result


def test_evaluation_sets() -> None:
    row = {"kind": "evaluation-sets"}
    assert evaluate(make_evidence(), **row).result == "not evaluated"
    assert evaluate(make_evidence(figures=(make_figure(0.5),)), **row).result == "pass"
    assert evaluate(make_evidence(figures=(make_figure(0.5),), data=SET), **row).result == "fail"
    rows = (decide(rows_digest=SET),)
    assert evaluate(make_evidence(figures=(make_figure(0.5),), decisions=rows), **row).result == "fail"


def test_lineage() -> None:
    assert evaluate(make_evidence(), kind="lineage").result == "pass"
    assert evaluate(make_evidence(head="0" * 64), kind="lineage").result == "fail"
    evidence = make_evidence(evaluations=({"subject": "release", "record": "0" * 64},))
    assert evaluate(evidence, kind="lineage").result == "fail"
    assert evaluate(make_evidence(export="0" * 64), kind="lineage").result == "fail"


def test_compute() -> None:
    below = evaluate(make_evidence(), kind="compute", bound=300_001)
    assert (below.result, below.value, below.by_compute) == ("pass", 6.0 * 50 * 1000, True)
    at = evaluate(make_evidence(), kind="compute", bound=300_000)
    assert (at.result, at.by_compute) == ("fail", False)
    for facts in ({}, {"trained_tokens": "many"}, {"trained_tokens": True}, {"trained_tokens": -1}):
        assert evaluate(make_evidence(facts=facts), kind="compute", bound=1e20).result == "not evaluated"


def test_only_required_rows_without_a_waiver_block() -> None:
    failing = {"kind": "parity", "path": "equal", "operator": "<=", "bound": 1}
    rows = [{"id": "a", "statement": "A"} | failing, {"id": "b", "statement": "B", "required": False} | failing]
    policy = Policy.model_validate({"name": "p", "description": "d", "rows": rows})
    gate = evaluate_gate(policy, make_evidence())
    assert gate.verdict == "blocked"
    with pytest.raises(ReleaseError, match=r"blocks: a \(fail") as caught:
        require_gate(gate)
    assert "b (" not in str(caught.value)
    waiver = {"row": "a", "name": "A. Person", "reason": "measured elsewhere", "until": DAY}
    waived = evaluate_gate(policy, make_evidence(waivers=(waiver,)))
    require_gate(waived)
    assert waived.verdict == "waived"
    assert waived.rows[0].waiver == Waiver.model_validate(waiver)
    for change, reason in (({"until": date(2026, 11, 29)}, "ended"), ({"row": "c"}, "no row")):
        with pytest.raises(ReleaseError, match=reason):
            evaluate_gate(policy, make_evidence(waivers=(waiver | change,)))
    with pytest.raises(ReleaseError, match="two waivers"):
        evaluate_gate(policy, make_evidence(waivers=(waiver, waiver)))


def test_the_same_evidence_gives_the_same_bytes() -> None:
    policy = read_policy("public")
    assert evaluate_gate(policy, make_evidence()).encode() == evaluate_gate(policy, make_evidence()).encode()


def test_policies_that_ship_are_read() -> None:
    assert list_policies() == ("private", "public")
    assert {read_policy(name).name for name in list_policies()} == {"private", "public"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: [", "line"),
        ("name: x", "rows|description"),
        ("a: &a [1]\nb: *a", "not valid YAML"),
        ("name: x\ndescription: d\nrows: [{id: a, statement: s, kind: unknown}]", "kind"),
        ("name: x\ndescription: d\nrows: [{id: a, statement: s, kind: lineage, extra: 1}]", "extra|Extra"),
        ("name: x\ndescription: d\nrows: [{id: a, statement: s, kind: parity, path: a, operator: '<='}]", "bound"),
        (
            "name: x\ndescription: d\nrows: [{id: a, statement: s, kind: lineage},"
            " {id: a, statement: s, kind: lineage}]",
            "twice",
        ),
    ],
)
def test_bad_policies_end_in_a_sentence(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(ReleaseError, match=reason):
        read_policy(str(tmp_path / "policy.yaml"))
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_policy(str(tmp_path / "none.yaml"))


def test_records_with_texts_are_refused() -> None:
    with pytest.raises(ReleaseError, match="holds a text"):
        check_record_texts(Record(kind="x", name="x", files={}, parameters={"prompts": ["p" * 2001]}))


@pytest.mark.parametrize(
    "field",
    [
        {"licence": "Nobody-1.0"},
        {"name": "../x"},
        {"title": "a\nb"},
        {"title": "a\u202eb"},
        {"base_model": "a/b/c"},
        {"languages": ["English"]},
        {"other": 1},
        {"waivers": [{"row": "a", "name": "b", "reason": "c", "until": "soon"}]},
    ],
)
def test_bad_settings_are_refused(field: dict[str, Any]) -> None:
    good = {"name": "t", "title": "T", "licence": "mit", "description": "", "limitations": ""}
    assert ReleaseSettings.model_validate(good).licence == "MIT"
    with pytest.raises(ValueError, match=next(iter(field))):
        ReleaseSettings.model_validate(good | field)
