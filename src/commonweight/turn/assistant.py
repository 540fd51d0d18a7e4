"""The assistant: a model's engine and prompting put together. Every way in (HTTP, terminal) is its client."""

import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from commonweight.catalog.model import ModelCard
from commonweight.engines.contract import (
    CacheMark,
    Engine,
    EngineError,
    EngineEvent,
    EngineFullError,
    Finish,
    Generation,
    Job,
    Prefilled,
    Probe,
    Sampling,
    Step,
)
from commonweight.guard import Guard, Judge, Screening, extract_input
from commonweight.messages.errors import ApiError, InvalidRequestError, OverloadedError
from commonweight.messages.events import StreamEvent
from commonweight.messages.request import CountTokensRequest, MessageRequest
from commonweight.messages.response import AppliedEdits, OriginalTokens, StopReason, TokenCount
from commonweight.prompting import OutputParser, Prompt, Renderer, Tokenizer
from commonweight.turn.answer import Answer
from commonweight.turn.prepare import LoadFiles, fingerprint_conversation, prepare_prompt
from commonweight.turn.record import ANONYMOUS, Origin, Stopwatch, TurnListener, TurnRecord
from commonweight.turn.release import ReleaseGate
from commonweight.turn.self_judge import SelfJudge
from commonweight.turn.signature import Signer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Turn:
    """A request that is ready to run: valid for this model, rendered, and sure to fit its window."""

    request: MessageRequest
    prompt: Prompt
    job: Job
    edits: AppliedEdits | None
    origin: Origin = ANONYMOUS
    stopwatch: Stopwatch = field(default_factory=Stopwatch)


