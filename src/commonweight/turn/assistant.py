"""The assistant: a model's engine and prompting put together. Every way in (HTTP, terminal) is its client."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from commonweight.catalog.model import ModelCard
from commonweight.engines.contract import Engine, EngineError, EngineFullError, Job, Sampling
from commonweight.messages.errors import ApiError, InvalidRequestError, OverloadedError
from commonweight.messages.events import StreamEvent
from commonweight.messages.request import CountTokensRequest, MessageRequest
from commonweight.messages.response import StopReason
from commonweight.prompting import OutputParser, Prompt, Renderer, Tokenizer
from commonweight.turn.answer import Answer


@dataclass(frozen=True)
class Turn:
    """A request that is ready to run: valid for this model, rendered, and sure to fit its window."""

    request: MessageRequest
    prompt: Prompt
    job: Job


class Assistant:
    """Answers requests with one model."""

    def __init__(self, card: ModelCard, tokenizer: Tokenizer, engine: Engine) -> None:
        self.card = card
        self.engine = engine
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer, card.chat_template)
        self._stop_ids = sorted(tokenizer.end_ids)

    async def count_tokens(self, request: CountTokensRequest) -> int:
        """The tokens of the request's prompt, rendered as it would run."""
        return len((await self._render(request)).token_ids)

    async def prepare(self, request: MessageRequest) -> Turn:
        """Everything that can fail because of the request.

        Raises:
            InvalidRequestError: it does not fit this model, in the API's own words where clients act on them.
        """
        if request.tool_choice is not None and request.tool_choice.type in ("any", "tool"):
            raise InvalidRequestError("tool_choice: forcing a tool call is not supported by this server yet")
        if request.output_config is not None and request.output_config.format is not None:
            raise InvalidRequestError("output_config.format: Extra inputs are not permitted")
        prompt = await self._render(request)
        room = self.engine.window - len(prompt.token_ids)
        if room < 0:
            raise InvalidRequestError(
                f"prompt is too long: {len(prompt.token_ids)} tokens > {self.engine.window} maximum"
            )
        if not prompt.token_ids:
            raise InvalidRequestError("messages: the conversation holds no text that this model can read")
        job = Job(
            token_ids=prompt.token_ids,
            max_tokens=min(request.max_tokens, room),
            stop_ids=self._stop_ids,
            sampling=Sampling(
                temperature=1.0 if request.temperature is None else request.temperature,
                top_p=1.0 if request.top_p is None else request.top_p,
                top_k=min(request.top_k or 0, self._tokenizer.size),
            ),
        )
        return Turn(request, prompt, job)

    async def stream(self, turn: Turn) -> AsyncGenerator[StreamEvent]:
        """Run the turn. Close the iterator (``contextlib.aclosing``) to cancel.

        Raises:
            ApiError: the engine is full or has failed.
        """
        request = turn.request
        parser = OutputParser(self._tokenizer, turn.prompt, request.stop_sequences or [])
        is_clamped = turn.job.max_tokens < request.max_tokens
        at_limit: StopReason = "model_context_window_exceeded" if is_clamped else "max_tokens"
        answer = Answer(request.model, len(turn.job.token_ids), parser, at_limit)
        try:
            async with self.engine.run(turn.job) as generation:
                async for step in generation:
                    for event in answer.take(step):
                        yield event
                    if answer.is_complete:
                        # The engine may be ahead; what it drew past a stop sequence is nobody's.
                        generation.truncate(len(turn.job.token_ids) + answer.output_tokens)
                        return
        except EngineFullError as error:
            raise OverloadedError(str(error), retry_after=1) from error
        except EngineError as error:
            raise ApiError(str(error)) from error

    async def _render(self, request: CountTokensRequest) -> Prompt:
        # Tokenizing runs without the interpreter lock, so other requests go on meanwhile.
        return await asyncio.to_thread(self._renderer.render, request)
