"""Sequence: scheduler state of one job."""

from time import perf_counter

import numpy as np

from commonweight.engines.contract import Job, Timings
from commonweight.engines.grammars import GrammarMatcher
from commonweight.engines.llama.kv.blocks import ProbeScores, encode_key
from commonweight.engines.llama.kv.cells import Handles
from commonweight.engines.llama.kv.prefix_cache import NO_MATCH
from commonweight.engines.llama.model.sampler import Sampler
from commonweight.engines.llama.scheduler.lookup import Drafter

RESERVED_CELLS = 256
"""Cells kept free for each stream to grow into before another is admitted."""


class Sequence:
    """Tokens of one job (prompt and answer), which of them are computed, and in which KV cells."""

    def __init__(self, job_id: int, job: Job, guide: GrammarMatcher | None = None) -> None:
        self.job_id = job_id
        self.job = job
        self.tokens = list(job.token_ids)
        self.key = encode_key(job.token_ids)
        """Tokens at the time it was queued, encoded for the prefix cache."""
        self.stop_ids = frozenset(job.stop_ids)
        self.sampler = Sampler(job.sampling)
        self.drafter: Drafter | None = None
        self.is_batch = job.priority == "batch"
        self.is_urgent = job.is_urgent
        self.arrived = self.queued_at = perf_counter()
        self.admitted: float | None = None
        self.prefilled: float | None = None
        self.cached_tokens = 0
        """Prompt tokens that were reused at admission."""
        self.match = NO_MATCH
        """Match in the prefix cache at the last lookup."""
        self.prefetched_tokens = 0
        """Tokens prefetched from disk; a prefetch is tried once."""
        self.seq_id = -1
        self.computed = 0
        self.stored = 0
        """Leading tokens already stored in the prefix cache."""
        # The last token that may be drawn is never computed.
        self.cells: Handles = np.zeros(len(self.tokens) + job.max_tokens, np.int32)
        self.leaders: list[tuple[Sequence, int]] = []
        """Running sequences that compute this one's prefix, and its length; the longest last."""
        width = job.probe.heads if job.probe else 0
        self.scores: ProbeScores = np.zeros((len(self.cells), width), np.float32)
        """Probe scores of each computed token."""
        self.guide = guide
        """Grammar state of its answer."""
        self.draft: list[int] = []
        """Draft tokens of the next step, behind the last generated one: guesses, or forced by the grammar."""
        self.marks = job.cache_marks
        """Cache marks that apply to its blocks as soon as they are stored."""
        self.scored = job.scoring.start - 1 if job.scoring else 0
        """Of a scoring job: leading tokens whose logits are not needed, or not any more."""

    @property
    def tenant(self) -> str:
        """Tenant of the job."""
        return self.job.tenant

    @property
    def probe_version(self) -> str | None:
        """Version of its probe: cached blocks must have scores of that version."""
        return self.job.probe.version if self.job.probe else None

    @property
    def forced(self) -> list[int]:
        """Next tokens that the grammar leaves no alternative to: they are not drawn."""
        return self.guide.forced if self.guide else []

    @property
    def max_reused(self) -> int:
        """Leading tokens that may be reused: logits of those behind are needed."""
        return self.scored if self.job.scoring else len(self.tokens) - 1

    @property
    def max_stored(self) -> int:
        """Leading tokens that the prefix cache may keep: scored ones are not expected again."""
        return self.job.scoring.start - 1 if self.job.scoring else len(self.tokens)

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.job.token_ids)

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.job.max_tokens - self.generated

    @property
    def is_streaming(self) -> bool:
        """Whether it is in decode: all tokens but the last generated one are computed."""
        return self.generated > 0 and self.computed == len(self.tokens) - 1

    @property
    def reserved_cells(self) -> int:
        """Cells kept free for tokens that it will generate."""
        return min(self.remaining, RESERVED_CELLS)

    @property
    def needed_cells(self) -> int:
        """Cells that it will need soon."""
        promised = self.leaders[-1][1] if self.leaders else self.computed
        return len(self.tokens) - promised + self.reserved_cells

    @property
    def is_loading(self) -> bool:
        """Whether the disk is reading for it."""
        return any(block.is_loading for block in self.match.blocks)

    def count_scored(self, end: int) -> int:
        """Rows of a chunk from ``computed`` to ``end`` whose logits score the token behind them."""
        return max(end - max(self.computed, self.scored), 0) if self.job.scoring else 0

    def append_computed(self, handles: Handles, scores: ProbeScores | None) -> None:
        """Add the cells, and the probe scores, of newly computed tokens."""
        end = self.computed + len(handles)
        self.cells[self.computed : end] = handles
        if scores is not None:
            self.scores[self.computed : end] = scores[: len(handles)]
        self.computed = end

    def make_timings(self) -> Timings:
        """Timings of the job, at its end."""
        admitted, prefilled = self.admitted or self.arrived, self.prefilled or self.arrived
        return Timings(
            queued=admitted - self.arrived, prefill=prefilled - admitted, decode=perf_counter() - prefilled
        )
