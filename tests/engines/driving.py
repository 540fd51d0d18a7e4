"""A scheduler in this process, driven step by step, and what must hold whenever it is done."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
from outcomes import GREEDY, Outcome, starter_tokenizer
from reference import random_probe

from commonweight.engines.contract import EngineEvent, Job, Sampling
from commonweight.engines.grammars import GrammarCompiler
from commonweight.engines.llama.kv.disk_tier import DiskTier
from commonweight.engines.llama.kv.prefix_cache import PrefixCache
from commonweight.engines.llama.kv.sequence_state import SequenceState
from commonweight.engines.llama.model.native import EXTRA_OUTPUTS, LlamaBatch, LoadedModel
from commonweight.engines.llama.scheduler.planner import BatchPart
from commonweight.engines.llama.scheduler.scheduler import Scheduler
from commonweight.engines.llama.scheduler.sequence import Sequence
from commonweight.engines.llama.scheduler.step_cost import StepCostModel
from commonweight.llamacpp import api as llama

SEQUENCES = 4
BATCH_ROWS = 256

STARTER_NOISE = 0.5
"""More than log-probabilities of the starter model were seen to differ by between shapes of a batch (0.4)."""


# Jobs


def words(length: int, seed: int = 0) -> list[int]:
    """Random tokens that no other seed begins with."""
    draw = random.Random(seed)
    return [3 + seed % 256, *draw.choices(range(3, tiny.VOCABULARY), k=length - 1)]


def counting(start: int, length: int) -> list[int]:
    """Tokens of which the starter model is sure how they go on."""
    return starter_tokenizer().encode(" ".join(map(str, range(start, start + length))))[:length]


PREFIX = words(600, 77)
PROBE = random_probe([0, 1], 64)
"""For a tiny model."""
DOUBTFUL = [126, 10, 140, 200, 177, 237, 78, 192, 78, 127, 239, 126, 10, 140, 200, 177, 237]
"""Its end occurred before, and what followed is one of the few things that the tiny model may say now."""


def job(tokens: list[int], max_tokens: int = 1, **options: Any) -> Job:
    return Job(token_ids=tokens, max_tokens=max_tokens, **{"sampling": GREEDY} | options)


def probed(tokens: list[int], max_tokens: int = 5) -> Job:
    return job(tokens, max_tokens, probe=PROBE)


def doubtful(length: int, seed: int) -> Job:
    return job(DOUBTFUL, length, sampling=Sampling(temperature=1.0, top_k=4, seed=seed), probe=PROBE)


# Schedulers


class Machine:
    """A model and how its memory may be reused; schedulers come and go."""

    def __init__(self, path: Path, cells: int, sequences: int = SEQUENCES, batch_rows: int = BATCH_ROWS) -> None:
        # One thread: a second one spins for the first as soon as anything else keeps a core busy.
        self.model = LoadedModel(
            path,
            cells=cells,
            sequences=sequences,
            batch_rows=batch_rows,
            outputs=sequences + EXTRA_OUTPUTS,
            threads=1,
        )
        self.sequences, self.batch_rows = sequences, batch_rows
        self.states = SequenceState(self.model.context, self.model.handle, self.model.scratch)
        self.grammars = GrammarCompiler(self.model.vocab)

    def bytes_of(self, tokens: int) -> int:
        """What the prefix store takes for a block of so many tokens, with one snapshot if need be."""
        batch = LlamaBatch(tokens)
        batch.add(0, 0, [5] * tokens, outputs=0)
        self.model.decode(batch)
        size = self.states.save_attention(0, 0, tokens).nbytes
        if self.states.reuse == "snapshots":
            size += self.states.save_partial(0).nbytes
        self.model.clear_sequence(0)
        return size

    def longest(self) -> dict[int, int]:
        """The last position of every sequence that has any."""
        memory = llama.llama_get_memory(self.model.context)
        ends = {i: llama.llama_memory_seq_pos_max(memory, i) for i in range(self.model.scratch + 1)}
        return {sequence: end for sequence, end in ends.items() if end != -1}

    def drive(self, **options: Any) -> "Driver":
        """A new scheduler."""
        llama.llama_memory_clear(llama.llama_get_memory(self.model.context), False)
        return Driver(self, **options)


class Steady(StepCostModel):
    """A machine that always computes so many rows of prompts in a step, and guesses for nothing."""

    def __init__(self, chunk: int) -> None:
        super().__init__()
        self._chunk = chunk

    def estimate_step_seconds(self, rows: int) -> float:
        return 0.01

    def max_rows_to_try(self, rows: int) -> int:
        return 512

    def max_prompt_rows(self, seconds: float, beside: int, most: int) -> int:
        return min(self._chunk, most)


class CountingScheduler(Scheduler):
    """Notes what was computed for whom."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prompt_rows: Counter[int] = Counter()
        """By job, until its prompt was done for the first time."""
        self.preempted: set[int] = set()

    def _advance(self, part: BatchPart) -> list[EngineEvent]:
        if part.seq.prefilled is None:
            self.prompt_rows[part.seq.job_id] += part.rows
        return super()._advance(part)

    def _preempt(self, run: Sequence) -> None:
        self.preempted.add(run.job_id)
        super()._preempt(run)


