"""Requests: what clients may ask for, and what makes a request invalid whatever the model."""

from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, model_validator
from pydantic_core import PydanticCustomError

from commonweight.messages.content import CacheControl, Content, TextBlock, TextContent
from commonweight.messages.wire import WireModel

MAX_MESSAGES = 100_000

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class MessageOutputConfig(WireModel):
    """Output settings that one system message carries."""

    effort: Effort | None = None


class OutputConfig(MessageOutputConfig):
    """How the answer should look and how hard to try."""

    format: dict[str, Any] | None = None


class MessageParam(WireModel):
    """One message of the conversation. A ``system`` message in the middle adds instructions there."""

    role: Literal["user", "assistant", "system"]
    content: Content
    output_config: MessageOutputConfig | None = None

    @property
    def is_empty(self) -> bool:
        """No block, or nothing but one empty text block (the form an empty string takes)."""
        return not self.content or (
            len(self.content) == 1 and isinstance(self.content[0], TextBlock) and not self.content[0].text
        )


class Metadata(WireModel):
    """Opaque to us."""

    user_id: str | None = None


class Tool(WireModel):
    """A tool the model may call: a client's own (``input_schema``), or one of the API's, named by type."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    cache_control: CacheControl | None = None

    @model_validator(mode="after")
    def _check_custom(self) -> "Tool":
        if self.type in (None, "custom"):
            for field in ("name", "input_schema"):
                if getattr(self, field) is None:
                    raise PydanticCustomError("missing_field", "Field required", {"field": field})
        return self


class ToolChoice(WireModel):
    """Whether and which tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(WireModel):
    """Whether the model should reason before it answers."""

    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int | None = Field(None, ge=1024)
    display: Literal["summarized", "omitted", "updates"] | None = None


class CountTokensRequest(WireModel):
    """Everything of a request that becomes prompt tokens."""

    model: str = Field(min_length=1, max_length=512)
    messages: Annotated[list[MessageParam], FailFast()] = Field(max_length=MAX_MESSAGES)
    system: TextContent | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None

    @model_validator(mode="after")
    def _check_messages(self) -> "CountTokensRequest":
        if not self.messages:
            raise PydanticCustomError("no_messages", "messages: at least one message is required")
        last = len(self.messages) - 1
        for i, message in enumerate(self.messages):
            if message.is_empty:
                bare_setting = message.role == "system" and message.output_config is not None
                if not bare_setting and not (i == last and message.role == "assistant"):
                    raise PydanticCustomError(
                        "empty_message",
                        "messages.{i}: all messages must have non-empty content except for the optional "
                        "final assistant message",
                        {"i": i},
                    )
            elif any(isinstance(block, TextBlock) and not block.text for block in message.content):
                raise PydanticCustomError(
                    "empty_text", "messages.{i}: text content blocks must be non-empty", {"i": i}
                )
        return self


class MessageRequest(CountTokensRequest):
    """``POST /v1/messages``.

    ``temperature``, ``top_p`` and ``top_k`` left the newest API version, but deployed clients still send them
    under it, so they are accepted under every version.
    """

    max_tokens: int = Field(ge=0)
    stream: bool | None = None
    stop_sequences: list[Annotated[str, Field(max_length=10_000)]] | None = Field(None, max_length=1000)
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _check_stops(self) -> "MessageRequest":
        if any(not stop.strip() for stop in self.stop_sequences or ()):
            raise PydanticCustomError(
                "blank_stop", "stop_sequences: each stop sequence must contain non-whitespace"
            )
        return self
