"""Answer: converts engine events to the stream events of one message."""

from collections.abc import Iterator

from commonweight.charter.principle import Place
from commonweight.engines.contract import Admitted, EngineEvent, Finish, Prefilled, Step
from commonweight.guard import AnswerPiece, Verdict
from commonweight.messages.events import (
    CitationsDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    InputJsonDelta,
    MessageDelta,
    MessageEnd,
    MessageStart,
    MessageStop,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
)
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import (
    AppliedEdits,
    Diagnostics,
    GuardVerdict,
    Message,
    OutputBlock,
    OutputText,
    OutputThinking,
    OutputTokensDetails,
    OutputToolUse,
    StopDetails,
    StopReason,
    Usage,
    make_id,
)
from commonweight.prompting import OutputParser, Prompt
from commonweight.prompting.documents import locate_quote
from commonweight.prompting.parse.output import CallClosed, CallInput, CallOpened, Piece, Quote, Reasoning, Text
from commonweight.signing.signer import Signer


class Answer:
    """Converts engine events to stream events. Content blocks are opened lazily, so none is empty."""

    def __init__(
        self,
        request: MessageRequest,
        prompt: Prompt,
        parser: OutputParser,
        signer: Signer,
        at_limit: StopReason,
        edits: AppliedEdits | None = None,
    ) -> None:
        self._model = request.model
        self._prompt = prompt
        self._parser = parser
        self._signer = signer
        self._at_limit = at_limit
        self._edits = edits
        compares = request.diagnostics is not None and request.diagnostics.previous_message_id is not None
        self._diagnostics = Diagnostics() if compares else None
        self._shows_thinking = request.thinking is None or request.thinking.display != "omitted"
        self._has_citations = any(document.is_citable for document in prompt.documents)
        self._usage = Usage(input_tokens=len(prompt.token_ids), output_tokens=0)
        self._cached = 0
        self._block: OutputBlock | None = None
        self._index = -1
        self._reasoning: list[str] = []
        self.reasoning = ""
        """All of it, shown or not."""
        self.token_ids: list[int] = []
        """What was generated."""
        self.is_complete = False
        """No event follows; the engine may stop."""
        self.has_started = False
        """The prompt is read, and ``message_start`` told."""
        self.stop_reason: StopReason | None = None
        self.latest: list[AnswerPiece] = []
        """What the last event added, of whatever kind, shown or not."""

    @property
    def place(self) -> Place:
        """Current position in the answer: text, thinking or a tool call."""
        match self._block:
            case OutputThinking():
                return "thinking"
            case OutputToolUse():
                return "tool_input"
            case _:
                return "output"

    @property
    def usage(self) -> Usage:
        """Usage so far; zero before the prompt is read."""
        if not self.has_started:
            return Usage(input_tokens=0, output_tokens=0)
        details = OutputTokensDetails(thinking_tokens=self._parser.thinking_tokens)
        return self._usage.model_copy(update={"output_tokens_details": details})

    @property
    def matches_tokens(self) -> bool:
        """Whether the tokens have the same content as the message: no stop sequence cut it."""
        return self.is_complete and not self._parser.is_complete

    @property
    def reusable_tokens(self) -> int | None:
        """Prompt and output tokens that can be reused as a cached prefix; None until the answer is complete."""
        if not self.is_complete:
            return None
        generated = 0 if self.stop_reason == "refusal" else len(self.token_ids)
        return len(self._prompt.token_ids) + generated

    def process(self, event: EngineEvent) -> Iterator[StreamEvent]:
        """Process one engine event into stream events."""
        self.latest = []
        yield from self._convert_event(event)

    def refuse(self, verdict: Verdict) -> Iterator[StreamEvent]:
        """End the message with stop_reason ``refusal``; the release gate closes the open block.

        Reasoning that is not complete is not signed.
        """
        if not self.has_started:
            yield from self._convert_event(Prefilled())
        self.is_complete = True
        self.stop_reason = "refusal"
        self._block = None
        details = StopDetails(category=verdict.category, explanation=verdict.message or None)
        yield MessageDelta(
            delta=MessageEnd(stop_reason="refusal", stop_details=details),
            usage=self.usage.model_copy(deep=True),
            context_management=self._edits,
            guard=GuardVerdict(**{name: verdict.to_record()[name] for name in GuardVerdict.model_fields}),
        )
        yield MessageStop()

    def _convert_event(self, event: EngineEvent) -> Iterator[StreamEvent]:
        match event:
            case Admitted(cached_tokens):
                self._cached = cached_tokens
            case Prefilled(written):
                self.has_started = True
                usage = self._usage
                usage.cache_read_input_tokens = self._cached
                usage.cache_creation.ephemeral_5m_input_tokens = written.five_minutes
                usage.cache_creation.ephemeral_1h_input_tokens = written.one_hour
                usage.cache_creation_input_tokens = written.five_minutes + written.one_hour
                usage.input_tokens -= self._cached + usage.cache_creation_input_tokens
                begun = usage.model_copy(update={"output_tokens": 1})
                yield MessageStart(
                    message=Message(
                        id=make_id("msg"), model=self._model, diagnostics=self._diagnostics, usage=begun
                    )
                )
            case Step(token_id):
                self._usage.output_tokens += 1
                self.token_ids.append(token_id)
                yield from self._write_pieces(self._parser.feed(token_id))
                if self._parser.is_complete:
                    yield from self._finish("stop_sequence" if self._parser.stop_sequence else "end_turn")
            case Finish(reason, _, cached_tokens):
                if cached_tokens is not None:
                    self._usage.cache_read_input_tokens += cached_tokens - self._cached
                    self._usage.input_tokens -= cached_tokens - self._cached
                    self._cached = cached_tokens
                yield from self._write_pieces(self._parser.flush(is_cut=reason == "length"))
                natural: StopReason = "tool_use" if self._parser.has_calls else "end_turn"
                yield from self._finish(natural if reason == "stop" else self._at_limit)

    def _write_pieces(self, pieces: list[Piece]) -> Iterator[StreamEvent]:
        for piece in pieces:
            match piece:
                case Text(text):
                    yield from self._open_block(OutputText(citations=[] if self._has_citations else None))
                    self.latest.append(AnswerPiece(self._index, text))
                    yield self._make_delta(TextDelta(text=text))
                case Reasoning(text):
                    yield from self._open_block(OutputThinking())
                    self.latest.append(AnswerPiece(self._index, text))
                    self._reasoning.append(text)
                    if self._shows_thinking:
                        yield self._make_delta(ThinkingDelta(thinking=text))
                case CallOpened(name, call_id):
                    yield from self._close_block()
                    yield from self._open_block(OutputToolUse(id=_make_tool_use_id(call_id), name=name))
                    yield self._make_delta(InputJsonDelta(partial_json=""))
                case CallInput(json):
                    tool = self._block.name if isinstance(self._block, OutputToolUse) else None
                    self.latest.append(AnswerPiece(self._index, json, tool))
                    yield self._make_delta(InputJsonDelta(partial_json=json))
                case CallClosed():
                    yield from self._close_block()
                case Quote(number, text):
                    citation = locate_quote(self._prompt.documents[number], text)
                    if citation is not None:
                        if not isinstance(self._block, OutputText):
                            yield from self._open_block(OutputText(citations=[]))
                            yield self._make_delta(TextDelta(text=citation.cited_text))
                        yield self._make_delta(CitationsDelta(citation=citation))
                        yield from self._close_block()

    def _open_block(self, block: OutputBlock) -> Iterator[StreamEvent]:
        """Open a block of this kind, unless the open one is."""
        if self._block is None or self._block.type != block.type:
            yield from self._close_block()
            self._block = block
            self._index += 1
            yield ContentBlockStart(index=self._index, content_block=block)

    def _close_block(self) -> Iterator[StreamEvent]:
        if isinstance(self._block, OutputThinking):
            reasoning, self._reasoning = "".join(self._reasoning), []
            self.reasoning += reasoning
            yield self._make_delta(SignatureDelta(signature=self._signer.sign(reasoning)))
        if self._block is not None:
            self._block = None
            yield ContentBlockStop(index=self._index)

    def _make_delta(self, delta: Delta) -> ContentBlockDelta:
        return ContentBlockDelta(index=self._index, delta=delta)

    def _finish(self, reason: StopReason) -> Iterator[StreamEvent]:
        self.is_complete = True
        self.stop_reason = reason
        yield from self._close_block()
        self._usage.output_tokens_details = OutputTokensDetails(thinking_tokens=self._parser.thinking_tokens)
        ending = MessageEnd(stop_reason=reason, stop_sequence=self._parser.stop_sequence)
        yield MessageDelta(delta=ending, usage=self._usage, context_management=self._edits)
        yield MessageStop()


def _make_tool_use_id(call_id: str | None) -> str:
    """Make a fresh id. It ends with the model's own id, if there is one, so that prompts can restore that."""
    fresh = make_id("toolu")
    return fresh if call_id is None else fresh[: -len(call_id)] + call_id
