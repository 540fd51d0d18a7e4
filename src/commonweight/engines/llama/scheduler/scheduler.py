"""Who computes: continuous batching over one unified cache.

Every step computes one batch: the rows of each running stream, or a chunk of the prompts that are still being
read, or both where the chunk is small. Jobs wait until a sequence and enough cells are free, in the order that
``fairness`` gives them. What there is of a job already, it takes over when it is let in, or from others that
compute it.

When streams outgrow the cells, or somebody with a better claim waits, a job is preempted: it goes to the prefix
store and back to the queue, and nothing that was sent is lost or repeated.
"""

from collections import Counter
from functools import partial
from time import perf_counter
from typing import Literal

from commonweight.engines.contract import (
    Admitted,
    CacheMark,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
)
from commonweight.engines.grammars import GrammarError, Grammars
from commonweight.engines.llama.blocks import in_whole_blocks, key_of
from commonweight.engines.llama.cells import Cells
from commonweight.engines.llama.fairness import Fairness
from commonweight.engines.llama.native import Batch, CacheFullError, LoadedModel
from commonweight.engines.llama.pace import Pace
from commonweight.engines.llama.plan import Part, Planner, Rank
from commonweight.engines.llama.prefixes import Prefixes
from commonweight.engines.llama.probes import Taps
from commonweight.engines.llama.recall import Leaders, Recall
from commonweight.engines.llama.run import Run
from commonweight.engines.llama.sampler import logprob
from commonweight.engines.llama.state import States

PATIENCE = 32
"""Steps after which a job that could not be let in is looked at again, though nothing seems to have changed."""

RunEvents = list[tuple[int, EngineEvent]]


