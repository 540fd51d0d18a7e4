"""The served model as judge: scores yes and no as its answers."""

import asyncio
import math
from collections.abc import Sequence

from commonweight.engines.contract import CacheMark, Engine, EngineError, Job, Sampling, Step
from commonweight.guard.judge.judge import JudgeError, JudgeQuestion
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Prompt, Renderer

MAX_WORD_TOKENS = 8
"""Of a word, and the token that ends it."""


class SelfJudge:
    """Asks the served model for the probabilities of the two answers, in jobs without a guard."""

    def __init__(self, renderer: Renderer, engine: Engine, stop_ids: Sequence[int]) -> None:
        self._renderer = renderer
        self._engine = engine
        self._stop_ids = list(stop_ids)

    async def __call__(self, question: JudgeQuestion) -> float:
        """The probability of yes, of what yes and no have together.

        Raises:
            JudgeError: the engine is full or failed, or the question does not fit its window.
        """
        request = MessageRequest.model_validate(
            {
                "model": "judge",
                "max_tokens": 1,
                "system": [
                    {"type": "text", "text": question.instructions, "cache_control": {"type": "ephemeral"}}
                ],
                "messages": [{"role": "user", "content": question.material}],
            }
        )
        try:
            prompt = await asyncio.to_thread(self._renderer.render, request, question.tenant)
            if len(prompt.token_ids) + MAX_WORD_TOKENS > self._engine.window:
                raise JudgeError("the question is longer than the window")
            yes, no = [await self._score_word(word, prompt) for word in ("yes", "no")]
        except InvalidRequestError as error:
            raise JudgeError("the model's template cannot put the question") from error
        except EngineError as error:
            raise JudgeError(type(error).__name__) from error
        return 1 / (1 + math.exp(min(700.0, no - yes)))

    async def _score_word(self, word: str, prompt: Prompt) -> float:
        """Score a word: the log-probability that the model's answer begins with it."""
        job = Job(
            token_ids=prompt.token_ids,
            max_tokens=MAX_WORD_TOKENS,
            stop_ids=self._stop_ids,
            sampling=Sampling(temperature=0),
            grammar=f'start: "{word}"',
            want_logprobs=True,
            # The principle is read once for many questions, and for the second word so is the question.
            cache_marks=[CacheMark(position, ttl) for position, ttl in prompt.marks],
            tenant=prompt.tenant,
            # The answer in question is held back until then, while it keeps its place.
            is_urgent=True,
        )
        total = 0.0
        async with self._engine.run(job) as generation:
            async for event in generation:
                if isinstance(event, Step) and event.token_id not in self._stop_ids:
                    total += event.logprob or 0.0
        return total
