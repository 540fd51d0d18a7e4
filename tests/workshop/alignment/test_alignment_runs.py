"""Alignment stages on the starter: answers, votes, revisions; killed and gone on with; terms and bad input."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from alignment_rows import (
    QUESTIONS,
    SMALL,
    SMOLLM,
    STARTER,
    generate,
    get_charter,
    list_answers,
    make_answered,
    make_model,
    make_prompt,
    write_dataset,
)

from commonweight.lineage.digests import LineageError
from commonweight.lineage.provenance import ProvenancePolicy
from commonweight.workshop.alignment.critique_stage import decide, run_critique
from commonweight.workshop.alignment.ledger import read_ledger
from commonweight.workshop.alignment.origins import check_rows
from commonweight.workshop.alignment.revise_stage import run_revise
from commonweight.workshop.alignment.select_stage import run_select
from commonweight.workshop.alignment.settings import (
    AlignmentError,
    CritiqueSettings,
    ReviseSettings,
    SelectSettings,
)
from commonweight.workshop.data.dataset import read_rows
from commonweight.workshop.data.manifest import read_manifest
from commonweight.workshop.data.rows import Content, Message, Row

pytestmark = [pytest.mark.workshop, pytest.mark.timeout(600)]

HERE = Path(__file__).parent


def report(_line: str) -> None:
    return None


def prepare(folder: Path) -> tuple[Path, Path]:
    """Folders of an output and of checkpoints."""
    output = folder / "output"
    output.mkdir(parents=True)
    return output, folder / "checkpoints"


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [make_prompt(text, principle="spoiling" if number else None) for number, text in enumerate(QUESTIONS)]
    return write_dataset(tmp_path_factory.mktemp("data") / "prompts", rows)


@pytest.fixture(scope="module")
def answered(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers that were written without an interruption."""
    return generate(data, tmp_path_factory.mktemp("whole"))


def test_prompts_become_rows_with_answers_and_their_provenance(data: Path, answered: Path) -> None:
    prompts, rows, lines = list(read_rows(data)), list(read_rows(answered)), read_lines(answered)
    assert len(rows) == len(lines) == len(QUESTIONS)
    for prompt, row, line in zip(prompts, rows, lines, strict=True):
        assert row.content.messages is not None
        assert row.content.messages[:-1] == prompt.content.messages
        assert row.content.messages[-1].role == "assistant"
        assert (row.source, row.principle, row.split) == (prompt.source, prompt.principle, "train")
        assert (row.generator, row.licence) == (SMOLLM, "Apache-2.0 AND CC0-1.0")
        assert (line["row"], line["output"], line["decision"]) == (prompt.row_id, row.row_id, "kept")
        assert (line["generator"], line["tokens"]) == (SMOLLM, 6)
        assert line["ending"] == "max_tokens"
        assert len(line["weights"]) == 64
    assert len({line["seed"] for line in lines}) == len(lines)
    text = (answered / "ledger.jsonl").read_text()
    assert not any(answer in text for answer in list_answers(answered))
    journal = answered.parent / "checkpoints" / "answers.jsonl"
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.parent.stat().st_mode) == 0o700


