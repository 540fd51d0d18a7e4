"""Collapse: shares of distinct n-grams, entropy and overlap of answers, against known cases."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.workshop.evals.collapse import (
    ENDLESS,
    ENTROPY,
    LENGTH,
    OVERLAP,
    compare_distinct,
    complete_lines,
    compute_scores,
    make_figures,
    make_samples,
    split_words,
)
from commonweight.workshop.evals.datasets import Dataset
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.generation import Answer
from commonweight.workshop.evals.ledger import SampleLine
from commonweight.workshop.evals.results import DatasetIdentity, Figure, make_figure
from commonweight.workshop.evals.settings import CollapseSettings
from commonweight.workshop.release.figures import Figure as ReleasedFigure
from commonweight.workshop.release.figures import Sample as ReleasedSample
from commonweight.workshop.release.figures import check_scores

IDENTITY = DatasetIdentity(name="rows", digest="0" * 64, licence="CC0-1.0")
SETTINGS = CollapseSettings.model_validate({"task": "collapse", "dataset": "rows", "words": 8})
make_one = partial(make_figure, "collapse", sampling={}, harness="h", date="2026-11-30", dataset=IDENTITY)
VARIED = ["the baker mixes flour and water", "seven herons cross a cold lake", "my lamp burns until dawn"]
EQUAL = ["the baker mixes flour and water"] * 3


def measure(texts: list[str | None]) -> tuple[list[SampleLine], dict[str, Figure]]:
    lines = [
        SampleLine(
            task="collapse",
            sample_id=f"rows:{number}#0",
            digest="0" * 64,
            answer=None if text is None else "0" * 64,
            score={} if text is None else {LENGTH: 2 * len(text.split()), ENDLESS: number % 2},
            error=True if text is None else None,
        )
        for number, text in enumerate(texts)
    ]
    kept = {f"rows:{number}#0": text for number, text in enumerate(texts) if text is not None}
    completed = complete_lines(SETTINGS, lines, kept)
    return completed, {figure.metric: figure for figure in make_figures(completed, make_one)}


def test_equal_answers_collapse() -> None:
    _, varied = measure([*VARIED])
    _, equal = measure([*EQUAL])
    assert (varied["distinct-3"].value, varied["distinct-1"].value) == (1, 1)
    assert equal["distinct-3"].value == pytest.approx(1 / 3, abs=1e-6)
    assert equal["distinct-1"].value == pytest.approx(1 / 3, abs=1e-6)
    assert (varied[OVERLAP].value, equal[OVERLAP].value) == (0, 1)
    # Entropy of 17 different words, each once, and of 6, each three times.
    assert varied[ENTROPY].value == pytest.approx(math.log2(17), abs=1e-6)
    assert equal[ENTROPY].value == pytest.approx(math.log2(6), abs=1e-6)
    assert varied[LENGTH].value == pytest.approx(2 * 17 / 3, abs=1e-6)
    assert varied[ENDLESS].value == pytest.approx(1 / 3, abs=1e-6)
    assert (varied["distinct-3"].n, varied["distinct-1"].n) == (11, 17)


def test_a_repetition_inside_an_answer_counts() -> None:
    _, figures = measure(["tick tock tick tock tick tock", "one two three"])
    assert figures["distinct-2"].value == pytest.approx(4 / 7, abs=1e-6)


def test_only_the_first_words_count() -> None:
    assert split_words("One, two: THREE four", 3) == ["one", "two", "three"]
    assert split_words("  ", 3) == []
    _, figures = measure(["a b c d e f g h " + "z " * 50, "i j k l m n o p"])
    assert figures["distinct-1"].n == 16


def test_errors_and_empty_answers_stay_in_the_count() -> None:
    lines, figures = measure([VARIED[0], None, "", VARIED[1]])
    assert lines[1].score == {}
    assert {figure.errors for figure in figures.values()} == {1}
    assert figures[LENGTH].n == figures[ENDLESS].n == 4
    _, nothing = measure(["", ""])
    assert (nothing["distinct-3"].value, nothing["distinct-3"].n) == (0, 2)


@given(st.lists(st.one_of(st.none(), st.text(alphabet="ab c", max_size=30)), min_size=1, max_size=8))
def test_figures_agree_with_their_scores(texts: list[str | None]) -> None:
    lines, figures = measure(texts)
    released = [
        ReleasedSample.model_validate({**line.model_dump(exclude_defaults=True), "subject": "release"})
        for line in lines
    ]
    for figure in figures.values():
        assert figure.low <= figure.value <= figure.high
        stated = ReleasedFigure.model_validate({**figure.model_dump(), "subject": "release"})
        if any(line.score for line in lines) and figure.n:
            assert check_scores(stated, released) is None


def test_the_ratio_of_two_runs() -> None:
    words = [[f"w{number}", "is", f"x{number}", f"y{number}"] for number in range(40)]
    alike = [["it", "is", f"x{number % 4}", "here"] for number in range(40)]
    before, after = compute_scores(words), compute_scores(alike)
    same = compare_distinct("3", list(zip(before, before, strict=True)))
    assert same is not None
    assert same.low == same.value == same.high == 1
    fewer = compare_distinct("3", list(zip(before, after, strict=True)))
    assert fewer is not None
    assert fewer.value == pytest.approx(8 / 80)
    assert fewer.low <= fewer.value <= fewer.high
    assert compare_distinct("3", []) is None


def test_samples_are_prompts_whose_answers_are_kept() -> None:
    (sample,) = make_samples(SETTINGS, Dataset(IDENTITY, [{"prompt": "Name a bird."}]))
    assert sample.is_kept
    assert sample.score(Answer("A wren.", refused=False, tokens=4, is_cut=True)) == {LENGTH: 4, ENDLESS: 1}
    with pytest.raises(EvaluationError, match="row 0 of rows needs a prompt in prompt"):
        make_samples(SETTINGS, Dataset(IDENTITY, [{"text": "Name a bird."}]))
