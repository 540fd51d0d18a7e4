"""What a batch holds: streams, chunks of prompts, whose turn it is."""

import pytest
from driving import STARTER_NOISE, Driver, Machine, counting, job, words

from commonweight.engines.llama import pace, plan
from commonweight.engines.llama.pace import Pace

pytest_plugins = "machines"


def test_a_long_prompt_does_not_hold_up_a_stream(driver: Driver) -> None:
    (stream,) = driver.submit(job(words(10), 100))
    driver.step()
    driver.slowly(50)
    (late,) = driver.submit(job(words(300, 1)))
    for _ in range(6):
        said = len(driver.outcomes[stream].tokens)
        driver.step()
        assert len(driver.outcomes[stream].tokens) == said + 1
        assert driver.scheduler._batch.rows == 51
    assert driver.outcomes[late].is_done


def test_the_chunk_follows_the_pace(driver: Driver) -> None:
    driver.submit(job(words(10), 100))
    driver.step(3)
    driver.scheduler._pace = measured = Pace()
    for _ in range(pace.RECENT_STEPS):
        measured.observe(1, 1, 0.04)
        measured.observe(101, 1, 0.04 + 0.1)
    driver.submit(job(words(300, 1)))
    driver.step()
    # CADENCE, less what the stream takes, at a millisecond a row, in whole tiles.
    assert driver.scheduler._batch.rows == (plan.CADENCE - 0.04) // (plan.TILE * 0.001) * plan.TILE == 192


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
