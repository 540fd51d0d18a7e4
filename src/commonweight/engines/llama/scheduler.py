"""What is computed next: continuous batching over one unified cache.

Every step computes one batch: the rows of each running stream, or a chunk of the prompts that are still being
read, or both where the chunk is small. A chunk is as long as fits a time that keeps the streams' cadence. Jobs
wait until a sequence and enough cells are free, in the order that ``fairness`` gives them. A job that shares a
beginning with a running one waits until that is computed and takes it over by reference; if its leader leaves
before, it goes on from there itself. What no longer runs goes to the prefix store, and what comes is looked up
there first.

When streams outgrow the cells, or somebody with a better claim waits, a job is preempted: it goes to the prefix
store and back to the queue, and nothing that was sent is lost or repeated.
"""

from collections import Counter
from functools import partial
from operator import itemgetter
from time import perf_counter
from typing import Literal, NamedTuple

from commonweight.engines.contract import (
    Admitted,
    CacheMark,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
    Ttl,
    Written,
)
from commonweight.engines.llama.cells import Cells
from commonweight.engines.llama.fairness import Fairness
from commonweight.engines.llama.lookup import Drafter, Lookup
from commonweight.engines.llama.native import MOST_GUESSES, Batch, CacheFullError, LoadedModel
from commonweight.engines.llama.pace import Pace
from commonweight.engines.llama.prefixes import BLOCK, NOTHING, Prefixes, common_tokens, key_of
from commonweight.engines.llama.probes import Taps
from commonweight.engines.llama.run import Run
from commonweight.engines.llama.sampler import logprob
from commonweight.engines.llama.state import States

CADENCE = 0.25
"""Seconds that a step may take while others stream: prompts are read in chunks that fit."""
LENIENCE = 1.25
"""How many times as long a chunk may be if it ends a prompt."""
LONGEST_STEP = 1.0
"""Seconds that a step may take at all: arrivals and cancellations wait for its end."""
TILE = 64
"""Rows from which llama.cpp's attention on the CPU computes tiles of so many rows, each over the cells of all its
rows. A stream's row among those of a prompt was seen to make the step up to three times as long: from here on
streams and prompts take turns."""
PATIENCE = 32
"""Steps after which a job that could not be let in is looked at again, though nothing seems to have changed."""

RunEvents = list[tuple[int, EngineEvent]]


