"""Scores of the end of a text by the served model, by which the guard tells noise."""

import logging

from commonweight.engines.contract import Engine, EngineError, Job, Scored, Scoring
from commonweight.guard.heads.noise import MAX_TOKENS
from commonweight.prompting import Tokenizer
from commonweight.threads import run_in_thread

log = logging.getLogger(__name__)

CONTEXT_TOKENS = 32
"""Before the tokens that are scored."""
MAX_CHARACTERS = 2048
"""That are tokenized. Nearly all texts have more tokens in so many; of others, fewer are scored."""


class EndScorer:
    """Scores the last tokens of texts in short jobs of their own.

    A text is scored apart from its prompt: so the same text has the same score whatever the prefix cache holds,
    and jobs that answer need no logits for their prompts.
    """

    def __init__(self, tokenizer: Tokenizer, engine: Engine) -> None:
        self._tokenizer = tokenizer
        self._engine = engine

    async def __call__(self, text: str, tenant: str) -> list[float] | None:
        """The scores; see :data:`commonweight.guard.heads.noise.ScoreEnd`."""
        bos = self._tokenizer.bos_id
        token_ids = await run_in_thread(self._tokenizer.encode, text.rstrip()[-MAX_CHARACTERS:])
        token_ids = [*([] if bos is None else [bos]), *token_ids][-(MAX_TOKENS + CONTEXT_TOKENS) :]
        token_ids = token_ids[-self._engine.window :]
        if len(token_ids) < 2:
            return []
        # The turn in question keeps its place until then, so the job waits for no other's end.
        scoring = Scoring(start=max(1, len(token_ids) - MAX_TOKENS))
        job = Job(token_ids, max_tokens=0, tenant=tenant, is_urgent=True, scoring=scoring)
        logprobs: list[float] = []
        try:
            async with self._engine.run(job) as generation:
                async for event in generation:
                    if isinstance(event, Scored):
                        logprobs += event.logprobs
        except EngineError as error:
            log.warning("the end of a text was not scored: %s", error)
            return None
        return logprobs
