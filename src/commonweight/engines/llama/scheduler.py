"""What is computed next: continuous batching over one unified cache.

Every step computes one batch: a row for each running stream, and a chunk of the prompts that are still being
read. Jobs wait in order of arrival until a sequence and enough cells are free. When running streams outgrow the
cells, the youngest goes back to the head of the queue and is later computed again from its tokens: nothing that
was sent is lost or repeated.
"""

from collections import deque
from time import perf_counter
from typing import NamedTuple

from commonweight.engines.contract import (
    Admitted,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Step,
    Timings,
)
from commonweight.engines.llama.native import Batch, CacheFullError, LoadedModel
from commonweight.engines.llama.sampler import Sampler, logprob

CHUNK_BESIDE_STREAMS = 128
"""Prompt tokens a step while others stream: short enough that they keep their cadence."""
HEADROOM = 256
"""Cells kept free for each stream to grow into before another is admitted: preempting costs a whole prompt."""


class Run:
    """A job on its way through the scheduler."""

    def __init__(self, run_id: int, job: Job) -> None:
        self.run_id = run_id
        self.job = job
        self.tokens = list(job.token_ids)
        self.stop_ids = frozenset(job.stop_ids)
        self.sampler = Sampler(job.sampling)
        self.sequence = -1
        self.computed = 0
        self.arrived = perf_counter()
        self.admitted: float | None = None
        self.prefilled: float | None = None

    @property
    def generated(self) -> int:
        """Tokens drawn so far."""
        return len(self.tokens) - len(self.job.token_ids)

    @property
    def is_streaming(self) -> bool:
        """Whether all but the last drawn token are computed."""
        return self.generated > 0 and self.computed == len(self.tokens) - 1

    @property
    def claim(self) -> int:
        """Cells it holds or will soon need."""
        return len(self.tokens) + min(self.job.max_tokens - self.generated, HEADROOM)

    def timings(self) -> Timings:
        """Where its time went, at its end."""
        admitted, prefilled = self.admitted or self.arrived, self.prefilled or self.arrived
        return Timings(
            queued=admitted - self.arrived, prefill=prefilled - admitted, decode=perf_counter() - prefilled
        )


class Part(NamedTuple):
    """A run's share of a batch."""

    run: Run
    rows: int
    last_row: int


RunEvents = list[tuple[int, EngineEvent]]


class Scheduler:
    """Owns the model's cache. :meth:`admit` and :meth:`step`, in turns, do everybody's work."""

    def __init__(self, model: LoadedModel, *, sequences: int, batch_rows: int) -> None:
        self._model = model
        self._batch = Batch(batch_rows)
        self._free = list(range(sequences))
        self._waiting: deque[Run] = deque()
        self._running: list[Run] = []

    @property
    def has_work(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running)

    def submit(self, run_id: int, job: Job) -> None:
        """Queue a job."""
        self._waiting.append(Run(run_id, job))

    def cancel(self, run_id: int) -> None:
        """Drop a job, wherever it is; unknown ids are those that just finished."""
        for run in (*self._waiting, *self._running):
            if run.run_id == run_id:
                self._drop(run)
                return

    def step(self) -> RunEvents:
        """Compute one batch of what is admitted and draw tokens. Blocks for as long as the batch takes."""
        events: RunEvents = []
        for part in self._compute():
            part.run.computed += part.rows
            if part.run.computed == len(part.run.tokens):
                events += [(part.run.run_id, event) for event in self._advance(part.run, part.last_row)]
        return events

    def admit(self) -> RunEvents:
        """Let waiting jobs in, as many as fit. At least one runs afterwards, if there is any."""
        events: RunEvents = []
        claimed = sum(run.claim for run in self._running)
        while self._waiting and self._free:
            run = self._waiting[0]
            claimed += run.claim
            if self._running and claimed > self._model.cells:
                break
            self._waiting.popleft()
            run.sequence = self._free.pop()
            self._running.append(run)
            if run.admitted is None:
                run.admitted = perf_counter()
                events.append((run.run_id, Admitted(cached_tokens=0)))
        return events

    def _compute(self) -> list[Part]:
        """Compute one batch of parts, making room first if streams have outgrown the cells."""
        while sum(len(run.tokens) for run in self._running) > self._model.cells:
            self._preempt()
        while True:
            parts = self._fill()
            try:
                self._model.compute(self._batch)
            except CacheFullError:
                if len(self._running) < 2:
                    raise
                self._preempt()
            else:
                return parts

    def _fill(self) -> list[Part]:
        self._batch.clear()
        streams = [run for run in self._running if run.is_streaming]
        parts = [self._add(run, 1) for run in streams]
        budget = min(self._batch.room, CHUNK_BESIDE_STREAMS) if streams else self._batch.room
        for run in self._running:
            if budget and not run.is_streaming:
                parts.append(self._add(run, budget))
                budget -= parts[-1].rows
        return parts

    def _add(self, run: Run, budget: int) -> Part:
        chunk = run.tokens[run.computed : run.computed + budget]
        is_last = run.computed + len(chunk) == len(run.tokens)
        wants_logits = is_last and run.job.max_tokens > 0
        return Part(run, len(chunk), self._batch.add(run.sequence, run.computed, chunk, wants_logits=wants_logits))

    def _advance(self, run: Run, row: int) -> list[EngineEvent]:
        """The run's tokens are all computed: draw the next one from ``row``."""
        events: list[EngineEvent] = []
        if run.prefilled is None:
            run.prefilled = perf_counter()
            events.append(Prefilled())
        if run.job.max_tokens > 0:
            token = run.sampler.draw(self._model, row)
            run.tokens.append(token)
            events.append(Step(token, logprob(self._model, row, token) if run.job.want_logprobs else None))
            if token in run.stop_ids:
                events.append(Finish("stop", run.timings()))
        if run.generated == run.job.max_tokens and not isinstance(events[-1], Finish):
            events.append(Finish("length", run.timings()))
        if isinstance(events[-1], Finish):
            self._drop(run)
        return events

    def _preempt(self) -> None:
        youngest = self._running.pop()
        self._release(youngest)
        youngest.computed = 0
        self._waiting.appendleft(youngest)

    def _drop(self, run: Run) -> None:
        if run in self._running:
            self._running.remove(run)
            self._release(run)
        else:
            self._waiting.remove(run)
        run.sampler.close()

    def _release(self, run: Run) -> None:
        self._model.forget(run.sequence)
        self._free.append(run.sequence)
        run.sequence = -1