class Part(NamedTuple):
    """A run's share of a batch."""

    run: Run
    rows: int
    last_row: int


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
        self._batch = Batch(batch_rows)
        self._sequences = sequences
        self._states = states
        self._taps = Taps(model.context)
        self._tapped: set[int] = set()
        self._drafts = 0 if model.is_recurrent or self._states.reuse == "never" else drafts
        self._free = list(range(sequences))
        self._cells = Cells(model.cells)
        self._waiting: list[Run] = []
        self._running: list[Run] = []
        self._fairness = Fairness()
        self._pace = Pace()
        self._look_in = 0
        self._is_reading = False
        self._stats = Stats(cells=model.cells)

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
            ValueError: its probe or its tokens are not for this model.
        """
        if job.probe and (reason := self._taps.check(job.probe)):
            raise ValueError(reason)
        if not 0 <= min(job.token_ids) <= max(job.token_ids) < self._model.vocabulary_size:
            raise ValueError("a token of the prompt is not in this model's vocabulary")
        run = Run(run_id, job)
        self._fairness.enter(job.tenant)
        self._waiting.append(run)
        self._look_in = 0

    def cancel(self, run_id: int, keep: int | None = None) -> None:
        """Drop a job and remember at most ``keep`` of its tokens. Unknown ids are those that just finished."""
        for run in (*self._waiting, *self._running):
            if run.run_id == run_id:
                self._drop(run, keep)
                return

    def admit(self) -> RunEvents:
        """Let waiting jobs in, as many as fit, and take over shared beginnings. If any runs, one can compute."""
        if self._prefixes.collect():
            self._look_in = 0
        self._let_in()
        for run in self._running:
            self._follow(run)
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
            self._look_up(run)
            if run.is_loading:
                continue
            leaders = self._leaders(run)
            if not leaders and self._is_early(run):
                return
            if self._fits(len(run.tokens) - self._shared(run, leaders) + run.growth):
                self._enter(run, leaders)
            elif victim := self._victim(run):
                self._preempt(victim)
                claimant = run  # or the victim, which has waited longer, would come back in its place
            else:
                return

    def _rank(self, run: Run) -> tuple[bool, int, float]:
        """Smaller comes first."""
        return run.is_batch, self._fairness.served(run.tenant), run.place

    def _is_early(self, run: Run) -> bool:
        """Whether restoring its cells now would only slow those down whose prompts are read before its own."""
        return run.remembered.length >= BLOCK and any(
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

    def _look_up(self, run: Run) -> None:
        """Find what is remembered of the run; have the disk read what only it holds, if that is worth it."""
        if self._states.reuse == "never":
            return
        look_up = partial(self._prefixes.match, run.tenant, run.key, len(run.tokens) - 1, _version(run.job))
        run.remembered = look_up()
        if absent := [block for block in run.remembered.blocks if block.state is None]:
            tokens = run.remembered.length - absent[0].start
            computing = self._pace.seconds_to_prefill(tokens)
            if run.fetched or self._prefixes.seconds_to_read(absent) > computing:
                run.remembered = look_up(in_ram=True)
            else:
                run.fetched = tokens
                self._prefixes.fetch(absent)

    def _leaders(self, run: Run) -> list[tuple[Run, int]]:
        """Running jobs whose tokens ``run`` could take over, and up to where; the longest last."""
        if self._states.reuse == "never":
            return []
        leaders = [
            (other, min(common_tokens(run.key, other.key), len(run.tokens) - 1))
            for other in self._running
            if other.tenant == run.tenant and _version(run.job) in (None, _version(other.job))
        ]
        if self._states.reuse == "snapshots":  # what lies behind the end is in the state already
            leaders = [(other, end) for other, end in leaders if other.computed <= end]
        return sorted(((other, end) for other, end in leaders if end > 0), key=itemgetter(1))

    def _shared(self, run: Run, leaders: list[tuple[Run, int]]) -> int:
        """Tokens of a run to be let in whose cells are, or will be, others' as well."""
        if leaders and leaders[-1][1] >= run.remembered.length:
            return leaders[-1][1]
        if self._states.reuse == "anywhere":
            return max((min(end, other.computed) for other, end in leaders), default=0)
        return 0  # what comes from RAM takes cells of its own

    def _enter(self, run: Run, leaders: list[tuple[Run, int]]) -> None:
        self._waiting.remove(run)
        run.sequence = self._free.pop()
        self._running.append(run)
        if run.job.probe and not self._tapped.issuperset(run.job.probe.layers):
            self._tapped.update(run.job.probe.layers)
            self._taps.select(self._tapped)  # and never off again: it costs less than changing it does
        if self._states.reuse == "anywhere":
            for leader, end in leaders:
                self._share(leader, run, min(end, leader.computed))
        if not leaders or leaders[-1][1] < run.remembered.length:
            self._restore(run)
        run.leaders = [(other, end) for other, end in leaders if end > run.computed]
        for leader, _ in run.leaders:  # it works for this one, too
            leader.is_batch &= run.is_batch
        self._prefixes.touch(run.remembered.blocks)
        run.remembered = NOTHING

    def _restore(self, run: Run) -> None:
        """Bring back from RAM what is remembered of the run, behind what it shares."""
        blocks, length = run.remembered
        version = _version(run.job)
        shared = run.computed
        for block in blocks:
            start, end = max(block.start, run.computed), min(block.end, length)
            if start >= end:
                continue
            snapshot = block.snapshots.get(end) if end == length else None
            assert block.state is not None
            if not self._states.restore(run.sequence, start, end, block.state, snapshot):
                break
            scores = block.scores[version] if version else None
            run.grow(self._cells.take(end - start), None if scores is None else scores[start - block.start :])
        if run.computed < length and self._states.reuse == "snapshots":  # of no use without its end
            self._model.forget(run.sequence)
            self._cells.drop(run.cells[: run.computed])
            run.computed = 0
        run.stored = run.computed
        restored = max(run.computed - shared, 0)
        from_disk = min(run.fetched, restored)
        self._stats.disk_tokens += from_disk
        self._stats.ram_tokens += restored - from_disk

    def _follow(self, run: Run) -> None:
        """Take over what a leader has computed meanwhile."""
        while run.leaders:
            leader, end = run.leaders[-1]
            if leader.computed < end and run.computed < end:
                return
            run.leaders.pop()
            self._share(leader, run, end)

    def _share(self, leader: Run, run: Run, end: int) -> None:
        """Take over what a leader has computed up to ``end``, if that is of any use."""
        start = run.computed
        if end <= start or (leader.computed != end and self._states.reuse != "anywhere"):
            return
        if self._states.share(leader.sequence, run.sequence, start, end):
            self._cells.share(leader.cells[start:end])
            run.grow(leader.cells[start:end], leader.scores[start:end] if run.job.probe else None)
            self._stats.shared_tokens += end - start

    def _hand_on(self, leader: Run) -> None:
        """The leader goes: those who waited for it take what there is, and its place."""
        for run in self._running:
            for other, end in run.leaders:
                if other is leader:
                    self._share(leader, run, min(end, leader.computed))
                    run.place = min(run.place, leader.place)
            run.leaders = [(other, end) for other, end in run.leaders if other is not leader]

    # One batch

    def _compute(self) -> list[Part]:
        """Compute one batch of parts, making room first if streams have outgrown the cells."""
        while True:
            parts = self._fill()
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

    def _fill(self) -> list[Part]:
        self._batch.clear()
        streams = [run for run in self._running if run.is_streaming]
        reading = [run for run in self._running if not run.is_streaming and not run.leaders]
        reading.sort(key=self._rank)
        chunk = self._chunk(reading, len(streams))
        if streams and chunk + len(streams) >= TILE:
            self._is_reading = not self._is_reading
            streams, chunk = ([], chunk) if self._is_reading else (streams, 0)
        self._propose(streams, chunk)
        parts = [self._add(run, [run.tokens[-1], *run.draft], outputs=1 + len(run.draft)) for run in streams]
        for run in reading:
            if chunk > 0:
                end = min(run.computed + chunk, self._next_stop(run))
                outputs = int(end == len(run.tokens) and run.job.max_tokens > 0)
                parts.append(self._add(run, run.tokens[run.computed : end], outputs=outputs))
                chunk -= parts[-1].rows
        return parts

    def _chunk(self, reading: list[Run], streams: int) -> int:
        """How many rows of prompts the next batch has."""
        unread = [len(run.tokens) - run.computed for run in reading]
        room = min(sum(unread), self._batch.capacity - streams, self._cells.free - streams)
        if room <= 0:
            return 0
        chunk = self._pace.rows_within(CADENCE if streams else LONGEST_STEP, streams, room)
        # A prompt's last few rows come along: they would cost a step of their own.
        return unread[0] if chunk < unread[0] <= min(chunk * LENIENCE, room) else chunk

    def _next_stop(self, run: Run) -> int:
        """Where a run's chunk ends at the latest: what cannot be cut is taken where it will be needed."""
        stops = [len(run.tokens)]
        if self._states.reuse == "snapshots":
            stops += [len(run.job.token_ids), *(mark.position for mark in run.job.cache_marks)]
            stops += [end for other in self._running for leader, end in other.leaders if leader is run]
        return min(stop for stop in stops if stop > run.computed)

    def _propose(self, streams: list[Run], chunk: int) -> None:
        """Guess how streams go on, as far as it pays beside a chunk of prompts."""
        rows = len(streams) + chunk
        progress = float(rows)
        guesses = min(MOST_GUESSES, self._batch.capacity - rows, self._cells.free - rows)
        for run in streams:
            run.draft = []
            if self._drafts and run.drafter is None:
                run.drafter = Drafter(Lookup(run.tokens))
            most = min(self._drafts, run.remaining - 1, guesses)
            if run.drafter and most > 0:
                run.draft, gain = run.drafter.propose(rows, progress, self._pace, most)
                rows += len(run.draft)
                guesses -= len(run.draft)
                progress += gain

    def _add(self, run: Run, tokens: list[int], outputs: int) -> Part:
        last_row = self._batch.add(run.sequence, run.computed, tokens, outputs=outputs)
        return Part(run, len(tokens), last_row)

    # What it brought

    def _advance(self, part: Part) -> list[EngineEvent]:
        run, rows, last_row = part
        self._fairness.charge(run.tenant, rows)
        chunk = slice(last_row + 1 - rows, last_row + 1)
        scores = self._taps.scores(run.job.probe, chunk) if run.job.probe else None
        was_streaming = run.is_streaming
        run.grow(self._cells.take(rows), scores)
        if was_streaming:
            return self._draw(run, last_row - len(run.draft))
        self._stats.prefilled_tokens += rows
        self._remember_prompt(run)
        if run.computed < len(run.tokens):
            return []
        events: list[EngineEvent] = []
        self._look_in = 0
        if run.prefilled is None:
            run.prefilled = perf_counter()
            prompt_scores = run.scores[: run.computed].tobytes() if run.job.probe else None
            events.append(Prefilled(self._mark(run), prompt_scores))
        return events + self._draw(run, last_row)

    def _draw(self, run: Run, row: int) -> list[EngineEvent]:
        """Draw tokens from ``row`` on: one, and one more for every guess that was right."""
        events: list[EngineEvent] = []
        reason: Literal["stop", "length"] | None = None if run.remaining else "length"
        guesses = [*run.draft, -1]
        base = run.computed - len(run.draft)
        right = 0
        for offset, guess in enumerate(guesses):
            if reason:
                break
            token = run.sampler.draw(self._model, row + offset)
            run.tokens.append(token)
            score = run.scores[base + offset - 1].tobytes() if run.job.probe else None
            log_probability = logprob(self._model, row + offset, token) if run.job.want_logprobs else None
            events.append(Step(token, log_probability, score))
            if token in run.stop_ids:
                reason = "stop"
            elif not run.remaining:
                reason = "length"
            if token != guess:
                break
            right += 1
        if run.draft:
            self._take_back(run, base + right)
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

    # What stays

    def _remember_prompt(self, run: Run) -> None:
        """Store the blocks of the prompt that have just been completed."""
        marks = [mark.position for mark in run.job.cache_marks]
        if self._states.reuse == "snapshots":
            if run.computed in (len(run.job.token_ids), *marks):
                self._remember(run, run.computed)
        elif (end := min(run.computed, len(run.job.token_ids)) // BLOCK * BLOCK) > run.stored:
            self._insert(run, run.key, end)

    def _mark(self, run: Run) -> Written:
        """Keep what the job's marks ask for. Returns what is kept that was not there before."""
        written: Counter[Ttl] = Counter()
        reached = run.cached
        for mark in run.job.cache_marks:
            if self._states.reuse == "anywhere" and mark.position > run.stored:
                self._insert(run, run.key, mark.position)
            kept = self._prefixes.keep(run.tenant, run.key, mark.position, mark.ttl)
            written[mark.ttl] += max(0, kept - reached)
            reached = max(reached, kept)
        return Written(written["5m"], written["1h"])

    def _remember(self, run: Run, end: int) -> None:
        """Store the first ``end`` of its tokens, as far as they are computed."""
        end = min(end, run.computed)
        key = key_of(run.tokens[:end])
        run.stored = 0  # what has been given up meanwhile is stored again: it will not be there for long
        self._insert(run, key, end)
        if end and end == run.computed and self._states.reuse == "snapshots":
            snapshot = self._states.snapshot(run.sequence)
            self._prefixes.add_snapshot(run.tenant, key, end, snapshot)

    def _insert(self, run: Run, key: bytes, end: int) -> None:
        if self._states.reuse != "never":
            scores = (run.job.probe.version, run.scores) if run.job.probe else None
            save = partial(self._states.save, run.sequence)
            self._prefixes.insert(run.tenant, key, end, save, scores, marks=run.marks, since=run.stored)
            run.stored = max(run.stored, end)

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
        self._remember(run, keep)
        self._running.remove(run)
        self._hand_on(run)
        self._release(run)

    def _release(self, run: Run) -> None:
        """Free what the run holds of the cache."""
        self._model.forget(run.sequence)
        self._cells.drop(run.cells[: run.computed])
        self._free.append(run.sequence)
        run.sequence = -1
        run.computed = run.stored = 0
        run.leaders, run.draft = [], []


def _version(job: Job) -> str | None:
    return job.probe.version if job.probe else None
