"""What the prefix store holds for later jobs."""

import pytest
from driving import PREFIX, Driver, Machine, job, words

from commonweight.engines.contract import CacheMark, CacheWrites, Job

pytest_plugins = "machines"


def test_the_second_turn_computes_exactly_its_new_part(driver: Driver) -> None:
    prompt = words(300)
    (first,) = driver.run(job(prompt, 40))
    before = driver.prefilled
    second = [*prompt, *first.tokens, *words(25, 1)]
    (outcome,) = driver.run(job(second, 10))
    # The last token that was drawn has never been computed.
    assert outcome.cached == 339
    assert driver.prefilled - before == 26
    (third,) = driver.run(job([*second, *outcome.tokens, *words(5, 2)], 10))
    assert third.cached == len(second) + 9


@pytest.mark.parametrize("keep", [0, 100, 300, 310, 319])
def test_tokens_that_were_not_used_are_not_kept(driver: Driver, keep: int) -> None:
    prompt = words(300)
    (run_id,) = driver.submit(job(prompt, 100))
    while len(driver.outcomes[run_id].tokens) < 30:
        driver.step()
    said = driver.outcomes[run_id].tokens
    driver.scheduler.cancel(run_id, keep)
    (again,) = driver.run(job([*prompt, *said, 5], 1))
    # Whole blocks of the prompt were there for others already.
    assert again.cached == max(keep, 256)


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("keep", [300, 310, 520])
def test_nor_are_those_that_a_preempted_job_had_drawn(driver: Driver, keep: int, goes_on: bool) -> None:
    prompt = words(300)
    said = preempted(driver, job(prompt, 300, priority="batch"), goes_on)
    driver.scheduler.cancel(0, keep)
    driver.finish()
    (again,) = driver.run(job([*prompt, *said, 5], 1))
    assert again.cached == keep
    assert driver.scheduler.stats.preemptions == 1


def test_nor_where_states_cannot_be_cut(snapshotting: Machine) -> None:
    driver = snapshotting.drive()
    prompt = words(300)
    said = preempted(driver, job(prompt, 300, priority="batch"), goes_on=False)
    driver.scheduler.cancel(0, 310)
    driver.finish()
    (again,) = driver.run(job([*prompt, *said, 5], 1))
    assert again.cached == 299


def preempted(driver: Driver, one: Job, goes_on: bool) -> list[int]:
    """Let a job be preempted after 240 tokens, and perhaps let in again; what it has said until then."""
    (run_id,) = driver.submit(one)
    outcome = driver.outcomes[run_id]
    while len(outcome.tokens) < 240:
        driver.step()
    driver.submit(*[job(words(50, 200 + i), 5) for i in range(4)])
    driver.step()
    assert run_id not in driver.inside
    while goes_on and len(outcome.tokens) < 250:
        driver.step()
    return outcome.tokens


def written(driver: Driver, tokens: list[int], *marks: CacheMark) -> tuple[int, int, int]:
    """What a job with these marks writes, and how much was cached."""
    (outcome,) = driver.run(job(tokens, 2, cache_marks=list(marks)))
    counts = outcome.prefilled.written
    return counts.five_minutes, counts.one_hour, outcome.cached


def test_marks_tell_what_was_written(driver: Driver) -> None:
    prompt = words(1400)
    assert written(driver, prompt[:700], CacheMark(300, "1h"), CacheMark(650)) == (350, 300, 0)
    assert written(driver, prompt[:700], CacheMark(300, "1h"), CacheMark(650)) == (0, 0, 699)
    # Of 700 that were there and of 250 new ones, in one block and in two.
    assert written(driver, prompt[:950], CacheMark(650), CacheMark(750), CacheMark(760, "1h")) == (50, 10, 700)
    assert written(driver, prompt[:1200], CacheMark(940), CacheMark(1200)) == (250, 0, 950)
    assert written(driver, [*prompt[:1200], *words(190, 1)], CacheMark(1390, "1h")) == (0, 190, 1200)


def test_marks_at_the_ends(driver: Driver) -> None:
    assert written(driver, words(20), CacheMark(0), CacheMark(20)) == (20, 0, 0)
    assert written(driver, words(512, 1), CacheMark(256), CacheMark(512, "1h")) == (256, 256, 0)
    assert written(driver, words(30, 2)) == (0, 0, 0)


