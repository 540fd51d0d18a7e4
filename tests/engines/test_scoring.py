"""Scoring of given tokens in the scheduler: the same numbers as a cold pass, each position once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny
import transformers_peer
from driving import DOUBTFUL, PREFIX, STARTER_NOISE, Driver, Machine, counting, guessing, job, words
from machines import CELLS, FEW
from outcomes import Outcome
from reference import Reference

from commonweight.engines.contract import ALL_TOKENS, EngineEvent, Job, Scored, Scoring, Step
from commonweight.engines.llama.model.native import EXTRA_OUTPUTS
from commonweight.engines.scoring import check_scoring

pytest_plugins = "machines"

Floats = npt.NDArray[np.float64]

NOISE = 0.1
"""More than log-probabilities of the tiny model were seen to differ by between shapes of a batch."""


@pytest.fixture(scope="module")
def cold(tiny_path: Path) -> Iterator[Reference]:
    reference = Reference(tiny_path, CELLS)
    yield reference
    reference.close()


def scoring(tokens: list[int], start: int = 1, top: int = 0, priority: str = "interactive") -> Job:
    return job(tokens, 0, scoring=Scoring(start, top), priority=priority)


def chunks_of(outcome: Outcome) -> list[Scored]:
    return [event for event in outcome.events if isinstance(event, Scored)]


def scores_of(one: Job, outcome: Outcome) -> Floats:
    """The given tokens' log-probabilities, of which each position came once and in order."""
    assert one.scoring
    assert outcome.finish.reason == "length"
    expected = one.scoring.start
    for chunk in chunks_of(outcome):
        assert chunk.start == expected
        expected += len(chunk.logprobs)
    assert expected == len(one.token_ids)
    return np.array([value for chunk in chunks_of(outcome) for value in chunk.logprobs])


def expected_scores(cold: Reference, one: Job) -> Floats:
    assert one.scoring
    start = one.scoring.start
    rows, _ = cold.read(one.token_ids, start - 1)
    return np.array([row[token] for row, token in zip(rows, one.token_ids[start:], strict=False)])


def check_scores(cold: Reference, one: Job, outcome: Outcome) -> None:
    assert np.abs(scores_of(one, outcome) - expected_scores(cold, one)).max() < NOISE


# The numbers


def test_scores_are_those_of_a_cold_pass(driver: Driver, cold: Reference) -> None:
    jobs = [scoring(words(500, 1)), scoring(words(300, 2), start=140), scoring(words(2, 3))]
    for one, outcome in zip(jobs, driver.run(*jobs), strict=True):
        check_scores(cold, one, outcome)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_kind_of_memory(tmp_path: Path, architecture: str) -> None:
    path = tiny.write(tmp_path, architecture)
    machine, cold = Machine(path, FEW, sequences=1), Reference(path, FEW)
    driver = machine.drive()
    one, later = scoring(words(300, 1), start=150), scoring(words(149, 1) + words(90, 2), start=150)
    for next_one, cached in ((one, 0), (later, 149), (scoring(words(70, 1)), 0)):
        (outcome,) = driver.run(next_one)
        assert outcome.cached == cached
        check_scores(cold, next_one, outcome)
    driver.close()
    machine.model.close()
    cold.close()


def test_scores_are_those_that_generation_tells(starter: Machine) -> None:
    driver = starter.drive(drafts=8)
    prompt = counting(1, 60)
    (answer,) = driver.run(job(prompt, 60, want_logprobs=True))
    one = scoring(prompt + answer.tokens, start=len(prompt))
    differences = np.abs(scores_of(one, driver.run(one)[0]) - np.array(answer.logprobs))
    assert len(differences) == 60
    assert differences.max() < STARTER_NOISE
    driver.close()


