"""Who is in: the queue, priorities, tenants, making room, leaving."""

import itertools

import pytest
from driving import Driver, Machine, counting, job, words

from commonweight.engines.llama.scheduler import sequence as run

pytest_plugins = "machines"


def test_streams_that_outgrow_the_cells_lose_nothing(starter: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three streams of 110 + 90 tokens want 600 cells of 512: one must go to RAM and come back.
    monkeypatch.setattr(run, "RESERVED_CELLS", 8)
    jobs = [job(counting(start, 110), 90) for start in (1, 30, 60)]
    alone = starter.drive(sequences=1)
    expected = [outcome.tokens for outcome in alone.run(*jobs)]
    crowd = starter.drive()
    outcomes = crowd.run(*jobs)
    for outcome in outcomes:
        outcome.check_order()
    # Kernels differ by batch shape; a model that counts is sure enough of every token not to mind.
    assert [outcome.tokens for outcome in outcomes] == expected
    assert crowd.scheduler.stats.preemptions > 0
    assert crowd.prefilled == 3 * 110


def test_a_preempted_stream_is_computed_again_where_there_is_no_ram(
    narrow: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RESERVED_CELLS", 8)
    jobs = [job(words(300, seed), 150) for seed in range(3)]
    alone = narrow.drive(sequences=1)
    expected = [outcome.tokens for outcome in alone.run(*jobs)]
    crowd = narrow.drive(ram=0)
    outcomes = crowd.run(*jobs)
    for outcome, other in zip(outcomes, expected, strict=True):
        outcome.check_order()
        assert len(outcome.tokens) == len(other)
        assert outcome.tokens[:20] == other[:20]
    assert crowd.scheduler.stats.preemptions > 0
    assert crowd.prefilled > 3 * 300


@pytest.mark.parametrize("order", list(itertools.permutations(range(5)))[::7])
def test_cancelling_frees_the_cells_wherever_the_job_is(machine: Machine, order: tuple[int, ...]) -> None:
    driver = machine.drive()
    driver.submit(job(words(20), 100))
    driver.step(3)
    driver.slowly(40)
    shared = words(300, 1)
    driver.submit(*[job(shared + words(5, seed), 5) for seed in range(4)])
    driver.step(2)
    leader, follower = driver.running(1), driver.running(2)
    assert driver.running(0).is_streaming
    assert leader.computed == 80
    assert [other for other, _ in follower.leaders] == [leader]
    assert driver.inside == [0, 1, 2, 3]
    for run_id in (*order, 1, 99):  # twice, never there
        driver.scheduler.cancel(run_id)
        driver.check()
    driver.check_idle()


def test_what_is_remembered_takes_cells_too(narrow: Machine) -> None:
    """Jobs whose prompts come from RAM are let in only as far as there is room for those."""
    driver = narrow.drive()
    jobs = [job(words(400, seed), 20) for seed in range(4)]
    for one in jobs:
        driver.run(one)
    outcomes = driver.run(*jobs)
    assert [outcome.cached for outcome in outcomes] == [399] * 4
    assert driver.scheduler.stats.preemptions == 0
    assert driver.prefilled == 4 * 400 + 4


def test_interactive_jobs_overtake_batch_jobs(driver: Driver) -> None:
    batch = driver.submit(*[job(words(50, seed), 20, priority="batch") for seed in range(6)])
    driver.step(2)
    assert driver.inside == batch[:4]
    (urgent,) = driver.submit(job(words(50, 9), 20))
    driver.step()
    assert driver.inside == [*batch[:3], urgent]
    assert driver.scheduler.preempted == {batch[3]}
    driver.finish()
    finished = [len(outcome.tokens) for outcome in driver.outcomes.values()]
    assert finished == [20] * 7
    assert driver.prefilled == 7 * 50


def test_an_urgent_job_has_a_place_that_no_other_takes(narrow: Machine) -> None:
    driver = narrow.drive(reserved=1)
    streams = driver.submit(*[job(words(20, seed), 30) for seed in range(4)])
    driver.step(2)
    assert driver.inside == streams[:3]
    (urgent,) = driver.submit(job(words(20, 9), 2, is_urgent=True))
    driver.step()
    assert driver.inside == [*streams[:3], urgent]
    driver.finish()
    assert driver.scheduler.stats.preemptions == 0
    assert [len(outcome.tokens) for outcome in driver.outcomes.values()] == [30] * 4 + [2]


def test_an_urgent_job_takes_the_place_of_one_of_its_tenant(driver: Driver) -> None:
    tenants = ["a", "b", "b", "c"]
    streams = driver.submit(*[job(words(20, seed), 30, tenant=one) for seed, one in enumerate(tenants)])
    driver.step(2)
    assert driver.inside == streams
    urgent = driver.submit(*[job(words(20, 9 + i), 2, tenant="b", is_urgent=True) for i in range(2)])
    driver.step()
    assert driver.inside == [0, 3, *urgent]
    (other,) = driver.submit(job(words(20, 12), 2, tenant="d", is_urgent=True))
    driver.step()
    assert other in driver.inside, "without one of its own, that of another"
    assert not driver.scheduler.preempted.intersection([*urgent, other])
    driver.finish()
    assert [len(outcome.tokens) for outcome in driver.outcomes.values()] == [30] * 4 + [2] * 3


def test_a_tenant_with_many_jobs_does_not_keep_another_out(driver: Driver) -> None:
    driver.submit(*[job(words(50, seed), 200, tenant="many") for seed in range(12)])
    driver.step(3)
    few = driver.submit(*[job(words(50, seed), 5, tenant="few") for seed in range(3)])
    driver.step()
    # Two of four each.
    assert [run_id for run_id in driver.inside if run_id in few] == few[:2]
    assert driver.scheduler.stats.preemptions == 2
    while not all(driver.outcomes[run_id].is_done for run_id in few):
        driver.step()
    assert not any(driver.outcomes[run_id].is_done for run_id in range(12))


def test_a_tenant_that_was_served_more_waits_without_a_quarrel(driver: Driver) -> None:
    """It has fewer jobs in than its share, but those that hold more have the better claim."""
    driver.submit(job(words(1000), 100, tenant="greedy"))
    driver.slowly(20)
    driver.step(2)
    driver.submit(*[job(words(30, seed), 100, tenant="modest") for seed in range(3)])
    driver.step(2)
    driver.slowly(200)
    driver.step(3)
    fairness = driver.scheduler._fairness
    assert fairness.get_counter("greedy") > fairness.get_counter("modest") + 100
    driver.submit(*[job(words(50, seed), 5, tenant="greedy") for seed in (7, 8)])
    driver.step()
    assert driver.inside == [0, 1, 2, 3]
    driver.finish()
    assert all(outcome.is_done for outcome in driver.outcomes.values())


def test_equal_claims_do_not_take_turns_in_preempting_each_other(driver: Driver) -> None:
    driver.submit(*[job(words(50, seed), 50, tenant="many") for seed in range(4)])
    driver.step(3)
    (one,) = driver.submit(job(words(50), 5, tenant="one"))
    served = driver.scheduler._fairness._served
    served["one"] = served["many"]
    driver.step()
    assert driver.inside == [0, 1, 2, one]
    driver.finish()
    assert driver.scheduler.stats.preemptions == 1


def test_nobody_starves(driver: Driver) -> None:
    """Among tenants with endless work, each is served about as many rows."""
    tenants = ["a", "b", "c", "d", "e", "f"]
    sizes = {tenant: 20 + 30 * i for i, tenant in enumerate(tenants)}
    for tenant, length in sizes.items():
        driver.submit(*[job(words(length, seed), 5, tenant=tenant) for seed in range(80)])
    for _ in range(150):
        driver.step()
    served = [driver.scheduler._fairness.get_counter(tenant) for tenant in tenants]
    assert min(served) > 0.6 * max(served)


def test_a_large_job_is_not_overtaken_for_ever(narrow: Machine) -> None:
    driver = narrow.drive()
    driver.submit(*[job(words(100, seed), 30) for seed in range(3)])
    driver.step(2)
    (large,) = driver.submit(job(words(900, 100), 5))
    small: list[int] = []
    for seed in range(4, 200):
        if driver.outcomes[large].events:
            break
        small += driver.submit(job(words(100, seed), 30))
        driver.step()
    assert driver.outcomes[large].events
    assert not any(driver.outcomes[run_id].events for run_id in small)
    driver.finish()


@pytest.mark.parametrize("token", [1 << 40, -1, 100_000])
def test_a_token_that_is_none_leaves_no_trace(driver: Driver, token: int) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        driver.scheduler.submit(1, job([5, token]))
    driver.check_idle()
