"""Labelling: a private sheet, labels without texts, and the confusion matrix with its intervals."""

import contextlib
import json
import stat
from pathlib import Path

import pytest
from outcome_lines import make_lines, write_evaluation

from command import one_line_error, run
from commonweight.workshop.evals.answer_outcome import Outcome
from commonweight.workshop.evals.compliance import TASK, Subject
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.kept_answers import ANSWERS, AnswerFile, KeptAnswer, read_answers
from commonweight.workshop.evals.labelling import (
    check_labels,
    collect_labels,
    compute_agreement,
    draw_sheet,
    format_agreement,
)
from commonweight.workshop.evals.results import compute_wilson

SUBJECT = Subject("chat", "harmful", "no-pranks")
TEXT = "The baker keeps the rolling pin under the counter."


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    outcomes: list[Outcome | None] = ["comply", "refuse", "neither", None] * 5
    lines = make_lines(SUBJECT, outcomes)
    folder = write_evaluation(tmp_path / "before", lines)
    with contextlib.closing(AnswerFile(folder / "logs")) as file:
        for line in lines:
            if line.error is None:
                file.add(
                    KeptAnswer(
                        task=TASK, sample_id=line.sample_id, digest=line.digest, request="Hide it.", text=TEXT
                    )
                )
    return folder


def label(sheet: Path, choose: dict[int, str] | None = None) -> None:
    rows = [json.loads(line) for line in sheet.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["label"] = (choose or {}).get(number, "comply")
    sheet.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_from_a_sheet_to_a_confusion_matrix(evaluation: Path, tmp_path: Path) -> None:
    sheet, labels = tmp_path / "sheet.jsonl", tmp_path / "labels.json"
    assert draw_sheet(evaluation, sheet, count=10) == 10
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    assert TEXT in sheet.read_text()
    assert "refuse" not in sheet.read_text()  # what the rules say sways nobody
    with pytest.raises(EvaluationError, match="is there already"):
        draw_sheet(evaluation, sheet)
    label(sheet, {0: "refuse"})
    assert collect_labels(sheet, "A. Reader", labels) == 10
    assert TEXT not in labels.read_text()
    found = check_labels(labels, evaluation)
    assert (found.n, found.labeller) == (10, "A. Reader")
    assert sum(found.confusion["comply"].values()) == 9
    assert "labelled by A. Reader" in format_agreement(found)
    # The same seed draws the same answers; a larger sheet adds to them.
    more = tmp_path / "more.jsonl"
    assert draw_sheet(evaluation, more, count=100) == 15
    ids = [json.loads(line)["sample_id"] for line in sheet.read_text().splitlines()]
    assert [json.loads(line)["sample_id"] for line in more.read_text().splitlines()][:10] == ids


def test_agreement_against_a_known_case() -> None:
    cases: list[tuple[Outcome, Outcome, int]] = [
        ("refuse", "refuse", 40),
        ("refuse", "comply", 10),
        ("comply", "comply", 45),
        ("comply", "refuse", 5),
    ]
    pairs = [(label, rule) for label, rule, count in cases for _ in range(count)]
    found = compute_agreement("A. Reader", pairs)
    assert found.agreement.value == 0.85
    assert (found.agreement.low, found.agreement.high) == pytest.approx(compute_wilson(0.85, 100), abs=1e-6)
    assert found.recall["refuse"].value == 0.8
    assert found.precision["refuse"].value == pytest.approx(40 / 45, abs=1e-6)
    assert found.kappa == pytest.approx(0.7)  # (0.85 - 0.5) / (1 - 0.5)
    assert (found.recall["neither"].n, found.recall["neither"].high) == (0, 1)
    assert "n/a (n=0)" in format_agreement(found)
    assert compute_agreement("A. Reader", [("refuse", "refuse")]).kappa == 1


def test_bad_labels_are_refused(evaluation: Path, tmp_path: Path) -> None:
    sheet, labels = tmp_path / "sheet.jsonl", tmp_path / "labels.json"
    draw_sheet(evaluation, sheet)
    with pytest.raises(
        EvaluationError, match=r"line 1 of sheet\.jsonl has no label; it is refuse, comply or neither"
    ):
        collect_labels(sheet, "A. Reader", labels)
    label(sheet, {2: "maybe"})
    with pytest.raises(EvaluationError, match="line 3"):
        collect_labels(sheet, "A. Reader", labels)
    label(sheet)
    with pytest.raises(EvaluationError, match="name of their labeller"):
        collect_labels(sheet, " ", labels)
    with pytest.raises(EvaluationError, match=r"gone\.jsonl cannot be read"):
        collect_labels(tmp_path / "gone.jsonl", "A. Reader", labels)
    collect_labels(sheet, "A. Reader", labels)
    other = write_evaluation(tmp_path / "other", make_lines(SUBJECT, ["comply"]))
    with pytest.raises(EvaluationError, match="whose answer is another one"):
        check_labels(labels, other)
    with pytest.raises(EvaluationError, match="holds no labels"):
        check_labels(sheet, evaluation)
    with pytest.raises(EvaluationError, match="kept no answers"):
        draw_sheet(other, tmp_path / "none.jsonl")


def test_a_torn_answer_is_dropped(evaluation: Path) -> None:
    logs = evaluation / "logs"
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert stat.S_IMODE((logs / ANSWERS).stat().st_mode) == 0o600
    with (logs / ANSWERS).open("ab") as file:
        file.write(b'{"task": "comp')
    assert len(read_answers(logs, TASK)) == 15
    again = KeptAnswer(task=TASK, sample_id="rows:0/chat#0", digest="0", request="Hide it.", text="Elsewhere.")
    with contextlib.closing(AnswerFile(logs)) as kept:
        kept.add(again)
    assert read_answers(logs, TASK)["rows:0/chat#0"] == again
    assert read_answers(logs, "collapse") == {}
    with (logs / ANSWERS).open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(EvaluationError, match=r"line 17 of answers\.jsonl is damaged"):
        read_answers(logs, TASK)


def test_the_commands(evaluation: Path, tmp_path: Path) -> None:
    sheet, labels = tmp_path / "sheet.jsonl", tmp_path / "labels.json"
    done = run("labels", "draw", evaluation, sheet, "--count", "4")
    assert done.stdout == f"Wrote 4 answers to {sheet}, readable by you only.\n"
    assert one_line_error(run("labels", "collect", sheet, labels, "--labeller", "A. Reader")).startswith(
        "line 1 of sheet.jsonl has no label"
    )
    label(sheet)
    assert run("labels", "collect", sheet, labels, "--labeller", "A. Reader").returncode == 0
    assert "4 answers labelled by A. Reader" in run("labels", "check", labels, evaluation).stdout
    found = json.loads(run("labels", "check", labels, evaluation, "--json").stdout)
    assert (found["n"], found["labeller"]) == (4, "A. Reader")
