"""Stream events, and the fold that turns a stream into the message it tells.

Grammar: ``message_start (content_block_start content_block_delta* content_block_stop)* message_delta
message_stop``, with ``ping`` anywhere; block indices count up from 0 and blocks never interleave.
"""

from typing import Any, Literal

from pydantic import BaseModel

from commonweight.messages.response import Message, OutputBlock, StopReason, Usage


class MessageStart(BaseModel):
    """The message begins; its prompt tokens are known."""

    type: Literal["message_start"] = "message_start"
    message: Message


class ContentBlockStart(BaseModel):
    """A block begins."""

    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: OutputBlock


class TextDelta(BaseModel):
    """More text."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class ContentBlockDelta(BaseModel):
    """A block grows."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: TextDelta


class ContentBlockStop(BaseModel):
    """A block is complete."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class Ending(BaseModel):
    """Why the message ended."""

    stop_reason: StopReason
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None


class MessageDelta(BaseModel):
    """The message ends; ``usage`` is cumulative and replaces what ``message_start`` said."""

    type: Literal["message_delta"] = "message_delta"
    delta: Ending
    usage: Usage


class MessageStop(BaseModel):
    """Nothing follows."""

    type: Literal["message_stop"] = "message_stop"


class Ping(BaseModel):
    """Nothing new, but the connection lives."""

    type: Literal["ping"] = "ping"


StreamEvent = (
    MessageStart | ContentBlockStart | ContentBlockDelta | ContentBlockStop | MessageDelta | MessageStop | Ping
)


class MessageFold:
    """Folds stream events into the message they tell: the one way a JSON answer is made."""

    def __init__(self) -> None:
        self._message: Message | None = None
        self._texts: list[list[str]] = []

    def add(self, event: StreamEvent) -> None:
        """Take the next event of one stream."""
        match event:
            case MessageStart():
                self._message = event.message.model_copy(deep=True)
            case ContentBlockStart():
                self._texts.append([event.content_block.text])
            case ContentBlockDelta():
                self._texts[event.index].append(event.delta.text)
            case MessageDelta():
                message = self._begun()
                message.stop_reason = event.delta.stop_reason
                message.stop_sequence = event.delta.stop_sequence
                message.stop_details = event.delta.stop_details
                message.usage = event.usage.model_copy(deep=True)
            case _:
                pass

    def message(self) -> Message:
        """The message so far."""
        content = [OutputBlock(text="".join(parts)) for parts in self._texts]
        return self._begun().model_copy(update={"content": content})

    def _begun(self) -> Message:
        if self._message is None:
            raise ValueError("a stream begins with message_start")
        return self._message
