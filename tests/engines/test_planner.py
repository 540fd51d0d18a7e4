"""What a batch holds: streams, chunks of prompts, whose turn it is."""

import pytest
from driving import STARTER_NOISE, Driver, Machine, counting, job, words
from hypothesis import given
from hypothesis import strategies as st

from commonweight.engines.llama.model.attention_cost import TILE_ROWS, AttentionCost
from commonweight.engines.llama.scheduler import planner as plan
from commonweight.engines.llama.scheduler import step_cost as pace
from commonweight.engines.llama.scheduler.step_cost import StepCostModel

pytest_plugins = "machines"


def test_a_long_prompt_does_not_hold_up_a_stream(driver: Driver) -> None:
    (stream,) = driver.submit(job(words(10), 100))
    driver.step()
    driver.slowly(20)
    (late,) = driver.submit(job(words(120, 1)))
    for _ in range(6):
        said = len(driver.outcomes[stream].tokens)
        driver.step()
        assert len(driver.outcomes[stream].tokens) == said + 1
        assert driver.scheduler._batch.rows == 21
    assert driver.outcomes[late].is_done


def test_the_chunk_follows_the_pace(driver: Driver) -> None:
    driver.submit(job(words(10), 100))
    driver.step(3)
    measured = StepCostModel()
    driver.scheduler._step_costs = dict.fromkeys(driver.scheduler._step_costs, measured)
    for _ in range(pace.RECENT_STEPS):
        measured.observe(1, 1, 0.04)
        measured.observe(101, 1, 0.04 + 0.1)
    driver.submit(job(words(300, 1)))
    driver.step()
    # CADENCE, less what the stream takes, at a millisecond a row, in whole tiles.
    assert (
        driver.scheduler._batch.rows
        == (plan.STREAMING_STEP_SECONDS - 0.04) // (TILE_ROWS * 0.001) * TILE_ROWS
        == 192
    )


def test_streams_and_long_chunks_take_turns(driver: Driver) -> None:
    streams = driver.submit(job(words(10), 100), job(words(12, 3), 100))
    driver.step(3)
    driver.slowly(140)
    driver.submit(job(words(384, 1), 5))
    said = [len(driver.outcomes[stream].tokens) for stream in streams]
    rows = []
    for _ in range(6):
        driver.step()
        rows.append(driver.scheduler._batch.rows)
    assert rows == [128, 2, 128, 2, 128, 3]
    assert [len(driver.outcomes[stream].tokens) for stream in streams] == [count + 3 for count in said]


def test_a_prompts_last_rows_come_along(driver: Driver) -> None:
    driver.submit(job(words(10), 100))
    driver.step(2)
    driver.slowly(100)
    (late,) = driver.submit(job(words(120, 1), 5))
    driver.step()
    assert driver.scheduler._batch.rows == 120
    assert len(driver.outcomes[late].tokens) == 1


def test_log_probabilities_hardly_depend_on_company(starter: Machine) -> None:
    wanted = job(counting(1, 40), 12, want_logprobs=True)
    (alone,) = starter.drive().run(wanted)
    together, *_ = starter.drive().run(wanted, *[job(counting(50 * i, 20 + 9 * i), 20) for i in (1, 2)])
    assert together.logprobs == pytest.approx(alone.logprobs, abs=STARTER_NOISE)


@pytest.mark.parametrize(("unread", "chunk"), [(50, 256), (300, 50)])
def test_a_tile_that_is_nearly_full_is_filled(machine: Machine, unread: int, chunk: int) -> None:
    """With more of the prompt, or at its end with rows that count for nothing and leave nothing behind."""
    wanted = job(words(600) + words(unread, 1), 5, want_logprobs=True)
    (cold,) = machine.drive().run(wanted)
    driver = machine.drive()
    driver.run(job(words(600)))
    driver.slowly(chunk)
    (late,) = driver.submit(wanted)
    driver.step()
    assert driver.scheduler._batch.rows == TILE_ROWS
    assert driver.scheduler._cells.used == 600 + min(unread, TILE_ROWS)
    driver.finish()
    again = driver.outcomes[late]
    assert again.cached == 600
    assert again.logprobs[0] == pytest.approx(cold.logprobs[0], abs=0.05)
    driver.check_honest()


def test_streams_and_tiles_that_are_filled_take_turns(driver: Driver) -> None:
    driver.run(job(words(600)))
    driver.submit(job(words(10), 100))
    driver.step()
    driver.submit(job(words(600) + words(50, 1), 5))
    driver.step()
    assert driver.scheduler._batch.rows == TILE_ROWS
    driver.step()
    assert driver.scheduler._batch.rows == 2


def test_few_rows_are_not_worth_a_tile(driver: Driver) -> None:
    driver.run(job(words(600)))
    driver.submit(job(words(600) + words(9, 1), 5))
    driver.step()
    assert driver.scheduler._batch.rows == 9


@given(st.integers(1, 10**12), st.integers(1, 10**7), st.integers(1, TILE_ROWS), st.integers(0, 10**6))
def test_the_longer_the_context_the_sooner_a_tile_is_worth_filling(
    weights: int, cell: int, rows: int, context: int
) -> None:
    attention = AttentionCost(weights, cell)
    assert not attention.should_fill_tile(rows, 0)
    assert not attention.should_fill_tile(TILE_ROWS, context)
    assert attention.should_fill_tile(TILE_ROWS - 1, weights)
    if attention.should_fill_tile(rows, context):
        assert attention.should_fill_tile(rows, context + 1)
        assert rows == TILE_ROWS - 1 or attention.should_fill_tile(rows + 1, context)
