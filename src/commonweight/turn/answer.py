"""From the engine's steps to the events of one message."""

from collections.abc import Iterator

from commonweight.engines.contract import Admitted, EngineEvent, Finish, Step
from commonweight.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Ending,
    MessageDelta,
    MessageStart,
    MessageStop,
    StreamEvent,
    TextDelta,
)
from commonweight.messages.response import Message, OutputText, StopReason, Usage, new_id
from commonweight.prompting import OutputParser


class Answer:
    """Writes one message as stream events. A text block opens with its first text, so it is never empty."""

    def __init__(self, model: str, prompt_tokens: int, parser: OutputParser, at_limit: StopReason) -> None:
        self._model = model
        self._parser = parser
        self._at_limit = at_limit
        self._usage = Usage(input_tokens=prompt_tokens, output_tokens=0)
        self._has_text = False
        self.is_complete = False
        """No event follows; the engine may stop."""

    @property
    def output_tokens(self) -> int:
        """Tokens that the answer is made of so far."""
        return self._usage.output_tokens

    def take(self, event: EngineEvent) -> Iterator[StreamEvent]:
        """The events that one engine event brings."""
        match event:
            case Admitted(cached_tokens):
                self._usage.cache_read_input_tokens = cached_tokens
                self._usage.input_tokens -= cached_tokens
                usage = self._usage.model_copy(update={"output_tokens": 1})
                yield MessageStart(message=Message(id=new_id("msg"), model=self._model, usage=usage))
            case Step(token_id):
                self._usage.output_tokens += 1
                yield from self._text(self._parser.feed(token_id))
                if self._parser.is_complete:
                    yield from self._end("stop_sequence" if self._parser.stop_sequence else "end_turn")
            case Finish(reason):
                yield from self._text(self._parser.flush())
                yield from self._end("end_turn" if reason == "stop" else self._at_limit)

    def _text(self, text: str) -> Iterator[StreamEvent]:
        if text:
            if not self._has_text:
                self._has_text = True
                yield ContentBlockStart(index=0, content_block=OutputText())
            yield ContentBlockDelta(index=0, delta=TextDelta(text=text))

    def _end(self, reason: StopReason) -> Iterator[StreamEvent]:
        self.is_complete = True
        if self._has_text:
            yield ContentBlockStop(index=0)
        ending = Ending(stop_reason=reason, stop_sequence=self._parser.stop_sequence)
        yield MessageDelta(delta=ending, usage=self._usage)
        yield MessageStop()
