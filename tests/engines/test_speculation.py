"""Guesses change how many steps there are, and nothing else."""

import numpy as np
import pytest
import tiny
from driving import STARTER_NOISE, Machine, doubtful, guessing, job
from outcomes import starter_path, starter_tokenizer
from reference import Reference

from commonweight.engines.contract import Sampling

pytest_plugins = "machines"


ITEMS = (
    "amber, birch, cedar, daisy, elder, fern, garlic, hazel, iris, juniper, kale, lily, maple, nettle, oak, poppy"
)
HOT = 1.2
"""A temperature at which the starter model copies most of the time."""


@pytest.fixture(scope="module")
def copying(starter: Machine) -> tuple[list[int], list[int]]:
    """A prompt whose answer is in it, and that answer, computed token by token."""
    prompt = starter_tokenizer().encode(f"{ITEMS}.\n{ITEMS}.\n{ITEMS}.\namber, birch, cedar,")
    (outcome,) = starter.drive().run(job(prompt, 40))
    return prompt, outcome.tokens


def test_guesses_change_nothing_but_the_number_of_steps(
    starter: Machine, copying: tuple[list[int], list[int]]
) -> None:
    prompt, expected = copying
    driver = guessing(starter)
    (outcome,) = driver.run(job(prompt, 40))
    assert outcome.tokens == expected
    stats = driver.scheduler.stats
    assert stats.accepted_tokens > 20
    assert stats.steps < 20
    assert stats.generated_tokens == 40
    assert stats.prefilled_tokens == len(prompt)


@pytest.mark.parametrize("place", [4, 14])
def test_a_stop_token_within_a_guess(starter: Machine, copying: tuple[list[int], list[int]], place: int) -> None:
    prompt, expected = copying
    comma = max(set(expected), key=expected.count)
    stop = next(token for token in expected[place:] if token != comma)
    end = expected.index(stop) + 1
    driver = guessing(starter)
    (outcome,) = driver.run(job(prompt, 40, stop_ids=[stop]))
    assert outcome.tokens == expected[:end]
    assert outcome.finish.reason == "stop"
    assert driver.scheduler.stats.steps < end
    # What was guessed behind it is not kept.
    (again,) = driver.run(job([*prompt, *expected], 0))
    assert len(prompt) + end - 1 <= again.cached <= len(prompt) + end


@pytest.mark.parametrize("most", [1, 2, 13])
def test_the_limit_within_a_guess(starter: Machine, copying: tuple[list[int], list[int]], most: int) -> None:
    prompt, expected = copying
    (outcome,) = guessing(starter).run(job(prompt, most))
    assert outcome.tokens == expected[:most]
    assert outcome.finish.reason == "length"


def test_log_probabilities_of_guesses(starter: Machine, copying: tuple[list[int], list[int]]) -> None:
    prompt, expected = copying
    reference = Reference(starter_path(), 512)
    cold, _ = reference.read(prompt + expected, len(prompt) - 1)
    reference.close()
    (outcome,) = guessing(starter).run(job(prompt, 40, want_logprobs=True))
    assert outcome.tokens == expected
    assert outcome.logprobs == pytest.approx(
        [cold[i, token] for i, token in enumerate(expected)], abs=STARTER_NOISE
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_draws_the_same_with_and_without_guesses(
    starter: Machine, copying: tuple[list[int], list[int]], seed: int
) -> None:
    wanted = job(copying[0], 40, sampling=Sampling(temperature=HOT, seed=seed))
    (plain,) = starter.drive().run(wanted)
    driver = guessing(starter)
    (outcome,) = driver.run(wanted)
    assert outcome.tokens == plain.tokens
    stats = driver.scheduler.stats
    assert 0 < stats.accepted_tokens < stats.drafted_tokens


def test_many_streams_guess_side_by_side(starter: Machine, copying: tuple[list[int], list[int]]) -> None:
    prompt, expected = copying
    jobs = [job(prompt[start:], 30) for start in (0, 3, 6)]
    driver = guessing(starter)
    outcomes = driver.run(*jobs)
    for outcome in outcomes:
        assert outcome.tokens == expected[:30]
    assert driver.scheduler.stats.accepted_tokens > 60


def test_guesses_leave_the_distribution_as_it_is(machine: Machine) -> None:
    count = 800
    plain = machine.drive().run(*[doubtful(4, seed) for seed in range(count)])
    driver = guessing(machine)
    guessed = driver.run(*[doubtful(4, count + seed) for seed in range(count)])
    stats = driver.scheduler.stats
    assert 0.1 < stats.accepted_tokens / stats.drafted_tokens < 0.9
    for place in range(4):
        one, other = (
            np.bincount([outcome.tokens[place] for outcome in outcomes], minlength=tiny.VOCABULARY) / count
            for outcomes in (plain, guessed)
        )
        # Total variation of two samples; a guess that was let through too often would show as half of its share.
        assert np.abs(one - other).sum() / 2 < 0.12
