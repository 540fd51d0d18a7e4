"""Assistant: prepares requests for a model and streams its answers."""

import codecs
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from commonweight.catalog.generation import API_DEFAULTS
from commonweight.catalog.model import ModelCard
from commonweight.engines.contract import (
    CacheMark,
    Engine,
    EngineError,
    EngineFullError,
    GrammarRefusedError,
    Job,
    Probe,
    Sampling,
)
from commonweight.guard import ClosedExchanges, Guard, Screening, extract_segments
from commonweight.messages.errors import ApiError, InvalidRequestError, OverloadedError
from commonweight.messages.events import StreamEvent
from commonweight.messages.request import CountTokensRequest, MessageRequest
from commonweight.messages.response import AppliedEdits, OriginalTokens, OutputText, StopReason, TokenCount
from commonweight.prompting import OutputParser, Prompt, Renderer, Tokenizer
from commonweight.signing.signer import Signer
from commonweight.turn.answer import Answer
from commonweight.turn.block_filter import BlockFilter, find_prefill
from commonweight.turn.pipeline import answer_steps, release_events, run_job, screen_steps
from commonweight.turn.prepare import LoadFiles, PromptPreparer, fingerprint_conversation
from commonweight.turn.record import ANONYMOUS, Origin, Stopwatch, TurnListener, TurnRecord
from commonweight.turn.release import ReleaseGate

log = logging.getLogger(__name__)

SamplingDefaults = Literal["model", "api"]


@dataclass(frozen=True)
class Turn:
    """A prepared request: valid for this model, rendered, and within the context window."""

    request: MessageRequest
    prompt: Prompt
    job: Job
    edits: AppliedEdits | None
    closed: ClosedExchanges = ClosedExchanges()  # noqa: RUF009 - immutable
    origin: Origin = ANONYMOUS
    stopwatch: Stopwatch = field(default_factory=Stopwatch)