class Assistant:
    """Answers requests with one model."""

    def __init__(
        self,
        card: ModelCard,
        tokenizer: Tokenizer,
        engine: Engine,
        signer: Signer,
        max_output: int | None = None,
    ) -> None:
        self.card = card
        self.engine = engine
        self._max_output = max_output
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer, card.chat_template)
        self._signer = signer
        self._stop_ids = sorted(tokenizer.end_ids)
        self.listeners: list[TurnListener] = []
        """Called with the record of every turn that was begun, at its end."""
        self.load_files: LoadFiles | None = None
        """Where uploaded files come from; None: there are none."""
        self.guard: Guard | None = None
        """What keeps exchanges to a charter; None: nothing does."""

    @property
    def max_output(self) -> float:
        """Most tokens that a request may ask for. Without a limit, an answer is cut at the end of the window."""
        return math.inf if self._max_output is None else self._max_output

    @property
    def thinks(self) -> bool:
        """Whether the model can reason before it answers."""
        return self._renderer.template.thinking is not None

    @property
    def has_effort(self) -> bool:
        """Whether the model can be told how hard to think."""
        return self._renderer.template.has_effort

    @property
    def judge(self) -> Judge:
        """The model as a judge of exchanges."""
        return SelfJudge(self._renderer, self.engine, self._stop_ids)

    def tokens(self, text: str) -> list[int]:
        """A text's own tokens, none of them special."""
        return self._tokenizer.encode(text)

    async def count_tokens(self, request: CountTokensRequest, tenant: str = "") -> TokenCount:
        """The tokens of the request's prompt, rendered as it would run."""
        ready = await prepare_prompt(request, self._renderer, self._signer, tenant, self.load_files)
        original = OriginalTokens(original_input_tokens=ready.original_tokens) if ready.edits else None
        return TokenCount(input_tokens=len(ready.prompt.token_ids), context_management=original)

    async def prepare(self, request: MessageRequest, origin: Origin = ANONYMOUS) -> Turn:
        """Everything that can fail because of the request.

        Raises:
            InvalidRequestError: it does not fit this model, in the API's own words where clients act on them.
            NotFoundError: it refers to a file that is not there.
        """
        watch = Stopwatch()
        if request.max_tokens > self.max_output:
            raise InvalidRequestError(
                f"max_tokens: {request.max_tokens} > {self.max_output}, which is the maximum allowed number of "
                f"output tokens for {request.model}"
            )
        ready = await prepare_prompt(request, self._renderer, self._signer, origin.tenant, self.load_files)
        prompt = ready.prompt
        length, window = len(prompt.token_ids), self.engine.window
        room = window - length
        if room < 0:
            raise InvalidRequestError(f"prompt is too long: {length} tokens > {window} maximum")
        if room == 0 < request.max_tokens:
            raise InvalidRequestError(
                f"input length and `max_tokens` exceed context limit: {length} + {request.max_tokens} > {window}, "
                "decrease input length or `max_tokens` and try again"
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
            grammar=prompt.grammar,
            cache_marks=[CacheMark(position, ttl) for position, ttl in prompt.marks],
            tenant=prompt.tenant,
            session=origin.session or fingerprint_conversation(request),
            priority=origin.priority,
            probe=self._probe(),
        )
        watch.mark_prepared()
        return Turn(request, prompt, job, ready.edits, origin, watch)

    async def stream(self, turn: Turn) -> AsyncGenerator[StreamEvent]:
        """Run the turn. Close the iterator (``contextlib.aclosing``) to cancel.

        Raises:
            ApiError: the engine is full or has failed.
        """
        request, prompt = turn.request, turn.prompt
        parser = OutputParser(self._tokenizer, prompt.parser_config, request.stop_sequences or [])
        is_clamped = turn.job.max_tokens < request.max_tokens
        at_limit: StopReason = "model_context_window_exceeded" if is_clamped else "max_tokens"
        answer = Answer(request, prompt, parser, self._signer, at_limit, turn.edits)
        screening = (
            self.guard.start_screening(extract_input(request), turn.origin.waived, prompt.tenant)
            if self.guard
            else None
        )
        told = ReleaseGate(whole_calls=screening is not None and screening.guards_calls)
        with self._recorded(turn, answer, told, screening), _api_errors():
            if screening is not None:
                await screening.screen_input()
                if screening.refusal is not None:
                    for event in told.finish(answer.refuse(screening.refusal)):
                        yield event
                    return
            async with self.engine.run(turn.job) as generation:
                async for step in generation:
                    turn.stopwatch.mark_event(step)
                    events = list(answer.process(step))
                    if screening is not None:
                        await _screen(screening, step, answer, prompt)
                    if screening is not None and screening.refusal is not None:
                        generation.truncate(len(prompt.token_ids))
                        leaving = told.finish(events if isinstance(step, Prefilled) else [])
                        leaving += told.finish(answer.refuse(screening.refusal))
                    else:
                        leaving = told.push(events, holds=screening is not None and screening.is_holding)
                        if answer.is_complete:
                            self._finish(generation, prompt, answer, told)
                    for event in leaving:
                        yield event
                    if answer.is_complete:
                        return

    def _probe(self) -> Probe | None:
        """What the engine computes for the guard beside the tokens."""
        probe = self.guard.probe if self.guard else None
        return None if probe is None else Probe(*probe)

    @contextlib.contextmanager
    def _recorded(
        self, turn: Turn, answer: Answer, told: ReleaseGate, screening: Screening | None
    ) -> Iterator[None]:
        """Tell the listeners of the turn when the block is left, in whatever way."""
        error: str | None = None
        try:
            yield
        except Exception as failure:
            error = failure.type if isinstance(failure, ApiError) else ApiError.type
            raise
        finally:
            record = TurnRecord(
                origin=turn.origin,
                model=turn.request.model,
                served_by=self.card.id,
                usage=answer.usage,
                stop_reason=answer.stop_reason,
                error=error,
                times=turn.stopwatch.read_times(),
                findings=screening.findings if screening else None,
                request=turn.request,
                message=lambda: told.message if told.has_started else None,
            )
            for listener in self.listeners:
                try:
                    listener(record)
                except Exception:
                    log.exception("a listener failed (%s)", turn.origin.request_id)

    def _finish(self, generation: Generation, prompt: Prompt, answer: Answer, told: ReleaseGate) -> None:
        # The engine may be ahead; what it drew past a stop sequence is nobody's.
        generation.truncate(len(prompt.token_ids) + len(answer.token_ids))
        if answer.is_whole:
            ids = answer.token_ids
            said = ids[:-1] if ids and ids[-1] in self._tokenizer.end_ids else ids
            self._renderer.remember_answer(prompt, told.message.content, said, answer.reasoning)


async def _screen(screening: Screening, event: EngineEvent, answer: Answer, prompt: Prompt) -> None:
    """Show the guard what came, before any of it leaves."""
    match event:
        case Prefilled(scores=scores):
            await screening.screen_prompt(scores, *prompt.user_span)
        case Step(scores=scores):
            await screening.screen_token(scores, answer.place, answer.latest)
            if answer.is_complete:
                await screening.finish(answer.place)
        case Finish():
            await screening.finish(answer.place)
        case _:
            pass


@contextlib.contextmanager
def _api_errors() -> Iterator[None]:
    try:
        yield
    except EngineFullError as error:
        raise OverloadedError(str(error), retry_after=1) from error
    except EngineError as error:
        raise ApiError(str(error)) from error
