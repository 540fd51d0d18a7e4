"""Stream events, and the fold of a stream into a message.

Grammar: ``message_start (content_block_start content_block_delta* content_block_stop)* message_delta
message_stop``, with ``ping`` anywhere; block indices count up from 0 and blocks never interleave.
"""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import BaseModel, Field, field_serializer

from commonweight.messages.citations import Citation
from commonweight.messages.response import (
    AppliedEdits,
    GuardVerdict,
    Message,
    OutputBlock,
    OutputText,
    OutputThinking,
    OutputToolUse,
    StopDetails,
    StopReason,
    Usage,
)
from commonweight.messages.wire import optional_key


class MessageStart(BaseModel):
    """First event: the message without content, with the usage of its prompt."""

    type: Literal["message_start"] = "message_start"
    message: Message


class ContentBlockStart(BaseModel):
    """Start of a block, which is empty except for a tool call's id and name."""

    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: OutputBlock


class TextDelta(BaseModel):
    """Next piece of text."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class CitationsDelta(BaseModel):
    """Citation of the text so far."""

    type: Literal["citations_delta"] = "citations_delta"
    citation: Citation


class ThinkingDelta(BaseModel):
    """Next piece of reasoning."""

    type: Literal["thinking_delta"] = "thinking_delta"
    thinking: str


class SignatureDelta(BaseModel):
    """The whole signature: the last delta of reasoning, and the only one of reasoning that is not shown."""

    type: Literal["signature_delta"] = "signature_delta"
    signature: str


class InputJsonDelta(BaseModel):
    """Next piece of the JSON of a tool call's input."""

    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


Delta = Annotated[
    TextDelta | CitationsDelta | ThinkingDelta | SignatureDelta | InputJsonDelta, Field(discriminator="type")
]


class ContentBlockDelta(BaseModel):
    """Addition to a block."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: Delta


class ContentBlockStop(BaseModel):
    """End of a block."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class MessageEnd(BaseModel):
    """Stop reason of the message, in ``message_delta``."""

    stop_reason: StopReason
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class MessageDelta(BaseModel):
    """End of the message; ``usage`` is cumulative and replaces that of ``message_start``."""

    type: Literal["message_delta"] = "message_delta"
    delta: MessageEnd
    usage: Usage
    context_management: AppliedEdits | None = optional_key()
    guard: GuardVerdict | None = optional_key()

    @field_serializer("usage")
    def _without_constants(self, usage: Usage) -> dict[str, Any]:
        # What never changes after ``message_start`` is told there only.
        return usage.model_dump(exclude={"cache_creation", "service_tier", "inference_geo"})


class MessageStop(BaseModel):
    """Last event of the stream."""

    type: Literal["message_stop"] = "message_stop"


class Ping(BaseModel):
    """Keep-alive."""

    type: Literal["ping"] = "ping"


StreamEvent = (
    MessageStart | ContentBlockStart | ContentBlockDelta | ContentBlockStop | MessageDelta | MessageStop | Ping
)


class MessageFold:
    """Folds stream events into a message; every JSON response is made by it."""

    def __init__(self) -> None:
        self._message: Message | None = None
        self._blocks: list[tuple[OutputBlock, list[Delta]]] = []

    def add(self, event: StreamEvent) -> None:
        """Take the next event of one stream."""
        match event:
            case MessageStart():
                self._message = event.message.model_copy(deep=True)
            case ContentBlockStart():
                self._blocks.append((event.content_block, []))
            case ContentBlockDelta():
                self._blocks[event.index][1].append(event.delta)
            case MessageDelta():
                message = self._require_message()
                message.stop_reason = event.delta.stop_reason
                message.stop_sequence = event.delta.stop_sequence
                message.stop_details = event.delta.stop_details
                message.usage = event.usage.model_copy(deep=True)
                message.guard = event.guard
                message.context_management = event.context_management or message.context_management
            case _:
                pass

    def build_message(self) -> Message:
        """The message so far. Of a tool call's input it holds what parses when the call was cut off."""
        content = [_apply_deltas(start, deltas) for start, deltas in self._blocks]
        return self._require_message().model_copy(update={"content": content})

    def _require_message(self) -> Message:
        if self._message is None:
            raise ValueError("a stream begins with message_start")
        return self._message


async def fold_stream(stream: AsyncGenerator[StreamEvent]) -> Message:
    """Fold a whole stream into its message, and close it."""
    fold = MessageFold()
    async with contextlib.aclosing(stream) as events:
        async for event in events:
            fold.add(event)
    return fold.build_message()


def _apply_deltas(start: OutputBlock, deltas: Sequence[Delta]) -> OutputBlock:
    block = start.model_copy(deep=True)
    match block:
        case OutputText():
            block.text += "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
            if cited := [delta.citation for delta in deltas if isinstance(delta, CitationsDelta)]:
                block.citations = [*(block.citations or []), *cited]
        case OutputThinking():
            block.thinking += "".join(delta.thinking for delta in deltas if isinstance(delta, ThinkingDelta))
            block.signature += "".join(delta.signature for delta in deltas if isinstance(delta, SignatureDelta))
        case OutputToolUse():
            written = "".join(delta.partial_json for delta in deltas if isinstance(delta, InputJsonDelta))
            if written:
                block.input = pydantic_core.from_json(written, allow_partial=True)
    return block
