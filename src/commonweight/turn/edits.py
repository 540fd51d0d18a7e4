"""Edits of ``context_management``: clear old thinking and tool results from long conversations.

They are made anew for every request, because clients go on sending the whole conversation.

Source: https://platform.claude.com/docs/en/build-with-claude/context-editing
"""

import operator
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from commonweight.messages.content import (
    ContentBlock,
    RedactedThinkingBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from commonweight.messages.conversation import MessageParam
from commonweight.messages.edits import AllThinking, ClearThinking, ClearToolUses, Edit, InputTokens, ToolUses
from commonweight.messages.response import AppliedEdits, ClearedThinking, ClearedToolUses

CLEARED_RESULT_TEXT = "[Old tool result removed to save context]"

CountTokens = Callable[[Sequence[MessageParam]], Awaitable[int]]
"""The tokens of the whole prompt with these messages."""


@dataclass(frozen=True)
class EditedConversation:
    """A conversation after its edits. All messages are kept, but some may have no content left."""

    messages: list[MessageParam]
    report: AppliedEdits


async def apply_edits(
    messages: Sequence[MessageParam], edits: Iterable[Edit], count: CountTokens
) -> EditedConversation:
    """Apply the edits, those of thinking first. An edit that saves no tokens, or too few, is skipped.

    ``messages`` stay as they are; what no edit touches is shared with them. ``count`` is asked only if there is
    something to clear: once before, and once for each edit.
    """
    edited = list(messages)
    tokens: int | None = None
    report = AppliedEdits()
    for edit in sorted(edits, key=lambda edit: isinstance(edit, ClearToolUses)):
        if isinstance(edit, ClearThinking):
            shorter, cleared = _clear_thinking(edited, edit)
            trigger, least = 0, 1
        else:
            shorter, cleared = _clear_results(edited, edit)
            trigger = edit.trigger.value if isinstance(edit.trigger, InputTokens) else 0
            least = max(edit.clear_at_least.value, 1) if edit.clear_at_least else 1
        if not cleared:
            continue
        if tokens is None:
            tokens = await count(edited)
        if tokens <= trigger:
            continue
        fewer = await count(shorter)
        saved = tokens - fewer
        if saved < least:
            continue
        edited, tokens = shorter, fewer
        report.applied_edits.append(
            ClearedThinking(cleared_input_tokens=saved, cleared_thinking_turns=cleared)
            if isinstance(edit, ClearThinking)
            else ClearedToolUses(cleared_input_tokens=saved, cleared_tool_uses=cleared)
        )
    return EditedConversation(edited, report)


def _clear_thinking(messages: list[MessageParam], edit: ClearThinking) -> tuple[list[MessageParam], int]:
    """Clear thinking; returns the messages and the number of turns that were cleared."""
    if isinstance(edit.keep, AllThinking):
        return messages, 0
    turns = list(zip(messages, _number_turns(messages), strict=True))
    thoughtful = sorted({turn for message, turn in turns if any(map(_is_thinking, message.content))})
    cleared = set(thoughtful[: -edit.keep.value])
    return [
        _replace_content(message, [block for block in message.content if not _is_thinking(block)])
        if turn in cleared
        else message
        for message, turn in turns
    ], len(cleared)


def _number_turns(messages: Sequence[MessageParam]) -> Iterator[int]:
    """Number the assistant turn of each message: tool results alone continue a turn, other content ends it."""
    turn = 0
    for message in messages:
        if message.role == "user" and not all(isinstance(block, ToolResultBlock) for block in message.content):
            turn += 1
        yield turn


def _is_thinking(block: ContentBlock) -> bool:
    return isinstance(block, ThinkingBlock | RedactedThinkingBlock)


def _clear_results(messages: list[MessageParam], edit: ClearToolUses) -> tuple[list[MessageParam], int]:
    """Clear tool results; returns the messages and the number of tool uses cleared (0: not triggered)."""
    blocks = [block for message in messages for block in message.content]
    uses = [block for block in blocks if isinstance(block, ToolUseBlock | ServerToolUseBlock)]
    if isinstance(edit.trigger, ToolUses) and len(uses) <= edit.trigger.value:
        return messages, 0
    clearable = {
        block.tool_use_id
        for block in blocks
        if isinstance(block, ToolResultBlock | ServerToolResultBlock) and not _loads_tools(block)
    }
    excluded = edit.exclude_tools or ()
    old = uses[: max(len(uses) - edit.keep.value, 0)]
    cleared = {use.id for use in old if use.id in clearable and use.name not in excluded}
    return [
        _replace_content(
            message, [_clear_block(block, cleared, edit.clear_tool_inputs) for block in message.content]
        )
        for message in messages
    ], len(cleared)


def _loads_tools(result: ToolResultBlock | ServerToolResultBlock) -> bool:
    # Without the reference the model would lose a tool that it found, and not know why.
    if isinstance(result, ServerToolResultBlock):
        return result.type == "tool_search_tool_result"
    return any(isinstance(block, ToolReferenceBlock) for block in result.content)


def _clear_block(block: ContentBlock, uses: set[str], inputs: bool | list[str] | None) -> ContentBlock:
    match block:
        case ToolResultBlock() if block.tool_use_id in uses:
            return block.model_copy(update={"content": [TextBlock(type="text", text=CLEARED_RESULT_TEXT)]})
        case ServerToolResultBlock() if block.tool_use_id in uses:
            return block.model_copy(update={"content": [{"type": "text", "text": CLEARED_RESULT_TEXT}]})
        case ToolUseBlock() | ServerToolUseBlock() if block.id in uses:
            is_asked = block.name in inputs if isinstance(inputs, list) else inputs
            return block.model_copy(update={"input": {}}) if is_asked else block
        case _:
            return block


def _replace_content(message: MessageParam, content: list[ContentBlock]) -> MessageParam:
    is_same = len(content) == len(message.content) and all(map(operator.is_, content, message.content))
    return message if is_same else message.model_copy(update={"content": content})
