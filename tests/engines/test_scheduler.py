"""The scheduler, step by step in this process: on the starter model where answers matter, else on a tiny one."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from driving import (
    GREEDY,
    Driver,
    Floats,
    Machine,
    Reference,
    Steady,
    cached,
    is_done,
    prefilled,
    random_probe,
    starter_path,
)
from outcomes import Outcome

from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import CacheMark, Job, Probe, Sampling, Step, Written
from commonweight.engines.llama import pace, run, scheduler
from commonweight.engines.llama.disk import Disk
from commonweight.engines.llama.files import fingerprint
from commonweight.engines.llama.pace import Pace
from commonweight.prompting import Tokenizer

CELLS = 2048
FEW = 1024
"""Cells of a machine where room is scarce."""

STARTER_NOISE = 0.5
"""More than log-probabilities of the starter model were seen to differ by between shapes of a batch (0.4)."""

PROBE = random_probe([0, 1], 64)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("models"), "llama")


@pytest.fixture(scope="module")
def machine(tiny_path: Path) -> Iterator[Machine]:
    machine = Machine(tiny_path, CELLS)
    yield machine
    machine.model.close()


@pytest.fixture(scope="module")
def narrow(tiny_path: Path) -> Iterator[Machine]:
    machine = Machine(tiny_path, FEW)
    yield machine
    machine.model.close()


@pytest.fixture(scope="module")
def snapshotting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Machine]]:
    """Models whose states cannot be cut anywhere."""
    folder = tmp_path_factory.mktemp("models")
    machines = {name: Machine(tiny.write(folder, name), FEW) for name in ("gemma3", "mamba", "lfm2")}
    yield machines
    for machine in machines.values():
        machine.model.close()


@pytest.fixture(scope="module")
def starter() -> Iterator[Machine]:
    machine = Machine(starter_path(), 512, sequences=3)
    yield machine
    machine.model.close()


@pytest.fixture
def driver(machine: Machine) -> Iterator[Driver]:
    driver = machine.drive()
    yield driver
    driver.close()


def words(length: int, seed: int = 0) -> list[int]:
    """Random tokens that no other seed begins with."""
    draw = random.Random(seed)
    return [3 + seed % 256, *draw.choices(range(3, tiny.VOCABULARY), k=length - 1)]


def job(tokens: list[int], max_tokens: int = 1, **options: object) -> Job:
    return Job(token_ids=tokens, max_tokens=max_tokens, **({"sampling": GREEDY} | options))  # type: ignore[arg-type]


def slowly(driver: Driver, chunk: int) -> None:
    """From now on, prompts are read in such chunks."""
    driver.scheduler._pace = Steady(chunk)


def check_honest(driver: Driver) -> None:
    """Every job was told exactly what needed no computing."""
    for run_id, outcome in driver.outcomes.items():
        if is_done(outcome):
            outcome.check_order()
            assert cached(outcome) + driver.scheduler.prompt_rows[run_id] == LENGTHS[id(outcome)]


LENGTHS: dict[int, int] = {}


def submit(driver: Driver, *jobs: Job) -> list[int]:
    """Queue jobs whose prompts :func:`check_honest` is to know."""
    ids = driver.submit(*jobs)
    for run_id, one in zip(ids, jobs, strict=True):
        LENGTHS[id(driver.outcomes[run_id])] = len(one.token_ids)
    return ids


# Streams


def counting(start: int, length: int) -> list[int]:
    tokenizer = Tokenizer(Gguf(starter_path()))
    return tokenizer.encode(" ".join(map(str, range(start, start + length))))[:length]


def test_streams_that_outgrow_the_cells_lose_nothing(starter: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three streams of 110 + 90 tokens want 600 cells of 512: one must go to RAM and come back.
    monkeypatch.setattr(run, "HEADROOM", 8)
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
    monkeypatch.setattr(run, "HEADROOM", 8)
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


def test_a_long_prompt_does_not_hold_up_a_stream(driver: Driver) -> None:
    (stream,) = driver.submit(job(words(10), 100))
    driver.step()
    slowly(driver, 50)
    (late,) = driver.submit(job(words(300, 1)))
    for _ in range(6):
        said = len(driver.outcomes[stream].tokens)
        driver.step()
        assert len(driver.outcomes[stream].tokens) == said + 1
        assert driver.scheduler._batch.rows == 51
    assert is_done(driver.outcomes[late])


def test_the_chunk_follows_the_pace(driver: Driver) -> None:
    driver.submit(job(words(10), 100))
    driver.step(3)
    driver.scheduler._pace = measured = Pace()
    for _ in range(pace.RECENT_STEPS):
        measured.observe(1, 1, 0.04)
        measured.observe(101, 1, 0.04 + 0.1)
    driver.submit(job(words(300, 1)))
    driver.scheduler.admit()
    driver.scheduler._fill()
    # CADENCE, less what the stream takes, at a millisecond a row.
    assert driver.scheduler._batch.rows == pytest.approx((scheduler.CADENCE - 0.04) / 0.001, abs=1)


def test_streams_and_long_chunks_take_turns(driver: Driver) -> None:
    streams = driver.submit(job(words(10), 100), job(words(12, 3), 100))
    driver.step(3)
    slowly(driver, 100)
    driver.submit(job(words(300, 1), 5))
    said = [len(driver.outcomes[stream].tokens) for stream in streams]
    rows = []
    for _ in range(6):
        driver.step()
        rows.append(driver.scheduler._batch.rows)
    assert rows == [100, 2, 100, 2, 100, 3]
    assert [len(driver.outcomes[stream].tokens) for stream in streams] == [count + 3 for count in said]


def test_a_prompts_last_rows_come_along(driver: Driver) -> None:
    driver.submit(job(words(10), 100))
    driver.step(2)
    slowly(driver, 100)
    (late,) = driver.submit(job(words(120, 1), 5))
    driver.step()
    assert driver.scheduler._batch.rows == 120
    assert len(driver.outcomes[late].tokens) == 1


def test_a_remembered_prefix_comes_back_when_it_is_its_turn(driver: Driver) -> None:
    prompts = [words(400, 20 + n) for n in range(3)]
    driver.run(*(job(prompt, 1) for prompt in prompts))
    slowly(driver, 50)
    before = driver.scheduler.stats.ram_tokens
    late = driver.submit(*(job(prompt + words(120, 5), 40) for prompt in prompts))
    driver.step()
    # Masked cells cost time: those of the second and third are not there while the first is read.
    assert driver.scheduler.stats.ram_tokens - before == 400
    driver.finish()
    assert driver.scheduler.stats.ram_tokens - before == 1200
    assert all(cached(driver.outcomes[run_id]) == 400 for run_id in late)


@pytest.mark.parametrize("order", list(itertools.permutations(range(5)))[::7])
def test_cancelling_frees_the_cells_wherever_the_job_is(machine: Machine, order: tuple[int, ...]) -> None:
    driver = machine.drive()
    driver.submit(job(words(20), 100))
    driver.step(3)
    slowly(driver, 40)
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


def test_log_probabilities_hardly_depend_on_company(starter: Machine) -> None:
    wanted = job(counting(1, 40), 12, want_logprobs=True)
    (alone,) = starter.drive().run(wanted)
    together, *_ = starter.drive().run(wanted, *[job(counting(50 * i, 20 + 9 * i), 20) for i in (1, 2)])
    assert together.logprobs == pytest.approx(alone.logprobs, abs=STARTER_NOISE)


def test_jobs_that_only_fill_the_cache(driver: Driver) -> None:
    first, second = (driver.run(job(words(400), 0))[0] for _ in range(2))
    for outcome, expected in ((first, 0), (second, 399)):
        outcome.check_order()
        assert (outcome.tokens, outcome.finish.reason, cached(outcome)) == ([], "length", expected)


# Who is in


def test_what_is_remembered_takes_cells_too(narrow: Machine) -> None:
    """Jobs whose prompts come from RAM are let in only as far as there is room for those."""
    driver = narrow.drive()
    jobs = [job(words(400, seed), 20) for seed in range(4)]
    for one in jobs:
        driver.run(one)
    outcomes = driver.run(*jobs)
    assert [cached(outcome) for outcome in outcomes] == [399] * 4
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


def test_a_tenant_with_many_jobs_does_not_keep_another_out(driver: Driver) -> None:
    driver.submit(*[job(words(50, seed), 200, tenant="many") for seed in range(12)])
    driver.step(3)
    few = driver.submit(*[job(words(50, seed), 5, tenant="few") for seed in range(3)])
    driver.step()
    # Two of four each.
    assert [run_id for run_id in driver.inside if run_id in few] == few[:2]
    assert driver.scheduler.stats.preemptions == 2
    while not all(is_done(driver.outcomes[run_id]) for run_id in few):
        driver.step()
    assert not any(is_done(driver.outcomes[run_id]) for run_id in range(12))


def test_a_tenant_that_was_served_more_waits_without_a_quarrel(driver: Driver) -> None:
    """It has fewer jobs in than its share, but those that hold more have the better claim."""
    driver.submit(job(words(1000), 100, tenant="greedy"))
    slowly(driver, 20)
    driver.step(2)
    driver.submit(*[job(words(30, seed), 100, tenant="modest") for seed in range(3)])
    driver.step(2)
    slowly(driver, 200)
    driver.step(3)
    fairness = driver.scheduler._fairness
    assert fairness.served("greedy") > fairness.served("modest") + 100
    driver.submit(*[job(words(50, seed), 5, tenant="greedy") for seed in (7, 8)])
    driver.step()
    assert driver.inside == [0, 1, 2, 3]
    driver.finish()
    assert all(is_done(outcome) for outcome in driver.outcomes.values())


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
    served = [driver.scheduler._fairness.served(tenant) for tenant in tenants]
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


# Sharing

PREFIX = words(600, 77)


def tails(count: int, length: int = 10) -> list[Job]:
    return [job(PREFIX + words(length, seed), 5) for seed in range(count)]


def test_jobs_with_one_beginning_compute_it_once(driver: Driver) -> None:
    submit(driver, *tails(4))
    driver.finish()
    assert driver.prefilled == 600 + 4 * 10
    assert [cached(outcome) for outcome in driver.outcomes.values()] == [0, 600, 600, 600]
    check_honest(driver)


@pytest.mark.parametrize("progress", [1, 3, 7, 40])
def test_also_when_they_come_later(driver: Driver, progress: int) -> None:
    """While the first is in the middle, has just finished its prompt, or is long gone."""
    slowly(driver, 100)
    one, *others = tails(4)
    submit(driver, one)
    for _ in range(progress):
        driver.step()
    submit(driver, *others)
    driver.finish()
    assert driver.prefilled == 600 + 4 * 10
    check_honest(driver)


def test_more_jobs_than_sequences_compute_it_once(driver: Driver) -> None:
    submit(driver, *tails(11))
    driver.finish()
    assert driver.prefilled == 600 + 11 * 10
    check_honest(driver)


def test_the_same_prompt_many_times_computes_one_more_row_each(driver: Driver) -> None:
    submit(driver, *[job(PREFIX, 3)] * 4)
    driver.finish()
    assert driver.prefilled == 600 + 3
    assert len({tuple(outcome.tokens) for outcome in driver.outcomes.values()}) == 1
    check_honest(driver)


def test_a_cancelled_leader_hands_on(driver: Driver) -> None:
    slowly(driver, 100)
    submit(driver, *tails(4))
    driver.step(3)
    driver.scheduler.cancel(0)
    driver.step()
    assert cached(driver.outcomes[1]) == 300
    driver.scheduler.cancel(1)
    driver.finish()
    assert [cached(driver.outcomes[run_id]) for run_id in (2, 3)] == [400, 600]
    assert driver.prefilled == 600 + 2 * 10
    check_honest(driver)


def test_followers_of_several_lengths_and_chains_of_leaders(driver: Driver) -> None:
    slowly(driver, 50)
    ends = (600, 250, 450, 300)
    submit(driver, *[job(PREFIX[:end] + words(20, seed), 5) for seed, end in enumerate(ends)])
    driver.finish()
    assert driver.prefilled == 600 + 4 * 20
    check_honest(driver)


def test_a_chain_of_leaders_one_of_which_gives_up(driver: Driver) -> None:
    slowly(driver, 50)
    submit(driver, *[job(PREFIX[: 150 * (i + 1)], 5) for i in range(4)])
    driver.step(4)
    driver.scheduler.cancel(1)
    driver.finish()
    assert driver.prefilled == 600
    check_honest(driver)


def test_who_has_more_already_does_not_wait_for_less(driver: Driver) -> None:
    """Of two leaders, the one with the longer beginning may be the faster."""
    slowly(driver, 100)
    submit(driver, job(PREFIX, 5), probed(PREFIX[:300] + words(10, 1)), job(PREFIX + words(10, 2), 5))
    driver.step(7)
    assert driver.running(1).computed < 300
    assert cached(driver.outcomes[2]) == 600
    driver.finish()
    check_honest(driver)


@pytest.mark.parametrize("architecture", ["gemma3", "mamba", "lfm2"])
@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7, 9])
def test_leaders_leave_at_any_time_where_states_cannot_be_cut(
    snapshotting: dict[str, Machine], architecture: str, steps: int
) -> None:
    driver = snapshotting[architecture].drive()
    slowly(driver, 25)
    submit(driver, *[job(PREFIX[:end] + words(30, seed), 5) for seed, end in enumerate((40, 100, 150))])
    driver.step(steps)
    driver.scheduler.cancel(0)
    driver.check()
    driver.finish()
    # At most what was behind the end that the others wait for is computed again.
    assert driver.prefilled <= 150 + 3 * 30
    check_honest(driver)


@pytest.mark.parametrize("architecture", ["gemma3", "mamba", "lfm2"])
def test_turns_go_on_where_states_cannot_be_cut(snapshotting: dict[str, Machine], architecture: str) -> None:
    driver = snapshotting[architecture].drive()
    prompt = words(300)
    (first,) = driver.run(job(prompt, 40, cache_marks=[CacheMark(200)]))
    assert prefilled(first).written == Written(200, 0)
    (second,) = driver.run(job([*prompt, *first.tokens, *words(25, 1)], 10))
    (branch,) = driver.run(job([*prompt[:250], *words(25, 2)], 10))
    assert [cached(second), cached(branch)] == [339, 200]
    assert driver.prefilled == 300 + 26 + 75


def test_a_preempted_leader_hands_on(driver: Driver) -> None:
    slowly(driver, 100)
    submit(driver, *[job(PREFIX + words(10, seed), 5, priority="batch") for seed in range(4)])
    driver.step(3)
    submit(driver, *[job(words(50, 200 + i), 5) for i in range(4)])
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
    monkeypatch.setattr(run, "HEADROOM", 0)
    driver = narrow.drive()
    driver.submit(job(words(300), 400))
    driver.step(2)
    slowly(driver, 1)
    submit(driver, *[job(PREFIX[:400] + words(10, seed), 5) for seed in range(3)])
    driver.step()
    driver.scheduler.cancel(1)
    while not driver.scheduler.preempted:
        driver.step()
        assert driver.inside == [0, 2, 3] or driver.scheduler.preempted
    driver.finish()
    for outcome in (driver.outcomes[run_id] for run_id in (0, 2, 3)):
        outcome.check_order()
        assert is_done(outcome)


def test_who_follows_pulls_its_leader(driver: Driver) -> None:
    slowly(driver, 100)
    driver.submit(job(words(20, 5), 60))
    driver.step(2)
    driver.submit(job(PREFIX + words(10, 1), 5, priority="batch"))
    driver.submit(job(words(600, 6), 5))
    driver.step(4)
    assert driver.running(1).computed == 0
    driver.submit(job(PREFIX + words(10, 2), 5))
    driver.step(4)
    assert driver.running(1).computed == 200
    driver.finish()


def test_a_batch_job_stays_one_when_its_leader_goes(driver: Driver) -> None:
    slowly(driver, 100)
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
        submit(driver, *[job(PREFIX + words(10, 1), 5, tenant=tenant) for tenant in ("one", "other")])
        driver.finish()
    assert driver.prefilled == 2 * (610 + 1)
    assert [cached(outcome) for outcome in driver.outcomes.values()] == [0, 0, 609, 609]
    check_honest(driver)


def test_what_runs_is_shared_though_more_of_it_is_in_ram(driver: Driver) -> None:
    """Sessions that begin alike and were heard before hold one copy of their beginning in the cells."""
    jobs = [job(PREFIX + words(100, seed), 30) for seed in range(3)]
    submit(driver, *jobs)
    driver.finish()
    submit(driver, *jobs)
    driver.step(3)
    assert driver.scheduler.stats.cells_used < 600 + 3 * 140
    driver.finish()
    check_honest(driver)
    assert driver.prefilled == 600 + 3 * 100 + 3


# Keeping


def test_the_second_turn_computes_exactly_its_new_part(driver: Driver) -> None:
    prompt = words(300)
    (first,) = driver.run(job(prompt, 40))
    before = driver.prefilled
    second = [*prompt, *first.tokens, *words(25, 1)]
    (outcome,) = driver.run(job(second, 10))
    # The last token that was drawn has never been computed.
    assert cached(outcome) == 339
    assert driver.prefilled - before == 26
    (third,) = driver.run(job([*second, *outcome.tokens, *words(5, 2)], 10))
    assert cached(third) == len(second) + 9


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
    assert cached(again) == max(keep, 256)


def written(driver: Driver, tokens: list[int], *marks: CacheMark) -> tuple[int, int, int]:
    """What a job with these marks writes, and how much was cached."""
    (outcome,) = driver.run(job(tokens, 2, cache_marks=list(marks)))
    counts = prefilled(outcome).written
    return counts.five_minutes, counts.one_hour, cached(outcome)


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
    assert [prefilled(outcome).written for outcome in outcomes] == [Written(600, 0), Written(0, 20)]


def test_marked_prefixes_survive_pressure(machine: Machine) -> None:
    driver = machine.drive(ram=6 * machine.bytes_of(256))
    driver.run(job(words(512), 1, cache_marks=[CacheMark(512)]))
    for seed in range(1, 8):
        driver.run(job(words(512, seed), 1))
    assert cached(driver.run(job(words(512), 1))[0]) == 511
    assert cached(driver.run(job(words(512, 1), 1))[0]) == 0


def test_marks_never_stand_in_the_way(machine: Machine) -> None:
    driver = machine.drive(ram=6 * machine.bytes_of(256))
    for seed in range(8):
        assert written(driver, words(512, seed), CacheMark(512)) == (512, 0, 0)
    assert cached(driver.run(job(words(512, 7), 1))[0]) == 511


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


# Guessing

ITEMS = (
    "amber, birch, cedar, daisy, elder, fern, garlic, hazel, iris, juniper, kale, lily, maple, nettle, oak, poppy"
)
HOT = 1.2
"""A temperature at which the starter model copies most of the time."""


@pytest.fixture(scope="module")
def copying(starter: Machine) -> tuple[list[int], list[int]]:
    """A prompt whose answer is in it, and that answer, computed token by token."""
    tokenizer = Tokenizer(Gguf(starter_path()))
    prompt = tokenizer.encode(f"{ITEMS}.\n{ITEMS}.\n{ITEMS}.\namber, birch, cedar,")
    (outcome,) = starter.drive().run(job(prompt, 40))
    return prompt, outcome.tokens


def guessing(machine: Machine) -> Driver:
    """A scheduler for which guesses cost nothing."""
    driver = machine.drive(drafts=16)
    driver.scheduler._pace = Steady(256)
    return driver


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
    assert len(prompt) + end - 1 <= cached(again) <= len(prompt) + end


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


DOUBTFUL = [126, 10, 140, 200, 177, 237, 78, 192, 78, 127, 239, 126, 10, 140, 200, 177, 237]
"""Its end occurred before, and what followed is one of the few things that the tiny model may say now."""


def doubtful(length: int, seed: int) -> Job:
    return job(DOUBTFUL, length, sampling=Sampling(temperature=1.0, top_k=4, seed=seed), probe=PROBE)


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


# Probes


@pytest.fixture(scope="module")
def cold(tiny_path: Path) -> Iterator[Reference]:
    reference = Reference(tiny_path, CELLS, PROBE)
    yield reference
    reference.close()


def scores(outcome: Outcome) -> Floats:
    """Of the prompt and of all but the last token drawn, shape ``(tokens, 3)``."""
    drawn = [event.scores for event in outcome.events if isinstance(event, Step)]
    assert drawn[0] == (prefilled(outcome).scores or b"")[-12:]
    return np.frombuffer(
        b"".join([prefilled(outcome).scores or b"", *(s or b"" for s in drawn[1:])]), "<f4"
    ).reshape(-1, 3)


def check_scores(cold: Reference, one: Job, outcome: Outcome) -> None:
    got = scores(outcome)
    _, expected = cold.read(one.token_ids + outcome.tokens, len(one.token_ids))
    assert len(got) == len(one.token_ids) + len(outcome.tokens) - 1
    assert np.abs(got - expected[: len(got)]).max() < 0.1 * expected.std()


def probed(tokens: list[int], max_tokens: int = 5, **options: object) -> Job:
    return job(tokens, max_tokens, probe=PROBE, **options)


def test_scores_do_not_depend_on_what_was_cached(driver: Driver, cold: Reference) -> None:
    jobs = [probed(PREFIX + words(10, seed)) for seed in range(3)]
    outcomes = driver.run(*jobs)
    assert driver.prefilled == 600 + 3 * 10
    again = driver.run(*jobs)
    assert driver.prefilled == 600 + 3 * 10 + 3
    for one, outcome in zip(jobs * 2, outcomes + again, strict=True):
        check_scores(cold, one, outcome)


def test_scores_of_preempted_streams(narrow: Machine, cold: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEADROOM", 8)
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
    assert [cached(first), cached(second), cached(driver.run(plain)[0])] == [0, 599, 599]
    for outcome in (first, second):
        check_scores(cold, one, outcome)


def test_scores_of_other_weights_are_a_miss(driver: Driver) -> None:
    other = random_probe([0, 1], 64, version="other", seed=1)
    for probe, expected in ((PROBE, 0), (other, 0), (PROBE, 599), (other, 599)):
        assert cached(driver.run(job(PREFIX, 3, probe=probe))[0]) == expected


def test_who_has_no_probe_may_follow_who_has_one_but_not_the_other_way(driver: Driver, cold: Reference) -> None:
    slowly(driver, 100)
    submit(driver, probed(PREFIX), job([*PREFIX, 5, 6], 3), job(words(600, 9), 3), probed(words(600, 9)))
    driver.finish()
    assert [cached(outcome) for outcome in driver.outcomes.values()] == [0, 600, 0, 0]
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


@pytest.mark.parametrize("token", [1 << 40, -1, 100_000])
def test_a_token_that_is_none_leaves_no_trace(driver: Driver, token: int) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        driver.scheduler.submit(1, job([5, token]))
    driver.check_idle()


# Disk


class Held(Disk):
    """A disk that reads only when it is told to."""

    def hold(self) -> None:
        self.held: list[tuple[str, str]] | None = []

    def release(self) -> None:
        held, self.held = self.held or [], None
        for tenant, name in held:
            super().read(tenant, name)

    def read(self, tenant: str, name: str) -> None:
        if self.held is None:
            super().read(tenant, name)
        else:
            self.held.append((tenant, name))


def on_disk(machine: Machine, folder: Path, *jobs: Job) -> tuple[Driver, Held]:
    """A scheduler after a restart, that finds these jobs on a disk that holds its breath."""
    earlier = machine.drive(disk=Disk(folder, fingerprint(test=1), capacity=1 << 30, wake=lambda: None))
    earlier.run(*jobs)
    earlier.close()
    disk = Held(folder, fingerprint(test=1), capacity=1 << 30, wake=lambda: None)
    disk.hold()
    return machine.drive(disk=disk), disk


def test_waiting_for_the_disk_is_no_work(machine: Machine, tmp_path: Path) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX))
    (run_id,) = driver.submit(job(PREFIX))
    driver.step()
    assert not driver.scheduler.has_work
    driver.step(3)
    assert not driver.scheduler.has_work
    # Others are not held up.
    (other,) = driver.submit(job(words(20, 5), 3))
    while driver.scheduler.has_work:
        driver.step()
    assert is_done(driver.outcomes[other])
    disk.release()
    driver.finish()
    assert cached(driver.outcomes[run_id]) == 599
    assert driver.scheduler.stats.disk_tokens == 599
    assert driver.prefilled == 20 + 1
    driver.close()


def test_who_waits_for_the_disk_can_be_cancelled(machine: Machine, tmp_path: Path) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX))
    driver.submit(job(PREFIX), job(PREFIX))
    driver.step()
    driver.scheduler.cancel(0)
    assert not driver.scheduler.has_work
    disk.release()
    driver.finish()
    assert cached(driver.outcomes[1]) == 599
    driver.close()


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_damaged_files_cost_time_only(machine: Machine, tmp_path: Path, depth: int) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX, 3))
    driver.submit(job(PREFIX, 3))
    driver.step()
    (waiting,) = driver.scheduler._waiting
    name = waiting.remembered.blocks[depth].name
    (file,) = (path for path in tmp_path.rglob("*.kv") if path.stem == name)
    file.write_bytes(file.read_bytes()[:-100])
    disk.release()
    driver.finish()
    assert cached(driver.outcomes[0]) == 256 * depth
    driver.close()


def test_a_disk_that_is_slower_than_computing_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    driver, disk = on_disk(machine, tmp_path, job(PREFIX))
    disk.read_rate = 1.0
    (outcome,) = driver.run(job(PREFIX))
    assert cached(outcome) == 0
    driver.close()
