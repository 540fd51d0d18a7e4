"""Figures: intervals, errors in the count, files that are whole."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.workshop.evals.results import (
    DatasetIdentity,
    Tally,
    compute_wilson,
    count_independent,
    make_figure,
    write_results,
)

IDENTITY = DatasetIdentity(name="rows", digest="0" * 64, licence="CC0-1.0")


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert compute_wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_value_within_0_and_1(pair: tuple[int, int]) -> None:
    right, n = pair
    low, high = compute_wilson(right / n, n)
    assert 0 <= low <= right / n <= high <= 1


def test_nothing_measured_says_nothing() -> None:
    assert compute_wilson(0, 0) == (0, 1)


def test_outcomes_that_hang_together_count_less() -> None:
    alike = [Tally(4, 4), Tally(0, 4)] * 10
    mixed = [Tally(2, 4)] * 20
    assert count_independent([Tally(1, 1), Tally(0, 1)]) == 2
    assert count_independent(alike) == pytest.approx(20, abs=1)
    assert count_independent(mixed) == 80
    assert count_independent([Tally(4, 4)] * 3) == 3


@given(st.lists(st.integers(1, 5).flatmap(lambda n: st.builds(Tally, st.integers(0, n), st.just(n))), min_size=1))
def test_independent_trials_are_between_prompts_and_outcomes(tallies: list[Tally]) -> None:
    assert len(tallies) <= count_independent(tallies) <= sum(tally.n for tally in tallies)


def test_errors_stay_in_the_count(tmp_path: Path) -> None:
    figure = make_figure(
        "ifeval",
        "prompt strict",
        [Tally(1, 1), Tally(0, 1, errors=1), Tally(0, 1)],
        sampling={"temperature": 0.0},
        harness="h 1",
        date="2026-11-30",
        dataset=IDENTITY,
    )
    assert (figure.value, figure.n, figure.errors) == (0.333333, 3, 1)
    write_results(tmp_path / "results.json", [figure])
    assert json.loads((tmp_path / "results.json").read_text()) == {"figures": [figure.model_dump()]}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