def test_a_mark_behind_what_a_running_job_shares(driver: Driver) -> None:
    outcomes = driver.run(
        job(PREFIX + words(10, 1), 5, cache_marks=[CacheMark(600)]),
        job(PREFIX + words(20, 2), 5, cache_marks=[CacheMark(600), CacheMark(620, "1h")]),
    )
    assert [outcome.prefilled.written for outcome in outcomes] == [CacheWrites(600, 0), CacheWrites(0, 20)]


def test_marked_prefixes_survive_pressure(machine: Machine) -> None:
    driver = machine.drive(ram=6 * machine.bytes_of(256))
    driver.run(job(words(512), 1, cache_marks=[CacheMark(512)]))
    for seed in range(1, 8):
        driver.run(job(words(512, seed), 1))
    assert driver.run(job(words(512), 1))[0].cached == 511
    assert driver.run(job(words(512, 1), 1))[0].cached == 0


def test_marks_never_stand_in_the_way(machine: Machine) -> None:
    driver = machine.drive(ram=6 * machine.bytes_of(256))
    for seed in range(8):
        assert written(driver, words(512, seed), CacheMark(512)) == (512, 0, 0)
    assert driver.run(job(words(512, 7), 1))[0].cached == 511


def test_what_is_preempted_is_kept_though_all_else_is_marked(machine: Machine) -> None:
    driver = machine.drive(ram=6 * machine.bytes_of(256))
    for seed in range(3):
        driver.run(job(words(512, seed), 1, cache_marks=[CacheMark(512)]))
    before = driver.prefilled
    driver.submit(job(words(300, 10), 20, priority="batch"))
    driver.step(3)
    driver.run(*[job(words(30, 20 + i), 5) for i in range(4)])
    assert driver.scheduler.preempted == {3}
    assert driver.prefilled - before == 300 + 4 * 30


def test_a_remembered_prefix_comes_back_when_it_is_its_turn(driver: Driver) -> None:
    prompts = [words(400, 20 + n) for n in range(3)]
    driver.run(*(job(prompt, 1) for prompt in prompts))
    driver.slowly(50)
    before = driver.scheduler.stats.ram_tokens
    late = driver.submit(*(job(prompt + words(120, 5), 40) for prompt in prompts))
    driver.step()
    # Masked cells cost time: those of the second and third are not there while the first is read.
    assert driver.scheduler.stats.ram_tokens - before == 400
    driver.finish()
    assert driver.scheduler.stats.ram_tokens - before == 1200
    assert all(driver.outcomes[run_id].cached == 400 for run_id in late)


def test_jobs_that_only_fill_the_cache(driver: Driver) -> None:
    first, second = (driver.run(job(words(400), 0))[0] for _ in range(2))
    for outcome, expected in ((first, 0), (second, 399)):
        outcome.check_order()
        assert (outcome.tokens, outcome.finish.reason, outcome.cached) == ([], "length", expected)


def test_turns_go_on_where_states_cannot_be_cut(snapshotting: Machine) -> None:
    driver = snapshotting.drive()
    prompt = words(300)
    (first,) = driver.run(job(prompt, 40, cache_marks=[CacheMark(200)]))
    assert first.prefilled.written == CacheWrites(200, 0)
    (second,) = driver.run(job([*prompt, *first.tokens, *words(25, 1)], 10))
    (branch,) = driver.run(job([*prompt[:250], *words(25, 2)], 10))
    assert [second.cached, branch.cached] == [339, 200]
    assert driver.prefilled == 300 + 26 + 75


@pytest.mark.parametrize("marks", [[], [CacheMark(300)]])
def test_the_same_prompt_again_computes_one_row_where_states_cannot_be_cut(
    snapshotting: Machine, marks: list[CacheMark]
) -> None:
    driver = snapshotting.drive()
    first, second = (driver.run(job(words(300), 5, cache_marks=marks))[0] for _ in range(2))
    assert [first.cached, second.cached] == [0, 299]
    assert driver.prefilled == 300 + 1
    assert first.tokens == second.tokens
    assert first.prefilled.written == CacheWrites(299 if marks else 0)
    assert second.prefilled.written == CacheWrites()
