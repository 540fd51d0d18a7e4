"""A job on its way through the scheduler."""

from time import perf_counter

import numpy as np

from commonweight.engines.contract import Job, Timings
from commonweight.engines.grammars import Guide
from commonweight.engines.llama.kv.blocks import ProbeScores, encode_key
from commonweight.engines.llama.kv.cells import Handles
from commonweight.engines.llama.kv.prefix_cache import NO_MATCH
from commonweight.engines.llama.model.sampler import Sampler
from commonweight.engines.llama.scheduler.lookup import Drafter

RESERVED_CELLS = 256
"""Cells kept free for each stream to grow into before another is admitted."""


class Sequence:
    """Tokens, how many of them are computed, and where."""

    def __init__(self, job_id: int, job: Job, guide: Guide | None = None) -> None:
        self.job_id = job_id
        self.job = job
        self.tokens = list(job.token_ids)
        self.key = encode_key(job.token_ids)
        """What it had when it was queued, as the prefix store compares it."""
        self.stop_ids = frozenset(job.stop_ids)
        self.sampler = Sampler(job.sampling)
        self.drafter: Drafter | None = None
        self.is_batch = job.priority == "batch"
        self.arrived = self.queued_at = perf_counter()
        self.admitted: float | None = None
        self.prefilled: float | None = None
        self.cached_tokens = 0
        """Prompt tokens that were there when it was admitted."""
        self.match = NO_MATCH
        """What the prefix store held for it when it was last looked up."""
        self.prefetched_tokens = 0
        """Tokens that the disk was asked for; it is asked once."""
        self.seq_id = -1
        self.computed = 0
        self.stored = 0
        """Tokens that the prefix store has been given."""
        # The last token that may be drawn is never computed.
        self.cells: Handles = np.zeros(len(self.tokens) + job.max_tokens, np.int32)
        self.leaders: list[tuple[Sequence, int]] = []
        """Runs that compute the beginning of this one, and up to where; the longest last."""
        width = job.probe.heads if job.probe else 0
        self.scores: ProbeScores = np.zeros((len(self.cells), width), np.float32)
        """Of the probe, for each computed token."""
        self.guide = guide
        """What its answer is held to."""
        self.draft: list[int] = []
        """Tokens of the next step beyond the last drawn: guesses, or ones that are known."""
        self.marks = job.cache_marks
        """What is stored of it counts as marked from the beginning."""

    @property
    def tenant(self) -> str:
        """Whose job it is."""
        return self.job.tenant

    @property
    def probe_version(self) -> str | None:
        """Of its probe: whose scores it needs of what is remembered."""
        return self.job.probe.version if self.job.probe else None

    @property
    def forced(self) -> list[int]:
        """Tokens that its grammar leaves no choice about: they come next, and nothing is drawn."""
        return self.guide.forced if self.guide else []

    @property
    def generated(self) -> int:
        """Tokens drawn so far."""
        return len(self.tokens) - len(self.job.token_ids)

    @property
    def remaining(self) -> int:
        """Tokens that may still be drawn."""
        return self.job.max_tokens - self.generated

    @property
    def is_streaming(self) -> bool:
        """Whether all but the last drawn token are computed."""
        return self.generated > 0 and self.computed == len(self.tokens) - 1

    @property
    def reserved_cells(self) -> int:
        """Cells that are kept free for what it will generate."""
        return min(self.remaining, RESERVED_CELLS)

    @property
    def needed_cells(self) -> int:
        """Cells that it will soon take."""
        promised = self.leaders[-1][1] if self.leaders else self.computed
        return len(self.tokens) - promised + self.reserved_cells

    @property
    def is_loading(self) -> bool:
        """Whether the disk is reading for it."""
        return any(block.is_loading for block in self.match.blocks)

    def append_computed(self, handles: Handles, scores: ProbeScores | None) -> None:
        """More of its tokens are computed: their cells, and what a probe says of them."""
        end = self.computed + len(handles)
        self.cells[self.computed : end] = handles
        if scores is not None:
            self.scores[self.computed : end] = scores[: len(handles)]
        self.computed = end

    def make_timings(self) -> Timings:
        """Where its time went, at its end."""
        admitted, prefilled = self.admitted or self.arrived, self.prefilled or self.arrived
        return Timings(
            queued=admitted - self.arrived, prefill=prefilled - admitted, decode=perf_counter() - prefilled
        )
