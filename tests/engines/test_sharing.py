"""What running jobs take over from each other."""

import pytest
from driving import PREFIX, Driver, Machine, job, probed, words

from commonweight.engines.contract import Job
from commonweight.engines.llama.scheduler import sequence as run

pytest_plugins = "machines"


def tails(count: int, length: int = 10) -> list[Job]:
    return [job(PREFIX + words(length, seed), 5) for seed in range(count)]


def test_jobs_with_one_beginning_compute_it_once(driver: Driver) -> None:
    driver.submit(*tails(4))
    driver.finish()
    assert driver.prefilled == 600 + 4 * 10
    assert [outcome.cached for outcome in driver.outcomes.values()] == [0, 600, 600, 600]
    driver.check_honest()


@pytest.mark.parametrize("progress", [1, 3, 7, 40])
def test_also_when_they_come_later(driver: Driver, progress: int) -> None:
    """While the first is in the middle, has just finished its prompt, or is long gone."""
    driver.slowly(100)
    one, *others = tails(4)
    driver.submit(one)
    for _ in range(progress):
        driver.step()
    driver.submit(*others)
    driver.finish()
    assert driver.prefilled == 600 + 4 * 10
    driver.check_honest()


def test_more_jobs_than_sequences_compute_it_once(driver: Driver) -> None:
    driver.submit(*tails(11))
    driver.finish()
    assert driver.prefilled == 600 + 11 * 10
    driver.check_honest()


def test_the_same_prompt_many_times_computes_one_more_row_each(driver: Driver) -> None:
    driver.submit(*[job(PREFIX, 3)] * 4)
    driver.finish()
    assert driver.prefilled == 600 + 3
    assert len({tuple(outcome.tokens) for outcome in driver.outcomes.values()}) == 1
    driver.check_honest()


def test_a_cancelled_leader_hands_on(driver: Driver) -> None:
    driver.slowly(128)
    driver.submit(*tails(4))
    driver.step(3)
    driver.scheduler.cancel(0)
    driver.step()
    assert driver.outcomes[1].cached == 3 * 128
    driver.scheduler.cancel(1)
    driver.finish()
    assert [driver.outcomes[run_id].cached for run_id in (2, 3)] == [4 * 128, 600]
    assert driver.prefilled == 600 + 2 * 10
    driver.check_honest()


def test_followers_of_several_lengths_and_chains_of_leaders(driver: Driver) -> None:
    driver.slowly(50)
    ends = (600, 250, 450, 300)
    driver.submit(*[job(PREFIX[:end] + words(20, seed), 5) for seed, end in enumerate(ends)])
    driver.finish()
    assert driver.prefilled == 600 + 4 * 20
    driver.check_honest()


def test_a_chain_of_leaders_one_of_which_gives_up(driver: Driver) -> None:
    driver.slowly(50)
    driver.submit(*[job(PREFIX[: 150 * (i + 1)], 5) for i in range(4)])
    driver.step(4)
    driver.scheduler.cancel(1)
    driver.finish()
    assert driver.prefilled == 600
    driver.check_honest()


def test_who_has_more_already_does_not_wait_for_less(driver: Driver) -> None:
    """Of two leaders, the one with the longer beginning may be the faster."""
    driver.slowly(128)
    driver.submit(job(PREFIX, 5), probed(PREFIX[:400] + words(10, 1)), job(PREFIX + words(10, 2), 5))
    driver.step(7)
    assert driver.running(1).computed < 400
    assert driver.outcomes[2].cached == 600
    driver.finish()
    driver.check_honest()


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7, 9])
def test_leaders_leave_at_any_time_where_states_cannot_be_cut(snapshotting: Machine, steps: int) -> None:
    driver = snapshotting.drive()
    driver.slowly(25)
    driver.submit(*[job(PREFIX[:end] + words(30, seed), 5) for seed, end in enumerate((40, 100, 150))])
    driver.step(steps)
    driver.scheduler.cancel(0)
    driver.check()
    driver.finish()
    # At most what was behind the end that the others wait for is computed again.
    assert driver.prefilled <= 150 + 3 * 30
    driver.check_honest()


def test_a_preempted_leader_hands_on(driver: Driver) -> None:
    driver.slowly(100)
    driver.submit(*[job(PREFIX + words(10, seed), 5, priority="batch") for seed in range(4)])
    driver.step(3)
    driver.submit(*[job(words(50, 200 + i), 5) for i in range(4)])
    driver.step()
    assert driver.inside == [4, 5, 6, 7]
    driver.finish()
    assert driver.scheduler.stats.preemptions == 4
    assert driver.prefilled == 600 + 4 * 10 + 4 * 50
    for outcome in driver.outcomes.values():
        outcome.check_order()


def test_who_follows_and_who_leads_may_have_to_make_room_together(
    narrow: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RESERVED_CELLS", 0)
    driver = narrow.drive()
    driver.submit(job(words(300), 400))
    driver.step(2)
    driver.slowly(1)
    driver.submit(*[job(PREFIX[:400] + words(10, seed), 5) for seed in range(3)])
    driver.step()
    driver.scheduler.cancel(1)
    while not driver.scheduler.preempted:
        driver.step()
        assert driver.inside == [0, 2, 3] or driver.scheduler.preempted
    driver.finish()
    for outcome in (driver.outcomes[run_id] for run_id in (0, 2, 3)):
        outcome.check_order()
        assert outcome.is_done


def test_who_follows_pulls_its_leader(driver: Driver) -> None:
    driver.slowly(128)
    driver.submit(job(words(20, 5), 60))
    driver.step(2)
    driver.submit(job(PREFIX + words(10, 1), 5, priority="batch"))
    driver.submit(job(words(600, 6), 5))
    driver.step(4)
    assert driver.running(1).computed == 0
    driver.submit(job(PREFIX + words(10, 2), 5))
    driver.step(4)
    assert driver.running(1).computed == 2 * 128
    driver.finish()


def test_a_batch_job_stays_one_when_its_leader_goes(driver: Driver) -> None:
    driver.slowly(100)
    driver.submit(tails(1)[0])
    driver.submit(*[job(PREFIX + words(10, seed), 5, priority="batch") for seed in (1, 2, 3)])
    driver.step(2)
    driver.scheduler.cancel(0)
    driver.submit(*[job(words(50, 200 + i), 5) for i in range(4)])
    driver.step()
    assert driver.inside == [4, 5, 6, 7]
    driver.finish()
    assert driver.prefilled == 600 + 3 * 10 + 4 * 50


def test_nothing_is_shared_between_tenants(driver: Driver) -> None:
    for _ in range(2):
        driver.submit(*[job(PREFIX + words(10, 1), 5, tenant=tenant) for tenant in ("one", "other")])
        driver.finish()
    assert driver.prefilled == 2 * (610 + 1)
    assert [outcome.cached for outcome in driver.outcomes.values()] == [0, 0, 609, 609]
    driver.check_honest()


def test_what_runs_is_shared_though_more_of_it_is_in_ram(driver: Driver) -> None:
    """Sessions that begin alike and were heard before hold one copy of their beginning in the cells."""
    jobs = [job(PREFIX + words(100, seed), 30) for seed in range(3)]
    driver.submit(*jobs)
    driver.finish()
    driver.submit(*jobs)
    driver.step(3)
    assert driver.scheduler.stats.cells_used < 600 + 3 * 140
    driver.finish()
    driver.check_honest()
    assert driver.prefilled == 600 + 3 * 100 + 3
