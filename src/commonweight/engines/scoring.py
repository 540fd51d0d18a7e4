"""Scoring of given tokens: checks of scoring jobs, and ``Engine.score`` on top of ``Engine.run``."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

from commonweight.engines.contract import ALL_TOKENS, Generation, Job, Priority, Scored, Scoring


def check_scoring(job: Job) -> None:
    """Check the fields of a job that scores its prompt; other jobs pass.

    Raises:
        ValueError: a field is out of range, or asks for an answer.
    """
    if job.scoring is None:
        return
    if len(job.token_ids) < 2:
        raise ValueError("scoring needs at least two tokens: the first one has no probability")
    if not 0 < job.scoring.start < len(job.token_ids):
        raise ValueError(
            f"scoring starts at a position from 1 to {len(job.token_ids) - 1}, not {job.scoring.start}"
        )
    if job.scoring.top < ALL_TOKENS:
        raise ValueError(f"top is a number of tokens or ALL_TOKENS ({ALL_TOKENS}), not {job.scoring.top}")
    if job.max_tokens or job.grammar is not None:
        raise ValueError("a job that scores its prompt has no answer: max_tokens is 0, and there is no grammar")


class PromptScorer(ABC):
    """``Engine.score`` of an engine, as a job of its ``run``."""

    @abstractmethod
    def run(self, job: Job) -> AbstractAsyncContextManager[Generation]:
        """Start a job; see :class:`~commonweight.engines.contract.Engine`."""

    async def score(
        self,
        token_ids: Sequence[int],
        *,
        top: int = 0,
        start: int = 1,
        tenant: str = "",
        priority: Priority = "batch",
    ) -> AsyncGenerator[Scored]:
        """Log-probabilities of given tokens; see :class:`~commonweight.engines.contract.Engine`."""
        scoring = Scoring(start, top)
        job = Job(list(token_ids), max_tokens=0, tenant=tenant, priority=priority, scoring=scoring)
        async with self.run(job) as events:
            async for event in events:
                if isinstance(event, Scored):
                    yield event
