"""Continuous-batching scheduler over one unified KV cache.

Every step computes one batch: the rows of each running stream, or a chunk of the prompts that are still being
read, or both where the chunk is small. Jobs wait until a sequence and enough cells are free, in the order of
``fairness``. A job starts with the cells that the prefix cache or running sequences have for its prefix.

When streams outgrow the cells, or a job of higher rank waits, a job is preempted: its cells are stored in the
prefix cache, it goes back to the queue, and no event that was sent is lost or repeated.
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
    Scoring,
    Stats,
    Step,
)
from commonweight.engines.grammars import GrammarCompiler, GrammarError
from commonweight.engines.llama.kv.blocks import encode_key, round_down_to_blocks
from commonweight.engines.llama.kv.cells import Cells
from commonweight.engines.llama.kv.prefix_cache import PrefixCache
from commonweight.engines.llama.kv.sequence_state import SequenceState
from commonweight.engines.llama.model.logprobs import compute_logprob, score_rows
from commonweight.engines.llama.model.native import CacheFullError, LlamaBatch, LoadedModel
from commonweight.engines.llama.model.probes import LayerTaps
from commonweight.engines.llama.model.threads import ThreadTuner
from commonweight.engines.llama.scheduler.fairness import VirtualTokenCounters
from commonweight.engines.llama.scheduler.planner import BatchPart, BatchPlanner, Rank
from commonweight.engines.llama.scheduler.prefix_reuse import Leaders, PrefixReuse
from commonweight.engines.llama.scheduler.sequence import Sequence
from commonweight.engines.llama.scheduler.step_cost import StepCostModel

ADMISSION_RETRY_STEPS = 32
"""Steps after which admission of a waiting job is tried again, even if no sequence or cell was freed."""

JobEvents = list[tuple[int, EngineEvent]]


class Scheduler:
    """Owns the model's KV cache; :meth:`admit` and :meth:`step`, called in turns, run all jobs."""

    def __init__(
        self,
        model: LoadedModel,
        seq_state: SequenceState,
        prefix_cache: PrefixCache,
        *,
        sequences: int,
        reserved: int = 0,
        batch_rows: int,
        drafts: int,
    ) -> None:
        self._model = model
        self._prefix_cache = prefix_cache
        self._sequences = sequences - reserved
        self._reserved = reserved
        self._free = list(range(sequences))
        self._cells = Cells(model.cells)
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._fairness = VirtualTokenCounters()
        self._threads = ThreadTuner(model.threads)
        self._is_idle = True
        self._step_costs = {count: StepCostModel() for count in range(1, model.threads + 1)}
        self._steps_until_retry = 0
        self._taps = LayerTaps(model.context)
        self._tapped: set[int] = set()
        self._stats = Stats(cells=model.cells)
        self._reuse = PrefixReuse(model, seq_state, prefix_cache, self._cells, self._stats)
        self._batch = LlamaBatch(batch_rows)
        self.grammars = GrammarCompiler(model.vocab)
        self.failed: list[tuple[int, str]] = []
        """Ids of jobs that failed, and why; the caller reports and removes them."""
        can_guess = not model.is_recurrent and seq_state.reuse != "never"
        attention = model.attention_cost if seq_state.reuse == "anywhere" else None
        self._planner = BatchPlanner(self._batch, self._cells, self._reuse, drafts if can_guess else 0, attention)

    @property
    def has_work(self) -> bool:
        """Whether any job can proceed without waiting for the disk."""
        return bool(self._running) or any(not seq.is_loading for seq in self._waiting)

    def set_idle(self, is_idle: bool) -> None:
        """Set whether no job can proceed: disk writes wait for such pauses."""
        self._prefix_cache.allow_disk_writes(is_idle)
        if self._is_idle and not is_idle:
            self._threads.restart()
        self._is_idle = is_idle

    @property
    def stats(self) -> Stats:
        """The latest figures."""
        stats = self._stats
        stats.running, stats.waiting = len(self._running), len(self._waiting)
        stats.cells_used = self._cells.used
        stats.ram_bytes, stats.disk_bytes = self._prefix_cache.ram_bytes, self._prefix_cache.disk_bytes
        return stats

    def submit(self, job_id: int, job: Job) -> None:
        """Queue a job.

        Raises:
            ValueError: its probe or its tokens do not fit this model, or its grammar is invalid.
        """
        if job.probe and (reason := self._taps.check_probe(job.probe)):
            raise ValueError(reason)
        for name, tokens in (("prompt", job.token_ids), ("stop", job.stop_ids)):
            if tokens and not 0 <= min(tokens) <= max(tokens) < self._model.vocabulary_size:
                raise ValueError(f"a {name} token is not in this model's vocabulary")
        if job.scoring and job.scoring.top > self._model.vocabulary_size:
            raise ValueError(f"this model's vocabulary has {self._model.vocabulary_size} tokens, fewer than top")
        guide = None
        if job.grammar is not None:
            guide = self.grammars.create_matcher(job.grammar, frozenset(job.stop_ids), job.tenant)
        seq = Sequence(job_id, job, guide)
        self._fairness.add_job(job.tenant)
        self._waiting.append(seq)
        self._steps_until_retry = 0

    def cancel(self, job_id: int, keep: int | None = None) -> None:
        """Drop a job and cache at most ``keep`` of its tokens. Unknown ids are of jobs that just finished."""
        for seq in (*self._waiting, *self._running):
            if seq.job_id == job_id:
                if keep is not None:
                    self._reuse.retract(seq, keep)
                self._finish(seq, keep)
                return

    def admit(self) -> JobEvents:
        """Admit as many waiting jobs as fit, and share common prefixes. If any job runs, one can compute."""
        if self._prefix_cache.collect_disk_events():
            self._steps_until_retry = 0
        self._admit_waiting()
        for seq in self._running:
            self._reuse.follow_leaders(seq)
        return self._report_admitted()

    def step(self) -> JobEvents:
        """Compute one batch of the running jobs and sample tokens. Blocks for as long as the batch takes."""
        if not self._running:
            return []
        parts = self._compute_batch()
        # A follower whose leader was preempted computes from here on.
        return self._report_admitted() + [
            (part.seq.job_id, event) for part in parts for event in self._advance(part)
        ]

    def _report_admitted(self) -> JobEvents:
        """Report the sequences that wait for no leader any more as admitted."""
        events: JobEvents = []
        for seq in self._running:
            if seq.admitted is None and not seq.leaders:
                seq.admitted, seq.cached_tokens = perf_counter(), seq.computed
                self._stats.queue_seconds += seq.admitted - seq.arrived
                events.append((seq.job_id, Admitted(seq.cached_tokens)))
        return events

    # Admission

    @property
    def _step_cost(self) -> StepCostModel:
        """That of the number of threads that compute now."""
        return self._step_costs[self._threads.threads]

    def _admit_waiting(self) -> None:
        self._steps_until_retry -= 1
        if self._steps_until_retry > 0 and self._running:
            return
        self._steps_until_retry = ADMISSION_RETRY_STEPS
        claimant: Sequence | None = None
        while ready := [seq for seq in self._waiting if not seq.is_loading]:
            seq = claimant or min(ready, key=self._rank)
            claimant = None
            there = self._reuse.find_reusable(seq, self._running, self._step_cost)
            if seq.is_loading:
                continue
            if not there.leaders and self._should_wait(seq):
                return
            if self._fits(seq, len(seq.tokens) - there.shared + seq.reserved_cells):
                self._start(seq, there.leaders)
            elif victim := self._find_victim(seq):
                self._preempt(victim)
                claimant = seq  # or the victim, which has waited longer, would come back in its place
            else:
                return

    def _rank(self, seq: Sequence) -> Rank:
        """Scheduling order: smaller comes first."""
        return seq.is_batch - seq.is_urgent, self._fairness.get_counter(seq.tenant), seq.queued_at

    def _should_wait(self, seq: Sequence) -> bool:
        """Whether restoring its cells now would only slow down sequences that are ahead in prefill."""
        return round_down_to_blocks(seq.match.length) > 0 and any(
            not other.is_streaming and not other.leaders and self._rank(other) < self._rank(seq)
            for other in self._running
        )

    def _fits(self, seq: Sequence, need: int) -> bool:
        if len(self._free) <= (0 if seq.is_urgent else self._reserved):
            return False
        needed = sum(seq.needed_cells for seq in self._running)
        return not self._running or self._cells.used + needed + need <= self._cells.capacity

    def _find_victim(self, seq: Sequence) -> Sequence | None:
        """Sequence to preempt for ``seq``: a batch job for an interactive one, one of a tenant above its share, or
        any for an urgent one, of the same tenant if possible."""
        jobs = Counter(other.tenant for other in self._running)
        share = max(1, self._sequences // self._fairness.tenant_count)
        victims = [
            other
            for other in self._running
            if self._rank(seq)[:2] <= self._rank(other)[:2]
            and (
                seq.is_urgent > other.is_urgent
                or seq.is_batch < other.is_batch
                or jobs[seq.tenant] < share < jobs[other.tenant]
            )
        ]
        if seq.is_urgent:
            victims = [other for other in victims if other.tenant == seq.tenant] or victims
        return max(victims, key=self._rank, default=None)

    def _start(self, seq: Sequence, leaders: Leaders) -> None:
        self._waiting.remove(seq)
        seq.seq_id = self._free.pop()
        self._running.append(seq)
        if seq.job.probe and not self._tapped.issuperset(seq.job.probe.layers):
            self._tapped.update(seq.job.probe.layers)
            self._taps.select_layers(self._tapped)  # never deselected: changing the selection costs more
        self._reuse.start_sequence(seq, leaders)
        for leader, _ in seq.leaders:  # the leader computes for this one, too
            leader.is_batch &= seq.is_batch

    # One batch

    def _compute_batch(self) -> list[BatchPart]:
        """Compute one batch of parts, making room first if streams have outgrown the cells."""
        self._model.set_threads(self._threads.choose())
        while True:
            parts = self._planner.plan_batch(self._running, self._rank, self._step_cost)
            if not 0 < self._batch.rows <= self._cells.free:
                self._preempt(max(self._running, key=self._rank))
                continue
            started = perf_counter()
            try:
                self._model.decode(self._batch)
            except CacheFullError:
                if len(self._running) < 2:
                    raise
                self._preempt(max(self._running, key=self._rank))
                continue
            seconds = perf_counter() - started
            # Scored rows come in chunks like other rows of prompts.
            decode_rows = self._batch.outputs - sum(part.scored for part in parts)
            self._step_cost.observe(self._batch.rows, decode_rows, seconds)
            self._stats.steps += 1
            self._stats.step_seconds += seconds
            return parts

    # Results of a batch

    def _advance(self, part: BatchPart) -> list[EngineEvent]:
        seq, rows, last_row, padding, scored = part
        self._fairness.charge(seq.tenant, rows)
        chunk = slice(last_row + 1 - rows, last_row + 1)
        scores = self._taps.compute_scores(seq.job.probe, chunk) if seq.job.probe else None
        was_streaming = seq.is_streaming
        seq.append_computed(self._cells.take(rows), scores)
        if padding:
            self._model.truncate_sequence(seq.seq_id, seq.computed)
        if was_streaming:
            events = self._sample(seq, last_row - len(seq.draft))
            if seq in self._running:
                self._reuse.store_prompt(seq)
            return events
        self._stats.prefilled_tokens += rows
        self._reuse.store_prompt(seq)
        events = []
        if seq.job.scoring:
            events += self._score(seq, seq.job.scoring, range(last_row + 1 - scored, last_row + 1))
        if seq.computed < len(seq.tokens):
            return events
        self._steps_until_retry = 0
        if seq.prefilled is None:
            seq.prefilled = perf_counter()
            prompt_scores = seq.scores[: seq.computed].tobytes() if seq.job.probe else None
            events.append(Prefilled(self._reuse.apply_marks(seq), prompt_scores))
        return events + self._sample(seq, last_row)

    def _score(self, seq: Sequence, scoring: Scoring, rows: range) -> list[EngineEvent]:
        """Score the tokens behind rows, the last of which is the last computed token. The prompt's last token has
        none behind it."""
        start = seq.computed + 1 - len(rows)
        tokens = seq.tokens[start : seq.computed + 1]
        if not tokens:
            return []
        seq.scored = seq.computed
        return [score_rows(self._model, rows.start, tokens, start, scoring.top)]

    def _sample(self, seq: Sequence, row: int) -> list[EngineEvent]:
        """Sample tokens from ``row`` on: one, and one more for every accepted draft token."""
        events: list[EngineEvent] = []
        reason: Literal["stop", "length"] | None = None if seq.remaining else "length"
        is_known = bool(seq.forced)
        base = seq.computed - len(seq.draft)
        right = 0
        for offset, expected in enumerate([*seq.draft, -1]):
            if reason:
                break
            draw = partial(seq.sampler.sample, self._model, row + offset)
            try:
                token = seq.guide.sample_token(draw) if seq.guide else draw()
            except GrammarError as error:
                self.failed.append((seq.job_id, f"the answer could not be held to its grammar: {error}"))
                self._finish(seq, base + right)
                return events
            seq.tokens.append(token)
            score = seq.scores[base + offset - 1].tobytes() if seq.job.probe else None
            log_probability = compute_logprob(self._model, row + offset, token) if seq.job.want_logprobs else None
            events.append(Step(token, log_probability, score))
            if token in seq.stop_ids:
                reason = "stop"
            elif not seq.remaining:
                reason = "length"
            if token != expected:
                break
            right += 1
        self._reject_drafts(seq, base + right)
        if is_known:
            self._stats.forced_tokens += right
        else:
            self._stats.drafted_tokens += len(seq.draft)
            self._stats.accepted_tokens += right
        if seq.drafter:
            seq.drafter.extend(seq.tokens[len(seq.tokens) - len(events) :])
        seq.draft = []
        self._stats.generated_tokens += len(events)
        if reason:
            events.append(Finish(reason, seq.make_timings()))
            self._finish(seq)
        return events

    def _reject_drafts(self, seq: Sequence, end: int) -> None:
        """Free the cells of rejected draft tokens."""
        if end < seq.computed:
            self._model.truncate_sequence(seq.seq_id, end)
            self._cells.drop(seq.cells[end : seq.computed])
            seq.computed = end

    # Leaving

    def _preempt(self, seq: Sequence) -> None:
        seq.marks = [*seq.marks, CacheMark(seq.computed)]  # it will be restored soon
        self._stop(seq, seq.computed)
        seq.key = encode_key(seq.tokens)
        self._waiting.append(seq)
        self._stats.preemptions += 1

    def _finish(self, seq: Sequence, keep: int | None = None) -> None:
        if seq in self._running:
            self._stop(seq, seq.computed if keep is None else keep)
        else:
            self._waiting.remove(seq)
        self._fairness.finish_job(seq.tenant)
        self._steps_until_retry = 0

    def _stop(self, seq: Sequence, keep: int) -> None:
        self._running.remove(seq)
        self._reuse.release_sequence(seq, keep, self._running)
        self._free.append(seq.seq_id)
        seq.seq_id = -1
        seq.leaders, seq.draft = [], []