class Assistant:
    """Answers requests with one model. Complete when constructed: nothing is set on it afterwards.

    Args:
        renderer: of the model's template; by default one of its own.
        guard: applies a charter to every turn; None: nothing is screened.
        files: loads the uploaded files that requests refer to; None: there are none.
        listeners: called with the record of every turn that was begun, at its end.
        sampling: whether requests that set no sampling get what is recommended for the model, or the API's
            defaults.
        max_output: most tokens that a request may ask for; None: an answer is cut at the end of the window.
    """

    def __init__(
        self,
        card: ModelCard,
        tokenizer: Tokenizer,
        engine: Engine,
        signer: Signer,
        *,
        renderer: Renderer | None = None,
        guard: Guard | None = None,
        files: LoadFiles | None = None,
        listeners: Iterable[TurnListener] = (),
        sampling: SamplingDefaults = "model",
        max_output: int | None = None,
    ) -> None:
        self.card = card
        self.sampling_defaults = card.generation if sampling == "model" else API_DEFAULTS
        """Sampling of requests that set none."""
        self.engine = engine
        self.guard = guard
        self._max_output = max_output
        self._tokenizer = tokenizer
        self._renderer = renderer or Renderer(tokenizer, card.chat_template, card.generation.system)
        self._signer = signer
        self._preparer = PromptPreparer(self._renderer, signer, files, guard.find_closed if guard else None)
        self._listeners = tuple(listeners)
        self._stop_ids = sorted(tokenizer.end_ids)

    @property
    def max_output(self) -> float:
        """Limit of a request's ``max_tokens``. Without one, an answer is cut at the end of the window."""
        return math.inf if self._max_output is None else self._max_output

    @property
    def thinks(self) -> bool:
        """Whether the model can reason before it answers."""
        return self._renderer.template.thinking is not None

    @property
    def has_effort(self) -> bool:
        """Whether the chat template takes a reasoning effort."""
        return self._renderer.template.has_effort

    def tokenize(self, text: str) -> list[int]:
        """Tokenize a text, with no special tokens."""
        return self._tokenizer.encode(text)

    def split_tokens(self, text: str) -> list[tuple[int, str]]:
        """Tokenize a text; each token with the characters that end in it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return [(token, decoder.decode(self._tokenizer.decode(token))) for token in self._tokenizer.encode(text)]

    async def count_tokens(
        self, request: CountTokensRequest, tenant: str = "", size: int = 0, waived: Collection[str] = ()
    ) -> TokenCount:
        """Count the tokens of the prompt of a request of ``size`` bytes, rendered as it would run."""
        ready = await self._preparer.prepare(request, self.engine.window, tenant, size, waived=waived)
        original = OriginalTokens(original_input_tokens=ready.original_token_count) if ready.edits else None
        return TokenCount(input_tokens=len(ready.prompt.token_ids), context_management=original)

    async def prepare(self, request: MessageRequest, origin: Origin = ANONYMOUS, size: int = 0) -> Turn:
        """Prepare a request of ``size`` bytes; everything that can fail because of it fails here.

        Raises:
            InvalidRequestError: it does not fit this model, in the API's own words where clients act on them.
            NotFoundError: it refers to a file that is not there.
        """
        stopwatch = Stopwatch()
        if request.max_tokens > self.max_output:
            raise InvalidRequestError(
                f"max_tokens: {request.max_tokens} > {self.max_output}, which is the maximum allowed number of "
                f"output tokens for {request.model}"
            )
        ready = await self._preparer.prepare(
            request, self.engine.window, origin.tenant, size, origin.priority, origin.waived
        )
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
            sampling=self._choose_sampling(request),
            grammar=prompt.grammar,
            cache_marks=[CacheMark(position, ttl) for position, ttl in prompt.marks],
            tenant=prompt.tenant,
            session=origin.session or fingerprint_conversation(request),
            priority=origin.priority,
            probe=self._probe(),
        )
        stopwatch.mark_prepared()
        return Turn(request, prompt, job, ready.edits, ready.closed, origin, stopwatch)

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
        screening = self._start_screening(turn) if self.guard else None
        gate = ReleaseGate(whole_calls=screening is not None and screening.buffers_tool_calls)

        def settle() -> None:
            self._note_outcome(turn, answer, gate, screening)
            if answer.matches_tokens and answer.stop_reason != "refusal":
                ids = answer.token_ids
                kept = ids[:-1] if ids and ids[-1] in self._tokenizer.end_ids else ids
                self._renderer.remember_answer(prompt, gate.message.content, kept, answer.reasoning)

        steps = run_job(self.engine, turn.job, turn.stopwatch, lambda: answer.reusable_tokens)
        blocks = (
            BlockFilter(screening, answer, find_prefill(request))
            if screening is not None and screening.screens_blocks
            else None
        )
        screened = screen_steps(answer_steps(steps, answer), screening, answer, prompt, blocks)
        with self._record_turn(turn, answer, gate, screening), _translate_errors():
            if screening is not None:
                await screening.screen_input()
            async with contextlib.aclosing(release_events(screened, gate, answer, settle)) as events:
                async for event in events:
                    yield event

    def _start_screening(self, turn: Turn) -> Screening:
        assert self.guard is not None
        documents = {id(document.block): document.parts for document in turn.prompt.documents}
        segments = extract_segments(turn.request, documents, turn.closed.indices)
        screening = self.guard.start_screening(segments, turn.origin.waived, turn.prompt.tenant)
        screening.findings.closed = len(turn.closed.indices)
        return screening

    def _note_outcome(self, turn: Turn, answer: Answer, gate: ReleaseGate, screening: Screening | None) -> None:
        """Note for later requests whether the turn was refused, before the client can send one."""
        if self.guard is None or screening is None or not turn.closed.turn:
            return
        if answer.stop_reason is not None:
            blocks = gate.message.content if gate.has_started else []
            left = "".join(block.text for block in blocks if isinstance(block, OutputText))
            self.guard.note_outcome(
                turn.closed.turn,
                turn.prompt.prefill + left,
                screening.refusal if answer.stop_reason == "refusal" else None,
                turn.origin.tenant,
                turn.origin.waived,
            )

    def _choose_sampling(self, request: MessageRequest) -> Sampling:
        """What the request sets, with the API's defaults; or, if it sets nothing, what holds for the model."""
        if request.temperature is request.top_p is request.top_k is None:
            defaults = self.sampling_defaults
            top_k = min(defaults.top_k, self._tokenizer.size)
            return Sampling(defaults.temperature, top_k, defaults.top_p, defaults.min_p)
        return Sampling(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=min(request.top_k or 0, self._tokenizer.size),
        )

    def _probe(self) -> Probe | None:
        """The probe that the engine computes for the guard."""
        probe = self.guard.probe if self.guard else None
        return None if probe is None else Probe(*probe)

    @contextlib.contextmanager
    def _record_turn(
        self, turn: Turn, answer: Answer, gate: ReleaseGate, screening: Screening | None
    ) -> Iterator[None]:
        """Call the listeners with the turn's record when the block exits, normally or by an exception."""
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
                message=lambda: gate.message if gate.has_started else None,
            )
            for listener in self._listeners:
                try:
                    listener(record)
                except Exception:
                    log.exception("a listener failed (%s)", turn.origin.request_id)


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except EngineFullError as error:
        raise OverloadedError(str(error), retry_after=1) from error
    except GrammarRefusedError as error:
        raise InvalidRequestError(
            "the schemas of the tools and of the output are too complex together: no answer can be held to them"
        ) from error
    except EngineError as error:
        raise ApiError(str(error)) from error