def test_whole_rows_are_distributions(driver: Driver) -> None:
    one = scoring(words(150, 4), start=20, top=ALL_TOKENS)
    (outcome,) = driver.run(one)
    given = scores_of(one, outcome)
    data = b"".join(chunk.rows or b"" for chunk in chunks_of(outcome))
    rows = np.frombuffer(data, "<f4").reshape(-1, tiny.VOCABULARY)
    assert len(rows) == 130
    assert np.abs(np.exp(rows.astype(np.float64)).sum(1) - 1).max() < 1e-5
    assert np.abs(rows[np.arange(130), one.token_ids[20:]] - given).max() < 1e-5


def test_top_tokens_are_the_largest_of_whole_rows(driver: Driver) -> None:
    tokens = words(100, 5)
    whole, top = driver.run(scoring(tokens, top=ALL_TOKENS))[0], driver.run(scoring(tokens, top=7))[0]
    assert not any(chunk.top_ids or chunk.top_logprobs for chunk in chunks_of(whole))
    for rows, chunk in zip(chunks_of(whole), chunks_of(top), strict=True):
        assert chunk.rows is None
        array = np.frombuffer(rows.rows or b"", "<f4").reshape(-1, tiny.VOCABULARY)
        assert chunk.top_ids == np.argsort(-array, 1, kind="stable")[:, :7].tolist()
        assert np.abs(np.array(chunk.top_logprobs) - -np.sort(-array, 1)[:, :7]).max() < 1e-5