class Scheduler:
    """Owns the model's cache. :meth:`admit` and :meth:`step`, in turns, do everybody's work."""

    def __init__(
        self,
        model: LoadedModel,
        states: States,
        prefixes: Prefixes,
        *,
        sequences: int,
        batch_rows: int,
        drafts: int,
    ) -> None:
        self._model = model
        self._prefixes = prefixes
        self._sequences = sequences
        self._free = list(range(sequences))
        self._cells = Cells(model.cells)
        self._waiting: list[Run] = []
        self._running: list[Run] = []
        self._fairness = Fairness()
        self._pace = Pace()
        self._look_in = 0
        self._taps = Taps(model.context)
        self._tapped: set[int] = set()
        self._stats = Stats(cells=model.cells)
        self._recall = Recall(model, states, prefixes, self._cells, self._stats)
        self._batch = Batch(batch_rows)
        self.grammars = Grammars(model.vocab)
        self.failed: list[tuple[int, str]] = []
        """Runs that could not go on, and why; whoever tells of them takes them out."""
        can_guess = not model.is_recurrent and states.reuse != "never"
        attention = model.attention if states.reuse == "anywhere" else None
        self._planner = Planner(self._batch, self._cells, self._recall, drafts if can_guess else 0, attention)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do that needs no news from the disk."""
        return bool(self._running) or any(not run.is_loading for run in self._waiting)

    def rest(self, is_idle: bool) -> None:
        """Say whether work is waiting; what can wait for a pause does."""
        self._prefixes.rest(is_idle)

    @property
    def stats(self) -> Stats:
        """The latest figures."""
        stats = self._stats
        stats.running, stats.waiting = len(self._running), len(self._waiting)
        stats.cells_used = self._cells.used
        stats.ram_bytes, stats.disk_bytes = self._prefixes.ram_bytes, self._prefixes.disk_bytes
        return stats

    def submit(self, run_id: int, job: Job) -> None:
        """Queue a job.

        Raises:
            ValueError: its probe or its tokens are not for this model, or its grammar is none.
        """
        if job.probe and (reason := self._taps.check(job.probe)):
            raise ValueError(reason)
        for name, tokens in (("prompt", job.token_ids), ("stop", job.stop_ids)):
            if tokens and not 0 <= min(tokens) <= max(tokens) < self._model.vocabulary_size:
                raise ValueError(f"a {name} token is not in this model's vocabulary")
        guide = None
        if job.grammar is not None:
            guide = self.grammars.guide(job.grammar, frozenset(job.stop_ids), job.tenant)
        run = Run(run_id, job, guide)
        self._fairness.enter(job.tenant)
        self._waiting.append(run)
        self._look_in = 0

    def cancel(self, run_id: int, keep: int | None = None) -> None:
        """Drop a job and remember at most ``keep`` of its tokens. Unknown ids are those that just finished."""
        for run in (*self._waiting, *self._running):
            if run.run_id == run_id:
                if keep is not None:
                    self._recall.retract(run, keep)
                self._drop(run, keep)
                return

    def admit(self) -> RunEvents:
        """Let waiting jobs in, as many as fit, and take over shared beginnings. If any runs, one can compute."""
        if self._prefixes.collect():
            self._look_in = 0
        self._let_in()
        for run in self._running:
            self._recall.follow(run)
        return self._greet()

    def step(self) -> RunEvents:
        """Compute one batch of what is admitted and draw tokens. Blocks for as long as the batch takes."""
        if not self._running:
            return []
        parts = self._compute()
        # Whose leader had to make room computes from here on.
        return self._greet() + [(part.run.run_id, event) for part in parts for event in self._advance(part)]

    def _greet(self) -> RunEvents:
        """Admit those who wait for nobody any more."""
        events: RunEvents = []
        for run in self._running:
            if run.admitted is None and not run.leaders:
                run.admitted, run.cached = perf_counter(), run.computed
                self._stats.queue_seconds += run.admitted - run.arrived
                events.append((run.run_id, Admitted(run.cached)))
        return events

    # Who is in

    def _let_in(self) -> None:
        self._look_in -= 1
        if self._look_in > 0 and self._running:
            return
        self._look_in = PATIENCE
        claimant: Run | None = None
        while ready := [run for run in self._waiting if not run.is_loading]:
            run = claimant or min(ready, key=self._rank)
            claimant = None
            there = self._recall.find(run, self._running, self._pace)
            if run.is_loading:
                continue
            if not there.leaders and self._is_early(run):
                return
            if self._fits(len(run.tokens) - there.shared + run.growth):
                self._enter(run, there.leaders)
            elif victim := self._victim(run):
                self._preempt(victim)
                claimant = run  # or the victim, which has waited longer, would come back in its place
            else:
                return

    def _rank(self, run: Run) -> Rank:
        """Smaller comes first."""
        return run.is_batch, self._fairness.served(run.tenant), run.place

    def _is_early(self, run: Run) -> bool:
        """Whether restoring its cells now would only slow those down whose prompts are read before its own."""
        return in_whole_blocks(run.remembered.length) > 0 and any(
            not other.is_streaming and not other.leaders and self._rank(other) < self._rank(run)
            for other in self._running
        )

    def _fits(self, need: int) -> bool:
        if not self._free:
            return False
        needed = sum(run.need for run in self._running)
        return not self._running or self._cells.used + needed + need <= self._cells.capacity

    def _victim(self, run: Run) -> Run | None:
        """Who makes room for ``run``: batch jobs for an interactive one, tenants with more than their share."""
        jobs = Counter(other.tenant for other in self._running)
        share = max(1, self._sequences // self._fairness.tenants)
        victims = [
            other
            for other in self._running
            if self._rank(run)[:2] <= self._rank(other)[:2]
            and (run.is_batch < other.is_batch or jobs[run.tenant] < share < jobs[other.tenant])
        ]
        return max(victims, key=self._rank, default=None)

    def _enter(self, run: Run, leaders: Leaders) -> None:
        self._waiting.remove(run)
        run.sequence = self._free.pop()
        self._running.append(run)
        if run.job.probe and not self._tapped.issuperset(run.job.probe.layers):
            self._tapped.update(run.job.probe.layers)
            self._taps.select(self._tapped)  # and never off again: it costs less than changing it does
        self._recall.begin(run, leaders)
        for leader, _ in run.leaders:  # it works for this one, too
            leader.is_batch &= run.is_batch

    # One batch

    def _compute(self) -> list[Part]:
        """Compute one batch of parts, making room first if streams have outgrown the cells."""
        while True:
            parts = self._planner.fill(self._running, self._rank, self._pace)
            if not 0 < self._batch.rows <= self._cells.free:
                self._preempt(max(self._running, key=self._rank))
                continue
            started = perf_counter()
            try:
                self._model.compute(self._batch)
            except CacheFullError:
                if len(self._running) < 2:
                    raise
                self._preempt(max(self._running, key=self._rank))
                continue
            seconds = perf_counter() - started
            self._pace.observe(self._batch.rows, self._batch.outputs, seconds)
            self._stats.steps += 1
            self._stats.step_seconds += seconds
            return parts

    # What it brought

    def _advance(self, part: Part) -> list[EngineEvent]:
        run, rows, last_row, padding = part
        self._fairness.charge(run.tenant, rows)
        chunk = slice(last_row + 1 - rows, last_row + 1)
        scores = self._taps.scores(run.job.probe, chunk) if run.job.probe else None
        was_streaming = run.is_streaming
        run.grow(self._cells.take(rows), scores)
        if padding:
            self._model.cut(run.sequence, run.computed)
        if was_streaming:
            return self._draw(run, last_row - len(run.draft))
        self._stats.prefilled_tokens += rows
        self._recall.store_prompt(run)
        if run.computed < len(run.tokens):
            return []
        events: list[EngineEvent] = []
        self._look_in = 0
        if run.prefilled is None:
            run.prefilled = perf_counter()
            prompt_scores = run.scores[: run.computed].tobytes() if run.job.probe else None
            events.append(Prefilled(self._recall.mark(run), prompt_scores))
        return events + self._draw(run, last_row)

    def _draw(self, run: Run, row: int) -> list[EngineEvent]:
        """Draw tokens from ``row`` on: one, and one more for every token of the draft that was right."""
        events: list[EngineEvent] = []
        reason: Literal["stop", "length"] | None = None if run.remaining else "length"
        is_known = bool(run.forced)
        base = run.computed - len(run.draft)
        right = 0
        for offset, expected in enumerate([*run.draft, -1]):
            if reason:
                break
            draw = partial(run.sampler.draw, self._model, row + offset)
            try:
                token = run.guide.choose(draw) if run.guide else draw()
            except GrammarError as error:
                self.failed.append((run.run_id, f"the answer could not be held to its grammar: {error}"))
                self._drop(run, base + right)
                return events
            run.tokens.append(token)
            score = run.scores[base + offset - 1].tobytes() if run.job.probe else None
            log_probability = logprob(self._model, row + offset, token) if run.job.want_logprobs else None
            events.append(Step(token, log_probability, score))
            if token in run.stop_ids:
                reason = "stop"
            elif not run.remaining:
                reason = "length"
            if token != expected:
                break
            right += 1
        self._take_back(run, base + right)
        if is_known:
            self._stats.forced_tokens += right
        else:
            self._stats.drafted_tokens += len(run.draft)
            self._stats.accepted_tokens += right
        if run.drafter:
            run.drafter.extend(run.tokens[len(run.tokens) - len(events) :])
        run.draft = []
        self._stats.generated_tokens += len(events)
        if reason:
            events.append(Finish(reason, run.timings()))
            self._drop(run)
        return events

    def _take_back(self, run: Run, end: int) -> None:
        """Free the cells of guesses that were wrong."""
        if end < run.computed:
            self._model.cut(run.sequence, end)
            self._cells.drop(run.cells[end : run.computed])
            run.computed = end

    # Who leaves

    def _preempt(self, run: Run) -> None:
        run.marks = [*run.marks, CacheMark(run.computed)]  # it will be wanted again, and soon
        self._leave(run, run.computed)
        run.key = key_of(run.tokens)
        self._waiting.append(run)
        self._stats.preemptions += 1

    def _drop(self, run: Run, keep: int | None = None) -> None:
        if run in self._running:
            self._leave(run, run.computed if keep is None else keep)
        else:
            self._waiting.remove(run)
        self._fairness.leave(run.tenant)
        self._look_in = 0
        run.sampler.close()

    def _leave(self, run: Run, keep: int) -> None:
        self._running.remove(run)
        self._recall.leave(run, keep, self._running)
        self._free.append(run.sequence)
        run.sequence = -1
        run.leaders, run.draft = [], []
