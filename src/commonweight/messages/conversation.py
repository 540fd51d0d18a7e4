"""Wire model of messages, and validation of their order.

The rules and their words are the API's. It asks for more where nothing depends on it: text after tool results and
not before, tools defined wherever a call is, and no user's message right after a system message, which Claude Code
2.1.199 is known to have sent. All of that is accepted here.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

from commonweight.messages.content import (
    Content,
    ContentBlock,
    ServerToolResultBlock,
    TextBlock,
    ToolAdditionBlock,
    ToolRemovalBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from commonweight.messages.wire import WireModel, make_validation_error

Effort = Literal["low", "medium", "high", "xhigh", "max"]

_ANYWHERE = "; the directive-only form (content: [] with output_config) is accepted at any position"


class MessageOutputConfig(WireModel):
    """Output settings of a system message within the conversation."""

    effort: Effort | None = None


class MessageParam(WireModel):
    """One message of the conversation. A ``system`` message in the middle adds instructions there."""

    role: Literal["user", "assistant", "system"]
    content: Content
    output_config: MessageOutputConfig | None = None
    clear_at: Literal["next_user_message", "never"] | None = None
    """Until when a system message is shown to the model."""

    @property
    def is_empty(self) -> bool:
        """No block, or nothing but one empty text block (the form an empty string takes)."""
        return not self.content or (
            len(self.content) == 1 and isinstance(self.content[0], TextBlock) and not self.content[0].text
        )

    @property
    def changes_tools(self) -> bool:
        """Whether it adds or removes tools."""
        return any(isinstance(block, ToolAdditionBlock | ToolRemovalBlock) for block in self.content)

    @property
    def is_directive(self) -> bool:
        """Whether it is a system message without text, which only changes settings."""
        return self.role == "system" and self.is_empty and self.output_config is not None


def find_final_effort(messages: Sequence[MessageParam], at_first: Effort | None) -> Effort | None:
    """Effort of the next turn.

    A system message behind a user's message applies to the turn that answers it; elsewhere to the user's next
    message. Tool results alone are no such message.
    (https://platform.claude.com/docs/build-with-claude/effort-per-message)
    """
    effort, waiting = at_first, None
    user_spoke = False
    for message in messages:
        if message.role == "assistant":
            user_spoke = False
        elif message.role == "user":
            user_spoke |= any(not isinstance(block, ToolResultBlock) for block in message.content)
        elif message.output_config is not None:
            waiting = message.output_config.effort or waiting
        if user_spoke and waiting is not None:
            effort, waiting = waiting, None
    return effort


def check_messages(messages: Sequence[MessageParam]) -> None:
    """Refuse a conversation that no model could continue."""
    if not messages:
        raise make_validation_error("messages: at least one message is required")
    for i, message in enumerate(messages):
        if not message.is_directive:
            _check_content(message, i, is_last=i == len(messages) - 1)
    _check_system_places(messages)
    _check_tool_calls(messages)


def _check_content(message: MessageParam, i: int, *, is_last: bool) -> None:
    role, blocks = message.role, message.content
    if message.is_empty:
        if role == "system":
            raise make_validation_error(f"messages.{i}: system content must contain at least one block")
        if role == "user" or not is_last:
            raise make_validation_error(
                f"messages.{i}: all messages must have non-empty content except for the optional "
                "final assistant message"
            )
        return
    texts = [block.text for block in blocks if isinstance(block, TextBlock)]
    if "" in texts:
        raise make_validation_error("messages: text content blocks must be non-empty")
    if len(texts) == len(blocks) and not any(text.strip() for text in texts):
        raise make_validation_error("messages: text content blocks must contain non-whitespace text")
    if role == "system":
        if not all(isinstance(block, TextBlock | ToolAdditionBlock | ToolRemovalBlock) for block in blocks):
            raise make_validation_error(
                f"messages.{i}: role 'system' supports text, tool_addition, and tool_removal blocks only"
            )
        if message.clear_at == "next_user_message" and message.changes_tools:
            raise make_validation_error(
                f"messages.{i}: a turn-scoped system message supports text blocks only "
                "(clear_at: 'next_user_message')"
            )
    elif message.changes_tools:
        raise make_validation_error(
            f"messages.{i}: `tool_addition` and `tool_removal` blocks can only be in `system` messages"
        )
    if role == "user" and any(isinstance(block, ToolUseBlock) for block in blocks):
        raise make_validation_error(f"messages.{i}: `tool_use` blocks can only be in `assistant` messages")
    if role == "assistant" and any(isinstance(block, ToolResultBlock) for block in blocks):
        raise make_validation_error(f"messages.{i}: `tool_result` blocks can only be in `user` messages")


def _check_system_places(messages: Sequence[MessageParam]) -> None:
    spoken: MessageParam | None = None
    for i, message in enumerate(messages):
        if message.role != "system":
            spoken = message
        elif message.is_directive:
            continue
        elif spoken is None:
            raise make_validation_error(
                f"messages.{i}: use the top-level 'system' parameter for the initial system prompt{_ANYWHERE}"
            )
        elif spoken.role == "assistant" and not isinstance(spoken.content[-1], ServerToolResultBlock):
            raise make_validation_error(
                f"messages.{i}: role 'system' must follow a 'user' message or an 'assistant' message ending in a "
                f"server tool result{_ANYWHERE}"
            )
        elif spoken.role == "assistant" and message.changes_tools:
            raise make_validation_error(
                f"messages.{i}: tool_addition and tool_removal blocks cannot follow a paused assistant turn"
            )


def _check_tool_calls(messages: Sequence[MessageParam]) -> None:
    """Require one result for each call of a client tool, in the next turn: consecutive messages of one role."""
    spoken = ((i, message) for i, message in enumerate(messages) if message.role != "system")
    ids: set[str] = set()
    calls: dict[str, int] = {}
    for role, turn in itertools.groupby(spoken, key=lambda place: place[1].role):
        blocks = [(i, j, block) for i, message in turn for j, block in enumerate(message.content)]
        if role == "assistant":
            calls = _collect_calls(blocks, ids)
        else:
            _check_results(blocks, calls)
            calls = {}
    _check_results([], calls)


_Placed = tuple[int, int, ContentBlock]


def _collect_calls(blocks: Sequence[_Placed], ids: set[str]) -> dict[str, int]:
    """The calls of one turn, each with the message that makes it. ``ids`` are those of all turns so far."""
    calls: dict[str, int] = {}
    for i, j, block in blocks:
        if isinstance(block, ToolUseBlock):
            if block.id in ids:
                raise make_validation_error(f"messages.{i}.content.{j}: `tool_use` ids must be unique")
            ids.add(block.id)
            calls[block.id] = i
    return calls


def _check_results(blocks: Sequence[_Placed], calls: dict[str, int]) -> None:
    answered: set[str] = set()
    for i, j, block in blocks:
        if isinstance(block, ToolResultBlock):
            if block.tool_use_id not in calls:
                raise make_validation_error(
                    f"messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{block.tool_use_id}. Each `tool_result` block must have a corresponding `tool_use` block in "
                    "the previous message."
                )
            if block.tool_use_id in answered:
                raise make_validation_error(
                    f"messages.{i}.content.{j}: each tool_use must have a single result. "
                    f"Found multiple `tool_result` blocks with id: {block.tool_use_id}"
                )
            answered.add(block.tool_use_id)
    missing = [call for call in calls if call not in answered]
    if missing:
        raise make_validation_error(
            f"messages.{calls[missing[0]]}: `tool_use` ids were found without `tool_result` blocks immediately "
            f"after: {', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in "
            "the next message."
        )
