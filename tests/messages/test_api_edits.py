"""Edits of the conversation: their shapes, and what they do when not told more."""

from typing import Any

import pytest
from pydantic import ValidationError

from commonweight.messages.edits import (
    AllThinking,
    ClearThinking,
    ClearToolUses,
    ContextManagement,
    InputTokens,
    ThinkingTurns,
    ToolUses,
)
from commonweight.messages.errors import make_invalid_request_error

THINKING = "clear_thinking_20251015"
TOOL_USES = "clear_tool_uses_20250919"


def only(edit: dict[str, Any]) -> ClearThinking | ClearToolUses:
    (parsed,) = ContextManagement.model_validate({"edits": [edit]}).edits
    return parsed


@pytest.mark.parametrize(
    ("fields", "keep"),
    [
        ({}, ThinkingTurns(type="thinking_turns", value=1)),
        ({"keep": "all"}, AllThinking(type="all")),
        ({"keep": {"type": "all"}}, AllThinking(type="all")),
        ({"keep": {"type": "thinking_turns", "value": 3}}, ThinkingTurns(type="thinking_turns", value=3)),
    ],
)
def test_clearing_of_thinking(fields: dict[str, Any], keep: AllThinking | ThinkingTurns) -> None:
    edit = only({"type": THINKING, **fields})
    assert isinstance(edit, ClearThinking)
    assert edit.keep == keep


def test_clearing_of_tool_uses() -> None:
    edit = only({"type": TOOL_USES})
    assert isinstance(edit, ClearToolUses)
    assert edit.trigger == InputTokens(type="input_tokens", value=100_000)
    assert edit.keep == ToolUses(type="tool_uses", value=3)
    assert (edit.clear_at_least, edit.exclude_tools, edit.clear_tool_inputs) == (None, None, None)


@pytest.mark.parametrize("inputs", [True, False, ["Bash"], None])
def test_clearing_of_tool_uses_in_full(inputs: object) -> None:
    fields = {
        "type": TOOL_USES,
        "trigger": {"type": "tool_uses", "value": 10},
        "keep": {"type": "tool_uses", "value": 0},
        "clear_at_least": {"type": "input_tokens", "value": 5000},
        "exclude_tools": ["Read"],
        "clear_tool_inputs": inputs,
    }
    assert only(fields).model_dump() == fields


@pytest.mark.parametrize("fields", [{}, {"edits": []}])
def test_there_need_be_none(fields: dict[str, Any]) -> None:
    assert ContextManagement.model_validate(fields).edits == []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"type": "compact_20260112"}, "edits.1: compact_20260112 is not supported by this server"),
        (
            {"type": "forget"},
            "edits.1: Input tag 'forget' found using 'type' does not match any of the expected tags: "
            f"'{THINKING}', '{TOOL_USES}'",
        ),
        ("forget", "edits.1: Input should be an object"),
        (
            {"type": THINKING, "keep": {"type": "thinking_turns", "value": 0}},
            f"edits.1.{THINKING}.keep.thinking_turns.value: Input should be greater than or equal to 1",
        ),
        ({"type": THINKING, "keep": "none"}, f"edits.1.{THINKING}.keep: Input should be an object"),
        (
            {"type": TOOL_USES, "trigger": {"type": "input_tokens"}},
            f"edits.1.{TOOL_USES}.trigger.input_tokens.value: Field required",
        ),
        (
            {"type": TOOL_USES, "keep": {"type": "input_tokens", "value": 1}},
            f"edits.1.{TOOL_USES}.keep.type: Input should be 'tool_uses'",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_with_its_place(edit: object, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        ContextManagement.model_validate({"edits": [{"type": THINKING}, edit]})
    assert make_invalid_request_error(error.value).message == message