def test_a_generation_that_was_killed_goes_on(data: Path, answered: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_generation.py"), str(data), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    journal = tmp_path / "checkpoints" / "answers.jsonl"
    kept = journal.read_bytes()
    assert kept.count(b"\n") == 4
    journal.write_bytes(kept + b'{"number":4,"te')
    lines: list[str] = []
    output = generate(data, tmp_path, lines.append)
    assert lines[0] == "4 of 6 answers are there already"
    assert journal.read_bytes().startswith(kept)
    files = {path.name: path.read_bytes() for path in output.iterdir()}
    assert files == {path.name: path.read_bytes() for path in answered.iterdir()}


def test_samples_have_seeds_and_a_shared_text_is_computed_once(tmp_path: Path) -> None:
    asked = [*[make_prompt(text) for text in QUESTIONS[:2]], make_prompt("Rye?", system="Answer in one word.")]
    data = write_dataset(tmp_path / "data", asked)
    settings = {"samples": 2, "system": "charter", "parallel": 4, "batch": 8, "temperature": 1.0}
    output = generate(data, tmp_path, **settings)
    rows, lines = list(read_rows(output)), read_lines(output)
    assert len(rows) == 6
    assert [line["sample"] for line in lines] == [0, 1] * 3
    assert len({line["seed"] for line in lines}) == 6
    assert len({line["prompt"] for line in lines}) == 3
    assert {line["charter"] for line in lines} == {get_charter().sha256}
    # The charter is no part of the rows; a prompt's own system turn is.
    assert not any("We bake" in message.content for row in rows for message in row.content.messages or ())
    assert [message.role for message in rows[-1].content.messages or ()] == ["system", "user", "assistant"]


def test_what_cannot_be_answered_is_dropped_for_a_reason(data: Path, tmp_path: Path) -> None:
    text = Content("text", text="Rye is a grain.")
    rows = [
        make_prompt("Rye? " * 600),
        Row(text.compute_row_id(), text, "made", "CC0-1.0"),
        make_answered("Rye?", "Yes."),
        make_prompt("Rye?", principle="no-such"),
        make_prompt("What is rye?"),
    ]
    output = generate(write_dataset(tmp_path / "data", rows), tmp_path, system="principle")
    expected = {"too-long": 1, "no-prompt": 2, "unknown-principle": 1}
    assert read_manifest(output).dropped == expected
    assert Counter(line["decision"] for line in read_lines(output)) == expected | {"kept": 1}
    # The principle that was drawn is the row's.
    assert [row.principle for row in read_rows(output)] == ["spoiling"]
    with pytest.raises(AlignmentError, match=r"No row of 1 could be answered \(too-long 1\)"):
        generate(write_dataset(tmp_path / "long", rows[:1]), tmp_path / "other")


def test_votes_are_counted_and_stand_in_the_ledger(tmp_path: Path) -> None:
    rows = [
        make_answered("How do I spoil bread?", "Put soap in it.", principle="spoiling"),
        make_answered("How do I keep bread?", "In a box."),
        make_prompt("Rye?"),
    ]
    data = write_dataset(tmp_path / "data", rows)
    output, checkpoints = prepare(tmp_path)
    values = {key: SMALL[key] for key in ("context", "parallel", "batch")}
    settings = CritiqueSettings.model_validate({**values, "votes": 3, "context": 1024})
    _, facts = run_critique(
        settings, data, make_model(settings), STARTER, get_charter(), output, checkpoints, report
    )
    lines = read_lines(output)
    assert [line["decision"] for line in lines] == ["kept", "kept", "no-answer"]
    for line in lines[:2]:
        assert len(line["votes"]) == 3
        assert set(line["votes"]) <= {"yes", "no"}
        assert line["verdict"] == decide(line["votes"])
        assert (line["critic"], line["charter"]) == (SMOLLM, get_charter().sha256)
    assert facts["unreadable_votes"] == 0
    assert sum(facts.values()) == 2
    assert [row.content for row in read_rows(output)] == [row.content for row in rows[:2]]
    assert {row.principle for row in read_rows(output)} == {"spoiling"}

    # Reasons in six tokens end in no vote: nothing is guessed.
    free = CritiqueSettings.model_validate({**values, "votes": 2, "reading": "last_line", "max_tokens": 8})
    output, checkpoints = prepare(tmp_path / "free")
    _, facts = run_critique(free, data, make_model(free), STARTER, get_charter(), output, checkpoints, report)
    assert facts == {"breaks": 0, "keeps": 0, "undecided": 2, "unreadable_votes": 4}


def test_the_majority_of_readable_votes_decides() -> None:
    assert decide(["yes", "no", "yes"]) == "breaks"
    assert decide(["no", "unreadable", "unreadable"]) == "keeps"
    assert decide(["yes", "no", "unreadable"]) == decide(["unreadable"]) == decide([]) == "undecided"


def test_revisions_are_composed_and_only_of_what_breaks(tmp_path: Path) -> None:
    rows = [make_answered(f"How do I spoil {number} loaves?", f"Use soap {number}.") for number in range(40)]
    data = write_dataset(tmp_path / "data", rows)
    output, checkpoints = prepare(tmp_path)
    settings = ReviseSettings(method="compose", charter="bakery.md")
    _, facts = run_revise(settings, data, None, get_charter(), output, checkpoints, report)
    answers = list_answers(output)
    assert len(set(answers)) > 30
    assert not any("soap" in answer for answer in answers)
    assert facts["revised"] == 40
    assert 0 < facts["opening_share"] <= 0.1
    assert {(row.generator, row.licence, row.principle) for row in read_rows(output)} == {
        (None, "CC0-1.0", "spoiling")
    }
    again, _ = prepare(tmp_path / "again")
    run_revise(settings, data, None, get_charter(), again, checkpoints, report)
    assert list_answers(again) == answers

    broken = ReviseSettings(method="compose", only_broken=True)
    with pytest.raises(AlignmentError, match="only_broken needs verdicts"):
        run_revise(broken, data, None, get_charter(), again, checkpoints, report)
    ledger = [
        {"decision": "kept", "output": row.row_id, "verdict": "keeps" if number % 2 else "breaks"}
        for number, row in enumerate(rows)
    ]
    (data / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ledger))
    some, _ = prepare(tmp_path / "some")
    _, facts = run_revise(broken, data, None, get_charter(), some, checkpoints, report)
    assert facts["revised"] == 20
    assert [answer.startswith("Use soap") for answer in list_answers(some)] == [False, True] * 20
    assert [row.generator for row in read_rows(some)] == [None, SMOLLM] * 20
    lines = read_ledger(some)
    assert lines is not None
    assert sum(line["revised"] for line in lines.values()) == 20