def test_transformers_gives_the_same_scores(driver: Driver, tiny_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    one = scoring(words(400, 6))
    with torch.no_grad():
        logits = transformers_peer.load(tiny_path)(torch.tensor([one.token_ids])).logits[0].double()
    expected = torch.log_softmax(logits, 1)[torch.arange(399), one.token_ids[1:]].numpy()
    assert np.abs(scores_of(one, driver.run(one)[0]) - expected).max() < NOISE


# Batches


@pytest.mark.parametrize("chunk", [1, 7, EXTRA_OUTPUTS, 200])
def test_chunks_do_not_matter(driver: Driver, cold: Reference, chunk: int) -> None:
    driver.slowly(chunk)
    jobs = [scoring(words(100, 7)), scoring(words(90, 8), start=33)]
    for one, outcome in zip(jobs, driver.run(*jobs), strict=True):
        check_scores(cold, one, outcome)
        assert max(len(event.logprobs) for event in chunks_of(outcome)) <= min(chunk, EXTRA_OUTPUTS)


def test_scoring_beside_streams_with_drafts(machine: Machine, cold: Reference) -> None:
    driver = guessing(machine)
    streams = driver.submit(job(DOUBTFUL, 80), job(words(30, 16), 80))
    driver.step(2)
    driver.slowly(20)
    jobs = [scoring(words(200, 9)), scoring(words(200, 10), start=90, top=2)]
    ids = driver.submit(*jobs)
    kinds: list[set[type[EngineEvent]]] = []
    while not all(driver.outcomes[run_id].is_done for run_id in (*ids, *streams)):
        driver.step()
        kinds.append({type(outcome.events[-1]) for outcome in driver.outcomes.values()})
        assert driver.scheduler._batch.outputs <= machine.sequences + EXTRA_OUTPUTS
    assert any({Scored, Step} <= kind for kind in kinds)
    assert driver.scheduler.stats.accepted_tokens
    for run_id, one in zip(ids, jobs, strict=True):
        check_scores(cold, one, driver.outcomes[run_id])
    driver.close()


def test_scoring_does_not_change_what_steps_are_thought_to_cost(driver: Driver) -> None:
    driver.run(scoring(words(400, 11)))
    assert not driver.scheduler._step_cost._sizes


# What is reused and kept


def test_a_context_is_computed_once(driver: Driver, cold: Reference) -> None:
    jobs = [scoring(PREFIX + words(20, seed), start=len(PREFIX)) for seed in range(4)]
    outcomes = driver.run(*jobs[:2])  # at the same time
    outcomes += driver.run(jobs[2])
    outcomes += driver.run(jobs[3])
    assert [outcome.cached for outcome in outcomes] == [0, 599, 599, 599]
    assert driver.prefilled == 620 + 3 * 21
    for one, outcome in zip(jobs, outcomes, strict=True):
        check_scores(cold, one, outcome)


def test_no_more_is_reused_than_lies_before_the_scores(driver: Driver, cold: Reference) -> None:
    driver.run(job(PREFIX))
    for start in (1, 2, 256, 257, 599):
        one = scoring(PREFIX, start)
        (outcome,) = driver.run(one)
        assert outcome.cached == start - 1
        check_scores(cold, one, outcome)


def test_a_job_may_follow_one_that_is_scored(driver: Driver, cold: Reference) -> None:
    driver.slowly(64)
    one = scoring(PREFIX)
    ids = driver.submit(one, job([*PREFIX, 5], 3))
    driver.finish()
    assert driver.outcomes[ids[1]].cached == 600
    check_scores(cold, one, driver.outcomes[ids[0]])


def test_scored_tokens_are_not_kept(driver: Driver) -> None:
    driver.run(scoring(PREFIX))
    assert driver.prefixes.ram_bytes == 0
    driver.run(scoring(PREFIX, start=301))
    assert driver.run(job(PREFIX))[0].cached == 300


def test_models_whose_memory_is_never_reused(machine: Machine, cold: Reference) -> None:
    machine.states.reuse, before = "never", machine.states.reuse
    try:
        driver = machine.drive()
        for _ in range(2):
            one = scoring(words(200, 12), start=100)
            (outcome,) = driver.run(one)
            assert outcome.cached == 0
            check_scores(cold, one, outcome)
    finally:
        machine.states.reuse = before


# Interruptions


@pytest.mark.parametrize("start", [1, 100, 250])
def test_preempted_midway(machine: Machine, cold: Reference, start: int) -> None:
    driver = machine.drive(sequences=1)
    driver.slowly(40)
    one = scoring(words(300, 13), start, priority="batch")
    (run_id,) = driver.submit(one)
    for _ in range(3):
        driver.step(2)
        driver.submit(job(words(20, 14), 2))
        driver.step(3)
    driver.finish()
    assert driver.scheduler.preempted == {run_id}
    check_scores(cold, one, driver.outcomes[run_id])


def test_cancelled_midway(driver: Driver, cold: Reference) -> None:
    driver.slowly(50)
    (run_id,) = driver.submit(scoring(words(300, 15), top=3))
    driver.step(3)
    assert chunks_of(driver.outcomes[run_id])
    driver.scheduler.cancel(run_id)
    driver.check_idle()
    one = scoring(words(300, 15))
    check_scores(cold, one, driver.run(one)[0])


# Bad input


@pytest.mark.parametrize(
    ("tokens", "options", "reason"),
    [
        ([5], Scoring(), "two tokens"),
        ([5, 6, 7], Scoring(start=0), "from 1 to 2, not 0"),
        ([5, 6, 7], Scoring(start=3), "from 1 to 2, not 3"),
        ([5, 6, 7], Scoring(top=-2), "not -2"),
    ],
)
def test_fields_out_of_range(tokens: list[int], options: Scoring, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_scoring(job(tokens, 0, scoring=options))


def test_an_answer_is_not_scored() -> None:
    for wrong in (job([5, 6], 1, scoring=Scoring()), job([5, 6], 0, scoring=Scoring(), grammar='start: "a"')):
        with pytest.raises(ValueError, match="no answer"):
            check_scoring(wrong)


def test_what_the_model_does_not_have(driver: Driver) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        driver.scheduler.submit(1, scoring([5, tiny.VOCABULARY]))
    with pytest.raises(ValueError, match="fewer than top"):
        driver.scheduler.submit(1, scoring([5, 6], top=tiny.VOCABULARY + 1))
    driver.check_idle()
    (outcome,) = driver.run(scoring([5, 6], top=tiny.VOCABULARY))
    assert sorted(chunks_of(outcome)[0].top_ids[0]) == list(range(tiny.VOCABULARY))
