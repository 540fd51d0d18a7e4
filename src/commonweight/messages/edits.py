"""Wire models of ``context_management``: edits that shorten the prompt.

Source: the documentation of the beta ``context-management-2025-06-27``.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from commonweight.messages.wire import MAX_INTEGER, Count, WholeNumber, WireModel, make_validation_error


class InputTokens(WireModel):
    """Number of prompt tokens."""

    type: Literal["input_tokens"]
    value: Count


class ToolUses(WireModel):
    """Number of tool calls."""

    type: Literal["tool_uses"]
    value: Count


class AllThinking(WireModel):
    """Keep the reasoning of every turn."""

    type: Literal["all"]


class ThinkingTurns(WireModel):
    """Keep the reasoning of the last ``value`` turns."""

    type: Literal["thinking_turns"]
    value: Annotated[int, Field(ge=1, le=MAX_INTEGER), WholeNumber]


def _expand_all(keep: object) -> object:
    return {"type": "all"} if keep == "all" else keep


class ClearThinking(WireModel):
    """Leave out the reasoning of all but the last assistant turns."""

    type: Literal["clear_thinking_20251015"]
    keep: Annotated[AllThinking | ThinkingTurns, Field(discriminator="type"), BeforeValidator(_expand_all)] = (
        ThinkingTurns(type="thinking_turns", value=1)
    )


class ClearToolUses(WireModel):
    """Once the prompt is past ``trigger``, leave out the results of all but the last tool calls."""

    type: Literal["clear_tool_uses_20250919"]
    trigger: Annotated[InputTokens | ToolUses, Field(discriminator="type")] = InputTokens(
        type="input_tokens", value=100_000
    )
    keep: ToolUses = ToolUses(type="tool_uses", value=3)
    clear_at_least: InputTokens | None = None
    """Nothing is left out unless it is this much: it costs the cached prompt."""
    exclude_tools: list[str] | None = None
    clear_tool_inputs: bool | list[str] | None = None
    """Whether what the calls were given goes, too; or of which tools."""


def _refuse_compaction(edit: object) -> object:
    if isinstance(edit, dict) and edit.get("type") == "compact_20260112":
        raise make_validation_error("compact_20260112 is not supported by this server")
    return edit


Edit = Annotated[ClearThinking | ClearToolUses, Field(discriminator="type"), BeforeValidator(_refuse_compaction)]


class ContextManagement(WireModel):
    """The edits, in the order in which they apply."""

    edits: list[Edit] = Field(default_factory=list, fail_fast=True)
