"""What a step costs is learned, whatever the machine, and bounds the chunks of prompts."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.engines.llama.scheduler.step_cost import (
    MAX_SINGLE_AGE_STEPS,
    MAX_SIZE_AGE_STEPS,
    MIN_CHUNK_ROWS,
    StepCostModel,
)

observations = st.lists(
    st.tuples(st.integers(1, 300), st.integers(0, 300), st.floats(0, 100)).map(
        lambda seen: (seen[0], min(seen[0], seen[1]), seen[2])
    ),
    max_size=60,
)


def taught(seen: list[tuple[int, int, float]]) -> StepCostModel:
    pace = StepCostModel()
    for rows, outputs, seconds in seen:
        pace.observe(rows, outputs, seconds)
    return pace


class TestSeconds:
    def test_sizes_that_suit_the_kernels_are_seen_to(self) -> None:
        pace = taught(
            [(rows, rows, seconds) for rows, seconds in ((1, 0.006), (7, 0.027), (8, 0.024), (16, 0.028))]
        )
        assert pace.estimate_step_seconds(8) == 0.024 < pace.estimate_step_seconds(7)
        assert pace.estimate_step_seconds(32) > pace.estimate_step_seconds(16)

    @pytest.mark.parametrize(("first", "further"), [(0.007, 0.002), (0.2, 0.05), (0.010, 0.0)])
    def test_it_converges(self, first: float, further: float) -> None:
        rng, pace = random.Random(0), StepCostModel()
        for _ in range(300):
            rows = rng.choice([1, 2, 4, 8, 16])
            pace.observe(rows, rows, (first + further * (rows - 1)) * rng.gauss(1.0, 0.03))
        for rows in (1, 2, 3, 6, 12, 16, 32):
            assert pace.estimate_step_seconds(rows) == pytest.approx(first + further * (rows - 1), rel=0.05)

    def test_unseen_drafts_look_worth_a_try(self) -> None:
        pace = taught([(1, 1, 0.2)])
        assert pace.estimate_step_seconds(1) < pace.estimate_step_seconds(4) < 2 * pace.estimate_step_seconds(1)
        assert StepCostModel().estimate_step_seconds(4) < 2 * StepCostModel().estimate_step_seconds(1)

    def test_an_unseen_step_without_drafts_looks_cheap(self) -> None:
        """Or drafting from the first step on would never be compared with not drafting."""
        assert taught([(4, 4, 0.4)]).estimate_step_seconds(1) == pytest.approx(0.1)

    def test_prompts_tell_what_rows_cost_before_drafts_do(self) -> None:
        pace = taught([(1, 1, 0.007), (101, 1, 0.907)])
        assert pace.estimate_step_seconds(2) == pytest.approx(0.007 + 0.009)

    def test_a_busy_moment_is_forgotten_at_once(self) -> None:
        pace = taught([(1, 1, 0.01)] * 15 + [(1, 1, 0.2)] * 5)
        assert pace.estimate_step_seconds(1) == 0.01

    def test_a_busy_first_step_is_forgotten_at_the_next(self) -> None:
        assert taught([(1, 1, 0.2), (1, 1, 0.01)]).estimate_step_seconds(1) == 0.01

    def test_lasting_change_is_followed(self) -> None:
        pace = taught([(1, 1, 0.01)] * 100 + [(1, 1, 0.03)] * 15)
        assert pace.estimate_step_seconds(1) == 0.03

    @pytest.mark.parametrize(("times", "steps"), [(1, MAX_SINGLE_AGE_STEPS), (2, MAX_SIZE_AGE_STEPS)])
    def test_a_size_that_looked_dear_is_tried_again(self, times: int, steps: int) -> None:
        pace = taught([(1, 1, 0.01)] + [(4, 4, 0.8)] * times)
        for _ in range(steps):
            assert pace.estimate_step_seconds(4) == 0.8
            pace.observe(1, 1, 0.01)
        pace.observe(1, 1, 0.01)
        assert pace.estimate_step_seconds(4) < 0.02

    def test_a_busy_moment_the_only_time_a_size_was_seen(self) -> None:
        pace = taught([(1, 1, 0.01), (4, 4, 0.8)] + [(1, 1, 0.01)] * (MAX_SINGLE_AGE_STEPS + 1) + [(4, 4, 0.015)])
        assert pace.estimate_step_seconds(4) == 0.015

    @given(observations, st.integers(1, 64))
    def test_a_step_has_at_most_twice_the_rows_that_were_seen(
        self, seen: list[tuple[int, int, float]], rows: int
    ) -> None:
        """What they cost is a guess, and a wrong one costs more the more rows there are."""
        pace, reaches = taught(seen), []
        for _ in range(8):
            reaches.append(pace.max_rows_to_try(rows))
            pace.observe(reaches[-1], reaches[-1], 0.01)
        assert reaches[0] > rows
        assert all(reach > last and reach <= 2 * last + 2 for last, reach in pairwise(reaches) if last > rows + 1)


class TestRowsWithin:
    @given(observations, st.floats(0, 10), st.integers(0, 64), st.integers(1, 2048))
    def test_it_stays_within_its_bounds(
        self, seen: list[tuple[int, int, float]], seconds: float, beside: int, most: int
    ) -> None:
        rows = taught(seen).max_prompt_rows(seconds, beside, most)
        assert min(MIN_CHUNK_ROWS, most) <= rows <= most

    @pytest.mark.parametrize("beside", [0, 1, 4])
    @pytest.mark.parametrize(
        ("first", "further", "within"),
        [(0.007, 0.002, 0.1), (0.007, 0.009, 0.3), (0.2, 0.05, 2.0), (0.010, 0.0001, 0.03)],
    )
    def test_steps_come_to_last_what_was_asked(
        self, first: float, further: float, within: float, beside: int
    ) -> None:
        rng, pace = random.Random(0), StepCostModel()
        pace.observe(1, 1, first)
        pace.observe(4, 4, first + further * 3)
        steps = []
        for _ in range(40):
            chunk = pace.max_prompt_rows(within, beside, 512)
            steps.append((first + further * (chunk + beside - 1)) * rng.gauss(1.0, 0.03))
            pace.observe(chunk + beside, beside, steps[-1])
        assert all(step == pytest.approx(within, rel=0.15) for step in steps[5:])

    def test_the_time_a_prompt_takes(self) -> None:
        assert taught([(1, 1, 0.01), (101, 1, 0.21)]).estimate_prefill_seconds(1000) == pytest.approx(2.0)

    def test_a_growing_context_shortens_the_chunks(self) -> None:
        pace, read, longest = taught([(1, 1, 0.007)]), 0, 0.0
        for _ in range(200):
            chunk = pace.max_prompt_rows(0.15, 1, 512)
            seconds = 0.007 + chunk * (0.002 + 0.007 * read / 20_000)
            pace.observe(chunk + 1, 1, seconds)
            longest = max(longest, seconds) if read > 2000 else 0.0
            read += chunk
        assert read > 4000
        assert longest < 0.18

    def test_a_busy_moment_does_not_shorten_the_next_chunk(self) -> None:
        pace = taught([(1, 1, 0.01)] + [(101, 1, 0.21)] * 3)
        before = pace.max_prompt_rows(0.11, 1, 512)
        pace.observe(101, 1, 4.2)
        assert pace.max_prompt_rows(0.11, 1, 512) == before == 50

    def test_rows_that_are_free_fill_the_batch(self) -> None:
        assert taught([(1, 1, 0.01), (64, 1, 0.01)]).max_prompt_rows(0.02, 1, 512) == 512

    def test_the_least_chunk_is_let_in_where_nothing_fits(self) -> None:
        assert taught([(1, 1, 0.2), (33, 1, 3.2)]).max_prompt_rows(0.1, 1, 512) == MIN_CHUNK_ROWS