@dataclass
class Driver:
    """A scheduler, and the outcomes of its jobs."""

    machine: Machine
    drafts: int = 0
    ram: int = 1 << 30
    disk: DiskTier | None = None
    sequences: int | None = None
    reserved: int = 0
    jobs: dict[int, Job] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        needs_snapshots = self.machine.states.reuse == "snapshots"
        self.prefixes = PrefixCache(capacity=self.ram, needs_snapshots=needs_snapshots, disk=self.disk)
        self.scheduler = CountingScheduler(
            self.machine.model,
            self.machine.states,
            self.prefixes,
            sequences=self.sequences or self.machine.sequences,
            reserved=self.reserved,
            batch_rows=self.machine.batch_rows,
            drafts=self.drafts,
        )
        self.scheduler.grammars = self.machine.grammars  # one vocabulary for all of them: it takes a while to read

    def submit(self, *jobs: Job) -> list[int]:
        """Queue jobs; their ids count up."""
        ids = list(range(len(self.outcomes), len(self.outcomes) + len(jobs)))
        for run_id, job in zip(ids, jobs, strict=True):
            self.jobs[run_id], self.outcomes[run_id] = job, Outcome()
            self.scheduler.submit(run_id, job)
        return ids

    def slowly(self, chunk: int) -> None:
        """From now on, prompts are read in such chunks."""
        self.scheduler._step_costs = dict.fromkeys(self.scheduler._step_costs, Steady(chunk))

    def step(self, times: int = 1) -> None:
        """Let in, and compute a batch."""
        for _ in range(times):
            for advance in (self.scheduler.admit, self.scheduler.step):
                for run_id, event in advance():
                    self.outcomes[run_id].events.append(event)
            self.check()

    def check(self) -> None:
        """What holds between steps: we and llama.cpp agree on who holds what."""
        scheduler = self.scheduler
        held = {run.seq_id: run.computed - 1 for run in scheduler._running if run.computed}
        assert self.machine.longest() == held
        handles = {int(cell) for run in scheduler._running for cell in run.cells[: run.computed]}
        assert len(handles) == scheduler._cells.used
        assert self.prefixes.ram_bytes <= self.ram

    def check_honest(self) -> None:
        """Every job that was let in once was told exactly what needed no computing."""
        for run_id, outcome in self.outcomes.items():
            if outcome.is_done and run_id not in self.scheduler.preempted:
                outcome.check_order()
                assert outcome.cached + self.scheduler.prompt_rows[run_id] == len(self.jobs[run_id].token_ids)

    def run(self, *jobs: Job) -> list[Outcome]:
        """Run jobs, and all that are there, to their ends."""
        ids = self.submit(*jobs)
        self.finish()
        return [self.outcomes[run_id] for run_id in ids]

    def finish(self) -> None:
        """Step until nothing is left to do, which must be soon."""
        for _ in range(20_000):
            stats = self.scheduler.stats
            if not stats.running and not stats.waiting:
                break
            if not self.scheduler.has_work:
                assert self.disk, "jobs wait for nothing"
                time.sleep(0.001)
            self.step()
        self.check_idle()

    def check_idle(self) -> None:
        """Nothing is left of anybody."""
        assert not self.scheduler.has_work
        assert not self.machine.longest()
        stats = self.scheduler.stats
        assert (stats.running, stats.waiting, stats.cells_used) == (0, 0, 0)
        assert self.scheduler._fairness.tenant_count == 0
        assert sorted(self.scheduler._free) == list(range(self.scheduler._sequences + self.scheduler._reserved))

    def close(self) -> None:
        """Cancel what is left."""
        for run_id in self.outcomes:
            self.scheduler.cancel(run_id)
        self.check_idle()
        self.prefixes.close()

    def running(self, run_id: int) -> Sequence:
        """A job that is in."""
        return next(run for run in self.scheduler._running if run.job_id == run_id)

    @property
    def pairs(self) -> list[tuple[Job, Outcome]]:
        """Every job with what it has brought."""
        return [(job, self.outcomes[run_id]) for run_id, job in self.jobs.items()]

    @property
    def inside(self) -> list[int]:
        """Ids of jobs that have a sequence."""
        return sorted(run.job_id for run in self.scheduler._running)

    @property
    def prefilled(self) -> int:
        """Prompt rows computed so far."""
        return self.scheduler.stats.prefilled_tokens


def guessing(machine: Machine) -> Driver:
    """A scheduler for which guesses cost nothing."""
    driver = machine.drive(drafts=16)
    driver.slowly(256)
    return driver
