"""Wire models of ``POST /v1/messages`` and ``count_tokens``, with validation that does not depend on the model."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from commonweight.messages.caching import CacheControl
from commonweight.messages.content import (
    Block,
    DocumentBlock,
    SearchResultBlock,
    TextContent,
    ToolAdditionBlock,
    ToolDefinition,
    walk,
)
from commonweight.messages.conversation import (
    Effort,
    MessageOutputConfig,
    MessageParam,
    check_messages,
    find_final_effort,
)
from commonweight.messages.edits import ContextManagement
from commonweight.messages.output_schema import close_objects
from commonweight.messages.tool_changes import ConversationTools
from commonweight.messages.tools import Tool, ToolChoice, check_tools
from commonweight.messages.wire import MAX_INTEGER, Count, WholeNumber, WireModel, make_validation_error

__all__ = ["CountTokensRequest", "MessageParam", "MessageRequest"]

MAX_MESSAGES = 100_000


class JsonFormat(WireModel):
    """Output format: JSON that matches a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(MessageOutputConfig):
    """Output settings: format and effort."""

    format: JsonFormat | None = None


class Metadata(WireModel):
    """Metadata of the client, which is not used."""

    user_id: str | None = None


class Thinking(WireModel):
    """Switch for reasoning before the answer."""

    type: Literal["adaptive", "disabled", "between_tools"]
    display: Literal["summarized", "omitted", "updates"] | None = None


class BudgetedThinking(WireModel):
    """Reasoning before the answer, with a limit on its tokens."""

    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=1024, le=MAX_INTEGER), WholeNumber]
    display: Literal["summarized", "omitted", "updates"] | None = None


class DiagnosticsRequest(WireModel):
    """Request for the reason of a cache miss, compared with an earlier answer."""

    previous_message_id: str | None = None


def _refuse(value: object, info: ValidationInfo) -> object:
    if value is None or value == []:
        return None
    error_code = "thread_unsupported_request" if info.field_name == "thread" else None
    raise make_validation_error("not supported by this server", error_code=error_code)


Unsupported = Annotated[None, BeforeValidator(_refuse)]
"""Accepted only when null: this server does not implement it."""


class CountTokensRequest(WireModel):
    """Fields of a request that become prompt tokens; the body of ``count_tokens``."""

    _is_whole: ClassVar[bool] = False
    """Whether the messages are a whole conversation, and not a part that is counted alone."""

    model: str = Field(min_length=1, max_length=512)
    messages: list[MessageParam] = Field(max_length=MAX_MESSAGES, fail_fast=True)
    system: TextContent | None = None
    tools: list[Tool] | None = Field(None, fail_fast=True)
    tool_choice: ToolChoice | None = None
    thinking: Annotated[Thinking | BudgetedThinking, Field(discriminator="type")] | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    """Name of ``output_config.format`` in its beta."""
    cache_control: CacheControl | None = None
    """Marks the end of the prompt, wherever that is."""
    context_management: ContextManagement | None = None
    mcp_servers: Unsupported = None
    compaction: Unsupported = None

    @model_validator(mode="after")
    def _check_prompt(self) -> "CountTokensRequest":
        check_messages(self.messages)
        blocks = (block for message in self.messages for block in message.content)
        check_tools(self.tools or [], has_additions=any(isinstance(block, ToolAdditionBlock) for block in blocks))
        tools = self.trace_tools()
        tools.check_choice(self.tool_choice)
        # Agents count messages alone, too, without the tools that they refer to.
        if self.tools is not None:
            tools.check_references()
        if self.tools is not None or self._is_whole:
            tools.check_changes()
        if self._get_output_format() is not None:
            if self.messages[-1].role == "assistant" and not self.messages[-1].is_empty:
                raise make_validation_error(
                    "output_config.format: cannot be combined with a prefilled assistant message"
                )
            if self.wants_citations:
                raise make_validation_error("output_config.format: cannot be combined with citations")
        return self

    def _get_output_format(self) -> JsonFormat | None:
        config = self.output_config
        return config.format if config is not None and config.format is not None else self.output_format

    def trace_tools(self) -> ConversationTools:
        """The tools after the last message, and what each message changed about them."""
        return ConversationTools(self.tools or [], self.messages)

    def tool_definitions(self) -> Iterator[tuple[str, Tool]]:
        """Every definition of a tool with its place, in ``tools`` and in messages."""
        for i, tool in enumerate(self.tools or []):
            yield f"tools.{i}.{tool.type}", tool
        for where, block in self.blocks():
            if isinstance(block, ToolAdditionBlock) and isinstance(block.tool, ToolDefinition):
                yield f"{where}.tool.definition", block.tool.definition

    def blocks(self) -> Iterator[tuple[str, WireModel]]:
        """Every block with its place, in the order in which they end in the prompt; see ``content.walk``."""
        yield from walk(self.system or [], "system")
        for i, message in enumerate(self.messages):
            yield from walk(message.content, f"messages.{i}.content")

    def cache_marks(self) -> Iterator[tuple[str, CacheControl]]:
        """The explicit marks with their places, in the order of the prompt."""
        for i, tool in enumerate(self.tools or []):
            if tool.cache_control is not None:
                yield f"tools.{i}", tool.cache_control
        for where, block in self.blocks():
            if isinstance(block, Block) and block.cache_control is not None:
                yield where, block.cache_control

    @property
    def wants_citations(self) -> bool:
        """Whether the answer should cite any document or search result."""
        return any(
            isinstance(block, DocumentBlock | SearchResultBlock)
            and block.citations is not None
            and block.citations.enabled
            for _, block in self.blocks()
        )

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The schema that the answer must match, with its objects closed."""
        asked = self._get_output_format()
        return None if asked is None else close_objects(asked.schema_)

    @property
    def effort(self) -> Effort | None:
        """Effort of the next turn, from its message or the request."""
        return find_final_effort(self.messages, None if self.output_config is None else self.output_config.effort)


class MessageRequest(CountTokensRequest):
    """``POST /v1/messages``.

    ``temperature``, ``top_p`` and ``top_k`` left the newest API version, but deployed clients still send them
    under it, so they are accepted under every version.
    """

    _is_whole = True

    max_tokens: Count
    """0 only computes the prompt, so that it is in the cache."""
    stream: bool | None = None
    stop_sequences: list[Annotated[str, Field(max_length=10_000)]] | None = Field(None, max_length=1000)
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Count | None = None
    metadata: Metadata | None = None
    diagnostics: DiagnosticsRequest | None = None
    container: Unsupported = None
    thread: Unsupported = None

    @model_validator(mode="after")
    def _check_settings(self) -> "MessageRequest":
        if any(not stop.strip() for stop in self.stop_sequences or ()):
            raise make_validation_error("stop_sequences: each stop sequence must contain non-whitespace")
        if isinstance(self.thinking, BudgetedThinking) and self.thinking.budget_tokens >= self.max_tokens:
            raise make_validation_error("`max_tokens` must be greater than `thinking.budget_tokens`.")
        return self
