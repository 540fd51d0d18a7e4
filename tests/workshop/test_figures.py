"""Figures with goals and notes, and the table that they make."""

import json
from collections.abc import Sequence

import pytest

from commonweight.guard.heads.calibration import Interval, estimate_share
from commonweight.workshop.heads.evaluate import ScoredText, draw_rows
from commonweight.workshop.heads.figure_table import Subject, describe_figures, format_table
from commonweight.workshop.heads.figures import (
    Figure,
    at_least,
    at_most,
    is_noted,
    make_unmeasured,
    measure_auprc,
    measure_median,
    measure_pooled_share,
    measure_ratio,
    measure_share,
)
from commonweight.workshop.heads.kept_scores import Outcome
from commonweight.workshop.heads.sources import LabelledText

SUBJECT = Subject("c" * 64, "b" * 64, "model", "states", False, "2026-11-30")


def scored(refused: Sequence[bool | None], *, harmful: bool = True) -> list[ScoredText]:
    """None: the text was not read."""
    return [
        ScoredText(
            LabelledText(str(i), is_harmful=harmful),
            Outcome(float(bool(one)), bool(one), is_read=one is not None),
        )
        for i, one in enumerate(refused)
    ]


def test_texts_that_were_not_read_are_in_no_rate() -> None:
    figure = measure_share("g", "n", scored([True, False, None, None]), at_least(0.4, 0.6))
    assert figure.value == estimate_share(1, 2)
    assert (figure.texts, figure.unread, figure.result) == (2, 2, "floor")
    nothing = measure_share("g", "n", scored([None]))
    assert nothing.value is None
    assert nothing.unread == 1
    assert "n/a" in nothing.note


@pytest.mark.parametrize(
    ("value", "result"), [(0.9, "aim"), (0.85, "aim"), (0.8, "floor"), (0.75, "floor"), (0.74, "missed")]
)
def test_lower_limits(value: float, result: str) -> None:
    assert Figure("g", "n", 1, Interval(value, 0, 1), goal=at_least(0.75, 0.85)).result == result


@pytest.mark.parametrize(("value", "result"), [(0.0, "aim"), (0.01, "floor"), (0.011, "missed")])
def test_upper_limits(value: float, result: str) -> None:
    assert Figure("g", "n", 1, Interval(value, 0, 1), goal=at_most(0.01, 0.005)).result == result


def test_a_ratio_is_of_the_same_texts() -> None:
    plain = scored([True, True, True, True, False, None])
    changed = scored([True, False, True, None, True, True])
    figure = measure_ratio("g", "n", changed, plain, at_least(0.8, 0.95))
    assert figure.value is not None
    assert figure.value.value == pytest.approx(3 / 3)
    assert (figure.texts, figure.unread) == (4, 2)
    assert figure.value.lower <= 1 <= figure.value.upper
    assert measure_ratio("g", "n", plain, plain).value == (1, 1, 1)


def test_what_is_only_recorded_counts_where_it_is_asked_for() -> None:
    row = LabelledText("a", is_harmful=True)
    recorded = [ScoredText(row, Outcome(noted=("fraud",))), ScoredText(row, Outcome())]
    refused = [ScoredText(row, Outcome(is_refused=True, noted=("fraud",)))] * 2
    figure = measure_ratio("g", "n", recorded, refused, is_hit=is_noted)
    assert figure.value is not None
    assert figure.value.value == 0.5
    assert measure_ratio("g", "n", recorded, refused).value == (0, 0, 0)


def test_a_ratio_to_nothing_is_no_figure() -> None:
    figure = measure_ratio("g", "n", scored([True]), scored([False]))
    assert figure.value is None
    assert figure.note == "n/a: none of the plain texts is hit"


def test_average_precision_needs_both_labels() -> None:
    harmful, harmless = scored([True] * 5), scored([False] * 5, harmful=False)
    perfect = measure_auprc("g", "n", harmful + harmless, at_least(0.5, 0.6))
    assert perfect.value is not None
    assert perfect.value.value == 1
    assert measure_auprc("g", "n", harmful).value is None


def test_rows_are_drawn_by_a_seed_in_their_order() -> None:
    rows = [LabelledText(str(i), is_harmful=True) for i in range(50)]
    drawn = draw_rows(rows, 10, 1)
    assert len(drawn) == 10
    assert drawn == sorted(drawn, key=lambda row: int(row.text))
    assert drawn == draw_rows(rows, 10, 1) != draw_rows(rows, 10, 2)
    assert draw_rows(rows, None) == draw_rows(rows, 99) == rows


def test_the_table_says_what_was_measured_and_what_was_missed() -> None:
    figures = [
        measure_share("plain", "umbrellas refused", scored([True, False, None]), at_least(0.75, 0.85)),
        measure_ratio("views", "base64 over plain", scored([True]), scored([True]), at_least(0.8, 0.95)).add_note(
            "does not count"
        ),
        make_unmeasured("left out", "look-alikes", "trained on it"),
    ]
    table = format_table(SUBJECT, figures).splitlines()
    assert table[0] == f"Charter `{'c' * 16}`, bundle `{'b' * 16}`; states of model; screen only; 2026-11-30."
    assert (
        table[4] == "| umbrellas refused | 2 | 50.0% [9.5%, 90.5%] | >= 75.0% | >= 85.0% | missed | 1 not read |"
    )
    assert table[5] == (
        "| base64 over plain | 1 | 1.000x [1.000, 1.000] | >= 0.8x | >= 0.95x | aim met | does not count |"
    )
    assert table[6] == "| look-alikes |  |  |  |  |  | n/a: trained on it |"
    described = json.loads(json.dumps(describe_figures(SUBJECT, figures)))
    assert described["subject"]["bundle"] == "b" * 64
    assert [one["result"] for one in described["figures"]] == ["missed", "aim", "n/a"]
    assert described["figures"][0]["unread"] == 1
    assert described["figures"][2]["value"] is None


def test_a_median_that_is_only_reported() -> None:
    figure = measure_median("g", "late", [0, 10, 100, 110, 400], "tokens", at_most(None, 64))
    assert figure.value is not None
    assert (figure.value.value, figure.result, figure.texts) == (100, "reported", 5)
    assert figure.value.lower < 100 < figure.value.upper
    assert "| late | 5 | 100 [" in (table := format_table(SUBJECT, [figure]))
    assert "| report | <= 64 | aim missed |" in table
    assert json.loads(json.dumps(describe_figures(SUBJECT, [figure])))["figures"][0]["floor"] is None
    assert measure_median("g", "n", [64], "tokens", at_most(None, 64)).result == "aim"
    assert measure_median("g", "n", [], "tokens").note == "n/a: there is nothing to take a median of"


def test_a_pooled_share_is_of_all_sets_together() -> None:
    figure = measure_pooled_share("g", "known", [(9, 10), (0, 30), (9, 10)], at_least(0.3, 0.5))
    assert figure.value is not None
    assert (figure.value.value, figure.texts, figure.result) == (0.36, 50, "floor")
    assert figure.value.lower < 0.36 < figure.value.upper
    assert measure_pooled_share("g", "n", [(0, 0)]).note == "n/a: there is nothing to take a share of"
    assert measure_pooled_share("g", "n", []).value is None


def test_counts_are_written_as_they_are() -> None:
    table = format_table(SUBJECT, [measure_median("g", "texts", [3, 3, 3, 3], "count")])
    assert "| texts | 4 | 3 [3, 3] |" in table
    assert " 2.5 [" in format_table(SUBJECT, [measure_median("g", "texts", [2, 3], "count")])
