"""The scheduler on the real model, step by step in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from outcomes import starter_options

from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import Admitted, EngineEvent, Finish, Job, Prefilled, Sampling, Step
from commonweight.engines.llama import scheduler as scheduler_module
from commonweight.engines.llama.native import LoadedModel
from commonweight.engines.llama.scheduler import CHUNK_BESIDE_STREAMS, Scheduler
from commonweight.prompting import Tokenizer

GREEDY = Sampling(temperature=0)
CELLS = 512
COUNTING = Tokenizer(Gguf(Path(starter_options().path))).encode(" ".join(map(str, range(1, 60))))


@pytest.fixture(scope="module")
def model() -> Iterator[LoadedModel]:
    model = LoadedModel(
        Path(starter_options().path),
        cells=CELLS,
        sequences=3,
        batch_rows=256,
        threads=2,
        on_progress=lambda _: None,
    )
    yield model
    model.close()


def step(scheduler: Scheduler) -> list[tuple[int, EngineEvent]]:
    return scheduler.admit() + scheduler.step()


def run_all(scheduler: Scheduler) -> dict[int, list[EngineEvent]]:
    """Step until nothing is left to do."""
    events: dict[int, list[EngineEvent]] = {}
    while scheduler.has_work:
        for run_id, event in step(scheduler):
            events.setdefault(run_id, []).append(event)
    return events


def tokens(events: list[EngineEvent]) -> list[int]:
    return [event.token_id for event in events if isinstance(event, Step)]


def job(length: int, max_tokens: int) -> Job:
    return Job(token_ids=COUNTING[:length], max_tokens=max_tokens, sampling=GREEDY)


def test_streams_that_outgrow_the_cells_lose_nothing(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three streams of 100 + 120 tokens want 660 cells of 512: one must go back and be computed again.
    monkeypatch.setattr(scheduler_module, "HEADROOM", 8)
    alone = Scheduler(model, sequences=1, batch_rows=256)
    alone.submit(0, job(100, 120))
    expected = tokens(run_all(alone)[0])
    crowd = Scheduler(model, sequences=3, batch_rows=256)
    for run_id in range(3):
        crowd.submit(run_id, job(100, 120))
    preempted = 0
    events: dict[int, list[EngineEvent]] = {}
    while crowd.has_work:
        before = len(crowd._running)
        finished = 0
        for run_id, event in step(crowd):
            events.setdefault(run_id, []).append(event)
            finished += isinstance(event, Finish)
        preempted += len(crowd._running) + finished < before
        assert sum(run.computed for run in crowd._running) <= CELLS
    for got in events.values():
        assert [type(event) for event in got[:2]] == [Admitted, Prefilled]
        assert sum(isinstance(event, (Admitted, Prefilled)) for event in got) == 2
        # Kernels differ by batch shape; a model that counts is sure enough of every token not to mind.
        assert tokens(got) == expected
    assert preempted > 0


def test_a_long_prompt_does_not_hold_up_a_stream(model: LoadedModel) -> None:
    scheduler = Scheduler(model, sequences=3, batch_rows=256)
    scheduler.submit(1, job(10, 100))
    step(scheduler)
    scheduler.submit(2, Job(token_ids=(COUNTING * 5)[:300], max_tokens=4, sampling=GREEDY))
    steps = 0
    events: list[tuple[int, EngineEvent]] = []
    while (2, Prefilled()) not in events:
        events = step(scheduler)
        steps += 1
        assert any(run_id == 1 and isinstance(event, Step) for run_id, event in events)
        assert scheduler._batch.rows <= CHUNK_BESIDE_STREAMS + 1
    assert steps == 3
    scheduler.cancel(1)
    scheduler.cancel(2)
    assert not scheduler.has_work


def test_cancelling_frees_the_cells_wherever_the_job_is(model: LoadedModel) -> None:
    scheduler = Scheduler(model, sequences=2, batch_rows=256)
    for run_id in range(4):
        scheduler.submit(run_id, job(80, 200))
    step(scheduler)
    for run_id in (3, 0, 2, 1, 1, 99):  # waiting, running, twice, never there
        scheduler.cancel(run_id)
    assert not scheduler.has_work
    # Everything is free again: a job that needs all cells runs.
    scheduler.submit(7, Job(token_ids=(COUNTING * 5)[: CELLS - 4], max_tokens=4, sampling=GREEDY))
    events = run_all(scheduler)[7]
    assert len(tokens(events)) == 4
    assert isinstance(events[-1], Finish)


def test_log_probabilities_hardly_depend_on_company(model: LoadedModel) -> None:
    wanted = Job(token_ids=COUNTING[:40], max_tokens=12, sampling=GREEDY, want_logprobs=True)

    def logprobs(events: list[EngineEvent]) -> list[float]:
        return [event.logprob for event in events if isinstance(event, Step) and event.logprob is not None]

    scheduler = Scheduler(model, sequences=3, batch_rows=256)
    scheduler.submit(0, wanted)
    alone = logprobs(run_all(scheduler)[0])
    for run_id, length in enumerate((40, 33, 57)):
        scheduler.submit(run_id, wanted if run_id == 0 else job(length, 20))
    together = logprobs(run_all(scheduler)[0])
    assert together == pytest.approx(alone, abs=0.15)
