"""Scores of probes, wherever the tokens come from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from driving import PREFIX, PROBE, Driver, Machine, doubtful, guessing, job, probed, words
from machines import CELLS
from outcomes import Outcome
from reference import Reference, random_probe

from commonweight.engines.contract import Job, Probe, Step
from commonweight.engines.llama.scheduler import sequence as run

pytest_plugins = "machines"


@pytest.fixture(scope="module")
def cold(tiny_path: Path) -> Iterator[Reference]:
    reference = Reference(tiny_path, CELLS, PROBE)
    yield reference
    reference.close()


def check_scores(cold: Reference, one: Job, outcome: Outcome) -> None:
    got = outcome.scores(PROBE.heads)
    _, expected = cold.read(one.token_ids + outcome.tokens, len(one.token_ids))
    assert len(got) == len(one.token_ids) + len(outcome.tokens) - 1
    assert np.abs(got - expected[: len(got)]).max() < 0.1 * expected.std()
    # The first token was drawn after the last of the prompt.
    first = outcome.events[2]
    assert isinstance(first, Step)
    assert first.scores == got[len(one.token_ids) - 1].tobytes()


def test_scores_do_not_depend_on_what_was_cached(driver: Driver, cold: Reference) -> None:
    jobs = [probed(PREFIX + words(10, seed)) for seed in range(3)]
    outcomes = driver.run(*jobs)
    assert driver.prefilled == 600 + 3 * 10
    again = driver.run(*jobs)
    assert driver.prefilled == 600 + 3 * 10 + 3
    for one, outcome in zip(jobs * 2, outcomes + again, strict=True):
        check_scores(cold, one, outcome)


def test_scores_of_preempted_streams(narrow: Machine, cold: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RESERVED_CELLS", 8)
    driver = narrow.drive()
    jobs = [probed(words(300, seed), 150) for seed in range(3)]
    outcomes = driver.run(*jobs)
    assert driver.scheduler.stats.preemptions
    for one, outcome in zip(jobs, outcomes, strict=True):
        check_scores(cold, one, outcome)


def test_scores_of_guesses(machine: Machine, cold: Reference) -> None:
    driver = guessing(machine)
    jobs = [doubtful(8, seed) for seed in range(10)]
    for one, outcome in zip(jobs, driver.run(*jobs), strict=True):
        check_scores(cold, one, outcome)
    assert 0 < driver.scheduler.stats.accepted_tokens < driver.scheduler.stats.drafted_tokens


def test_a_block_without_scores_is_a_miss_for_a_probe(driver: Driver, cold: Reference) -> None:
    plain, one = job(PREFIX, 3), probed(PREFIX, 3)
    driver.run(plain)
    (first,) = driver.run(one)
    (second,) = driver.run(one)
    assert [first.cached, second.cached, driver.run(plain)[0].cached] == [0, 599, 599]
    for outcome in (first, second):
        check_scores(cold, one, outcome)


def test_scores_of_other_weights_are_a_miss(driver: Driver) -> None:
    other = random_probe([0, 1], 64, version="other", seed=1)
    for probe, expected in ((PROBE, 0), (other, 0), (PROBE, 599), (other, 599)):
        assert driver.run(job(PREFIX, 3, probe=probe))[0].cached == expected


def test_who_has_no_probe_may_follow_who_has_one_but_not_the_other_way(driver: Driver, cold: Reference) -> None:
    driver.slowly(100)
    driver.submit(probed(PREFIX), job([*PREFIX, 5, 6], 3), job(words(600, 9), 3), probed(words(600, 9)))
    driver.finish()
    assert [outcome.cached for outcome in driver.outcomes.values()] == [0, 600, 0, 0]
    check_scores(cold, probed(PREFIX), driver.outcomes[0])
    check_scores(cold, probed(words(600, 9)), driver.outcomes[3])


@pytest.mark.parametrize(
    "probe",
    [
        Probe(version="short", layers=[0], heads=3, weights=b"\0" * 12),
        Probe(version="deep", layers=[7], heads=1, weights=b"\0" * 256),
        Probe(version="none", layers=[], heads=1, weights=b""),
    ],
)
def test_a_probe_that_does_not_fit_leaves_no_trace(driver: Driver, probe: Probe) -> None:
    with pytest.raises(ValueError, match=probe.version):
        driver.scheduler.submit(1, job(words(10), probe=probe))
    driver.check_idle()