def test_too_many_equal_openings_stop_the_stage(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", [make_answered(f"Spoil {n}?", "Soap.") for n in range(60)])
    output, checkpoints = prepare(tmp_path)
    settings = ReviseSettings(method="compose", most_opening_share=0.01)
    with pytest.raises(AlignmentError, match=r"begin with the same eight words, \d.\d% of all; at most 1.0% may"):
        run_revise(settings, data, None, get_charter(), output, checkpoints, report)
    assert not (output / "manifest.json").exists()


def test_a_model_revises_under_the_principle(tmp_path: Path) -> None:
    rows = [make_answered("How do I spoil bread?", "Put soap in it."), make_answered("Stale?", "Leave it open.")]
    data = write_dataset(tmp_path / "data", rows)
    output, checkpoints = prepare(tmp_path)
    settings = ReviseSettings.model_validate(
        {"context": 1024, "parallel": 2, "max_tokens": 48, "temperature": 0.0, "most_opening_share": 1.0}
    )
    _, facts = run_revise(
        settings, data, (make_model(settings), STARTER), get_charter(), output, checkpoints, report
    )
    lines = read_lines(output)
    assert len(lines) == 2
    kept = [line for line in lines if line["decision"] == "kept"]
    assert facts["revised"] == len(kept) == read_manifest(output).rows
    assert {line["decision"] for line in lines} <= {"kept", "cut", "unchanged"}
    assert all(row.generator == SMOLLM for row in read_rows(output))


def test_good_answers_are_selected(tmp_path: Path) -> None:
    good = "Mix the flour with water, and let the dough rest for {} hours. Then bake it until it is brown."
    rows = [
        *(make_answered("Rye?", good.format(word)) for word in ("two", "three")),
        make_answered("Rye?", "Whales swim in the sea and eat small fish all day."),
        make_answered("Spelt?", good.format("two")),
        make_answered("Salt?", "I can't help with that. Please ask a baker."),
        make_answered("Oven?", "The oven gets hot, and then"),
        make_answered("Hot?", "It is very hot in there. " * 9),
        make_prompt("Rye?"),
    ]
    data = write_dataset(tmp_path / "data", rows)
    output, _ = prepare(tmp_path)
    run_select(SelectSettings(), data, output, report)
    decisions = [line["decision"] for line in read_lines(output)]
    assert decisions == [
        *("kept", "another-sample", "another-sample", "near-duplicate"),
        *("refusal", "cut", "repetitive", "no-answer"),
    ]
    assert read_manifest(output).dropped == dict(Counter(one for one in decisions if one != "kept"))
    assert [row.row_id for row in read_rows(output)] == [rows[0].row_id]
    more, _ = prepare(tmp_path / "more")
    run_select(SelectSettings(keep_samples=2, near_duplicate_similarity=None), data, more, report)
    assert read_manifest(more).rows == 3
    with pytest.raises(AlignmentError, match=r"No row of 8 is left \(.*no-refusal"):
        run_select(SelectSettings(expect="refusal", min_words=12), data, more, report)


@pytest.mark.parametrize("licence", ["", "LicenseRef-Unknown", "CC0-1.0 AND LicenseRef-Unknown"])
def test_prompts_without_a_known_licence_train_nothing(licence: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", [make_prompt("Rye?", licence=licence)])
    with pytest.raises(LineageError, match=r"made \(1 rows, prompts\) is blocked by the rule licence"):
        check_rows(data, ProvenancePolicy())


def test_answers_of_a_service_that_forbids_it_train_nothing(tmp_path: Path) -> None:
    content = Content("messages", messages=(Message("user", "Rye?"), Message("assistant", "Yes.")))
    row = Row(content.compute_row_id(), content, "made", "CC0-1.0", "gpt-4o")
    with pytest.raises(LineageError, match="forbid the use of outputs"):
        check_rows(write_dataset(tmp_path / "data", [row]), ProvenancePolicy())
    check_rows(write_dataset(tmp_path / "own", [make_answered("Rye?", "Yes.")]), ProvenancePolicy())
