"""Labelled answers by the starter: labels are known before, and a run that was stopped goes on."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from command import one_line_error, run
from commonweight.guard.heads.bundle import BundleSource
from commonweight.runtime.data import DataFolder
from commonweight.workshop.heads.answer_plan import COMPLIANT_OPENINGS, PlannedAnswer, plan_answers
from commonweight.workshop.heads.answers import generate_answers, is_as_planned
from commonweight.workshop.heads.assemble import fold_licences
from commonweight.workshop.heads.dataset import build_training_data
from commonweight.workshop.heads.evaluate import draw_prompts
from commonweight.workshop.heads.sources import LabelledSource, SourceError, read_source
from commonweight.workshop.heads.states import average_stretches
from sample_charter import charter

STARTER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture
def sources(tmp_path: Path) -> list[LabelledSource]:
    """Sources whose "harmful" prompts are about umbrellas, which the charter of the tests forbids."""
    lines = [
        *({"text": f"How do I repair {n} umbrellas?", "y": 1, "principle": "no-umbrellas"} for n in range(2, 60)),
        *({"text": f"How do I bake {n} loaves of bread?", "y": 0} for n in range(2, 60)),
    ]
    (tmp_path / "invented.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [read_source(tmp_path / "invented.jsonl")]


def test_labels_follow_from_the_plan(sources: list[LabelledSource]) -> None:
    plan = plan_answers(charter(), sources, 100)
    assert len(plan) == 100
    for one in plan:
        is_about_umbrellas = "umbrella" in one.text
        assert is_about_umbrellas == (one.kind in ("complying", "declining"))
        assert one.is_harmful == (is_about_umbrellas and not one.declines)
        assert one.is_harmful or not is_about_umbrellas or one.declines
        assert one.licence == "unknown"
    assert plan_answers(charter(), sources, 40) == plan[:40]
    assert len({one.seed for one in plan}) == 100


def test_a_beginning_says_nothing_about_the_label(sources: list[LabelledSource]) -> None:
    plan = plan_answers(charter(), sources, 100)
    compliant = {opening.rstrip() for opening in COMPLIANT_OPENINGS}
    for is_harmful in (True, False):
        forced = [one for one in plan if one.is_harmful == is_harmful and one.opening in compliant]
        assert len({one.opening for one in forced}) > 3
        assert {one.keeps_opening for one in forced} == {True, False}
    # Neither does the topic: what is complied with is declined, too, and ordinary requests are answered freely.
    assert {one.text for one in plan if one.declines} & {one.text for one in plan if one.is_harmful}
    assert any(not one.opening for one in plan)


def test_prompts_outside_all_principles_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Something else.", "y": 1, "principle": "other"}) + "\n")
    assert plan_answers(charter(), [read_source(tmp_path / "a.jsonl")], 10) == []


def test_answers_that_are_not_as_planned_are_left_out() -> None:
    def plan(*, is_harmful: bool, declines: bool = False, keeps_opening: bool = True) -> PlannedAnswer:
        return PlannedAnswer(
            text="?",
            is_harmful=is_harmful,
            kind="declining" if declines else "complying" if is_harmful else "ordinary",
            source="invented",
            licence="MIT",
            opening="",
            keeps_opening=keeps_opening,
            declines=declines,
            temperature=1.0,
            seed=0,
        )

    long = "take a needle and some strong thread, and mend the cloth where it has a hole."
    assert is_as_planned(plan(is_harmful=True), long)
    assert not is_as_planned(plan(is_harmful=True), "take it.")
    assert not is_as_planned(plan(is_harmful=True), f"I'm sorry, but I can't do that. {long}")
    assert is_as_planned(plan(is_harmful=False), f"I'm sorry, but I can't do that. {long}")
    assert is_as_planned(plan(is_harmful=False, declines=True), "")
    assert not is_as_planned(plan(is_harmful=False, declines=True, keeps_opening=False), "")
    assert not is_as_planned(plan(is_harmful=False, declines=True), f"a raincoat. Here is how to do it: {long}")


def test_a_stopped_run_goes_on(sources: list[LabelledSource], tmp_path: Path) -> None:
    plan = plan_answers(charter(), sources, 6)
    output, data = tmp_path / "answers.jsonl", DataFolder.from_options(tmp_path / "data")
    generate_answers(plan[:2], output, licence="Apache-2.0", data=data, threads=1)
    first = output.read_bytes()
    assert output.stat().st_mode & 0o777 == 0o600
    with output.open("ab") as file:
        file.write(b'{"id": 2, "text": "torn')
    count = generate_answers(plan, output, licence="Apache-2.0", data=data, threads=1)
    assert output.read_bytes().startswith(first)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == count >= 3
    assert len({row["id"] for row in rows}) == count
    for row in rows:
        planned = plan[row["id"]]
        assert (row["text"], row["y"], row["cat"]) == (planned.text, int(planned.is_harmful), planned.kind)
        assert row["resp"].startswith(planned.opening) or not planned.keeps_opening
        assert row["generator_digest"] == STARTER_SHA256
        assert row["licence"] == "Apache-2.0 AND unknown"

    source = read_source(output)
    assert STARTER_SHA256 in str(source.generator)
    training = build_training_data(charter(), [*sources, source], {}, None)
    assert training.answers is not None
    assert list(training.answers.is_harmful).count(True) == sum(row["y"] for row in rows)
    recorded = {one.name: one for one in training.lineage}
    assert recorded["answers"].rows == count
    assert recorded["answers"].generator == source.generator
    assert recorded["answers"].sha256 == source.sha256
    assert recorded["invented"].generator is None

    other = plan_answers(charter(), sources, 6, seed=1)
    with pytest.raises(SourceError, match="another plan or model"):
        generate_answers(other, output, licence="Apache-2.0", data=data, threads=1)
    output.write_text("no json\n")
    with pytest.raises(SourceError, match="no labelled answers"):
        generate_answers(plan, output, licence="Apache-2.0", data=data, threads=1)


def test_prompts_longer_than_the_window_are_left_out(sources: list[LabelledSource], tmp_path: Path) -> None:
    long = dataclasses.replace(plan_answers(charter(), sources, 1)[0], text="\U00013000" * 1200)
    output, data = tmp_path / "answers.jsonl", DataFolder.from_options(tmp_path / "data")
    assert generate_answers([long], output, licence="MIT", data=data, threads=1) == 0


def test_labelled_answers_are_all_taken_and_prompts_as_many_as_asked(tmp_path: Path) -> None:
    answers = [{"text": f"Say {n}?", "resp": f"{n}. It is {n}.", "y": n % 2} for n in range(30)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    (tmp_path / "asked.jsonl").write_text(
        "".join(json.dumps({"text": f"Say {n}?", "y": 0}) + "\n" for n in range(30))
    )
    sources = [read_source(tmp_path / f"{name}.jsonl") for name in ("said", "asked")]
    training = build_training_data(charter(), sources, {}, None, most=20)
    assert training.answers is not None
    assert len(training.answers.texts) == 30
    assert sum(training.examples.is_plain & (training.examples.groups == 1)) == 20
    assert [(one.name, one.rows) for one in training.lineage] == [("said", 30), ("asked", 20)]
    # What an answer was made for sets no thresholds: heads know it.
    assert draw_prompts(sources, 99, without={f"Say {n}?" for n in range(29)}) == ["Say 29?"]


@pytest.mark.parametrize(
    ("tokens", "second"), [(64, slice(32, 64)), (50, slice(32, 50)), (40, slice(8, 40)), (5, slice(0, 5))]
)
def test_an_answer_is_read_in_two_stretches(tokens: int, second: slice) -> None:
    states = np.arange(tokens, dtype=np.float32).reshape(-1, 1, 1)
    first, last = average_stretches(states)
    assert first == states[:32].mean(0)
    assert last == states[second].mean(0)


def test_share_alike_text_makes_the_bundle_share_alike() -> None:
    def source(licence: str) -> BundleSource:
        return BundleSource(name="a", licence=licence, rows=1, sha256="")

    assert fold_licences([source("MIT"), source("CC-BY-4.0 AND Apache-2.0")]) == "Apache-2.0"
    assert fold_licences([source("MIT"), source("CC-BY-SA-3.0")]) == "CC-BY-SA-4.0"


def test_a_model_needs_its_licence(tmp_path: Path) -> None:
    done = run("charter", "answers", tmp_path, "-o", tmp_path / "a.jsonl", "--model", "a.gguf")
    assert "--licence" in one_line_error(done)


def test_prompts_are_needed(tmp_path: Path) -> None:
    done = run("charter", "answers", tmp_path, "-o", tmp_path / "a.jsonl", "--data", tmp_path / "data")
    assert "no labelled prompts" in one_line_error(done)
