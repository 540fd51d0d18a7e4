"""Edits of ``context_management``, with a token for every character."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from commonweight.messages.conversation import MessageParam
from commonweight.messages.edits import ContextManagement
from commonweight.turn.edits import CLEARED_RESULT_TEXT, EditedConversation, apply_edits

MESSAGES = TypeAdapter(list[MessageParam])
BIG = "r" * 1000


def user(*blocks: dict[str, Any] | str) -> dict[str, Any]:
    return {"role": "user", "content": [text(block) if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks: dict[str, Any] | str) -> dict[str, Any]:
    return user(*blocks) | {"role": "assistant"}


def system(said: str) -> dict[str, Any]:
    return {"role": "system", "content": said}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def thinking(thought: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": thought, "signature": "s"}


def call(number: int, tool: str = "read", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"t{number}", "name": tool, "input": {"path": "x"}} | fields


def result(number: int, content: Any = BIG, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": f"t{number}", "content": content} | fields


def loop(*tools: str) -> list[dict[str, Any]]:
    """A conversation that calls these tools one after the other."""
    said = [user("go")]
    for i, tool in enumerate(tools):
        said += [assistant(call(i, tool)), user(result(i))]
    return said


class Counter:
    """Counts a token for every character that the model would read, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, messages: Sequence[MessageParam]) -> int:
        self.asked += 1
        return sum(_length(block.model_dump()) for message in messages for block in message.content)


def _length(block: dict[str, Any]) -> int:
    match block:
        case {"text": str(said)} | {"thinking": str(said)} | {"data": str(said)}:
            return len(said)
        case {"input": given}:
            return len(json.dumps(given))
        case {"content": list(content)}:
            return sum(_length(inner) for inner in content)
        case _:
            return 0


async def edited(messages: list[dict[str, Any]], *edits: dict[str, Any]) -> tuple[EditedConversation, int]:
    """What becomes of the conversation, and how often tokens were counted."""
    said = MESSAGES.validate_python(messages)
    before = MESSAGES.dump_json(said)
    counter = Counter()
    management = ContextManagement.model_validate({"edits": list(edits)})
    done = await apply_edits(said, management.edits, counter)
    assert MESSAGES.dump_json(said) == before, "the request was changed"
    assert len(done.messages) == len(said)
    return done, counter.asked


def report(done: EditedConversation) -> list[dict[str, Any]]:
    return [edit.model_dump() for edit in done.report.applied_edits]


def cleared_uses(done: EditedConversation) -> list[str]:
    return [
        block["tool_use_id"]
        for message in MESSAGES.dump_python(done.messages)
        for block in message["content"]
        if CLEARED_RESULT_TEXT in str(block.get("content"))
    ]


def emptied_inputs(done: EditedConversation) -> list[str]:
    return [
        block["id"]
        for message in MESSAGES.dump_python(done.messages)
        for block in message["content"]
        if block.get("input") == {}
    ]


def thoughts(done: EditedConversation) -> list[str]:
    return [
        block.get("thinking") or block["data"]
        for message in MESSAGES.dump_python(done.messages)
        for block in message["content"]
        if "thinking" in block["type"]
    ]


def clear_results(**fields: Any) -> dict[str, Any]:
    return {"type": "clear_tool_uses_20250919"} | fields


def clear_thinking(**fields: Any) -> dict[str, Any]:
    return {"type": "clear_thinking_20251015"} | fields


def tokens(value: int) -> dict[str, Any]:
    return {"type": "input_tokens", "value": value}


def uses(value: int) -> dict[str, Any]:
    return {"type": "tool_uses", "value": value}


SIX = loop("read", "grep", "read", "bash", "read", "grep")
SIX_TOKENS = 2 + 6 * (1000 + len('{"path": "x"}'))
SAVED = 1000 - len(CLEARED_RESULT_TEXT)
NOW = tokens(0)


@pytest.mark.parametrize(
    ("fields", "cleared"),
    [
        ({}, []),
        ({"trigger": NOW}, ["t0", "t1", "t2"]),
        ({"trigger": tokens(SIX_TOKENS - 1)}, ["t0", "t1", "t2"]),
        ({"trigger": tokens(SIX_TOKENS)}, []),
        ({"trigger": uses(5)}, ["t0", "t1", "t2"]),
        ({"trigger": uses(6)}, []),
        ({"trigger": NOW, "keep": uses(0)}, ["t0", "t1", "t2", "t3", "t4", "t5"]),
        ({"trigger": NOW, "keep": uses(5)}, ["t0"]),
        ({"trigger": NOW, "keep": uses(6)}, []),
        ({"trigger": NOW, "keep": uses(60)}, []),
        ({"trigger": NOW, "exclude_tools": ["read", "none"]}, ["t1"]),
        ({"trigger": NOW, "keep": uses(1), "exclude_tools": ["grep"]}, ["t0", "t2", "t3", "t4"]),
        ({"trigger": NOW, "exclude_tools": ["read", "grep"]}, []),
        ({"trigger": NOW, "clear_at_least": tokens(0)}, ["t0", "t1", "t2"]),
        ({"trigger": NOW, "clear_at_least": tokens(3 * SAVED)}, ["t0", "t1", "t2"]),
        ({"trigger": NOW, "clear_at_least": tokens(3 * SAVED + 1)}, []),
    ],
)
async def test_which_tool_results_are_cleared(fields: dict[str, Any], cleared: list[str]) -> None:
    done, _ = await edited(SIX, clear_results(**fields))
    assert cleared_uses(done) == cleared
    assert emptied_inputs(done) == []
    assert report(done) == (
        [clear_results(cleared_input_tokens=len(cleared) * SAVED, cleared_tool_uses=len(cleared))]
        if cleared
        else []
    )


@pytest.mark.parametrize(
    ("inputs", "emptied"),
    [(None, []), (False, []), (True, ["t0", "t1", "t2"]), (["read", "bash"], ["t0", "t2"]), ([], [])],
)
async def test_inputs_of_cleared_uses_go_if_asked(inputs: bool | list[str] | None, emptied: list[str]) -> None:
    done, _ = await edited(SIX, clear_results(trigger=NOW, clear_tool_inputs=inputs))
    assert cleared_uses(done) == ["t0", "t1", "t2"]
    assert emptied_inputs(done) == emptied
    saved = 3 * SAVED + len(emptied) * (len('{"path": "x"}') - len("{}"))
    assert report(done) == [clear_results(cleared_input_tokens=saved, cleared_tool_uses=3)]


async def test_parallel_calls_are_cleared_in_their_order() -> None:
    messages = [user("go"), assistant(call(0), call(1), call(2)), user(result(2), result(0), result(1), "well?")]
    done, _ = await edited(messages, clear_results(trigger=NOW, keep=uses(1)))
    assert cleared_uses(done) == ["t0", "t1"]


async def test_a_cleared_result_stays_a_result() -> None:
    mark = {"type": "ephemeral"}
    old = result(0, [text("a"), text(BIG)], is_error=True, cache_control=mark)
    done, _ = await edited(
        [user("go"), assistant(call(0)), user(old, "so?")], clear_results(trigger=NOW, keep=uses(0))
    )
    (kept, said) = MESSAGES.dump_python(done.messages, exclude_none=True)[2]["content"]
    assert kept == result(0, [text(CLEARED_RESULT_TEXT)], is_error=True, cache_control=mark | {"ttl": "5m"})
    assert said == text("so?")


async def test_calls_that_a_server_made_count_and_are_cleared() -> None:
    search = {"type": "server_tool_use", "id": "s0", "name": "web_search", "input": {"q": "x"}}
    listed = {"type": "web_search_tool_result", "tool_use_id": "s0", "content": [{"text": BIG}]}
    asked = {"type": "mcp_tool_use", "id": "m0", "name": "ask", "server_name": "s", "input": {}}
    told = {"type": "mcp_tool_result", "tool_use_id": "m0", "content": [{"text": BIG}], "is_error": False}
    messages = [user("go"), assistant(search, listed, asked, told, call(0)), user(result(0))]
    done, _ = await edited(
        messages, clear_results(trigger=uses(2), keep=uses(1), clear_tool_inputs=["web_search"])
    )
    assert cleared_uses(done) == ["s0", "m0"]
    assert report(done)[0]["cleared_tool_uses"] == 2
    done, _ = await edited(messages, clear_results(trigger=NOW, keep=uses(0), exclude_tools=["web_search", "ask"]))
    assert cleared_uses(done) == ["t0"]


async def test_results_that_load_tools_stay() -> None:
    found = [{"type": "tool_reference", "tool_name": "deploy"}, text(BIG)]
    search = {"type": "server_tool_use", "id": "s0", "name": "tool_search_tool_bm25", "input": {}}
    listed = {"type": "tool_search_tool_result", "tool_use_id": "s0", "content": {"tool_references": []}}
    messages = [
        *(user("go"), assistant(search, listed, call(0, "ToolSearch")), user(result(0, found))),
        *(assistant(call(1)), user(result(1))),
    ]
    done, _ = await edited(messages, clear_results(trigger=NOW, keep=uses(0)))
    assert cleared_uses(done) == ["t1"]
    done, _ = await edited(messages, clear_results(trigger=NOW, keep=uses(1)))
    assert cleared_uses(done) == []


async def test_changes_of_tools_stay() -> None:
    deploy = {"name": "deploy", "input_schema": {"type": "object"}}
    blocks = [
        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "read"}},
        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": deploy}},
    ]
    changes = {"role": "system", "content": blocks}
    messages = [
        *(user("go"), assistant(thinking("a"), call(0)), user(result(0)), changes),
        *(assistant(thinking("b"), call(1, "deploy")), user(result(1)), assistant("done"), user("again")),
    ]
    done, _ = await edited(messages, clear_results(trigger=NOW, keep=uses(0)), clear_thinking())
    assert cleared_uses(done) == ["t0", "t1"]
    assert done.messages[3] == MESSAGES.validate_python([changes])[0]


async def test_nothing_is_cleared_where_nothing_would_be_saved() -> None:
    short = [user("go"), assistant(call(0)), user(result(0, "ok"))]
    done, _ = await edited(short, clear_results(trigger=NOW, keep=uses(0)))
    assert (cleared_uses(done), report(done)) == ([], [])
    done, _ = await edited([user("go"), assistant(call(0))], clear_results(trigger=NOW, keep=uses(0)))
    assert report(done) == []


TURNS = [
    *(user("one"), assistant(thinking("1a"), call(0)), user(result(0)), system("be brief")),
    *(assistant(thinking("1b"), {"type": "redacted_thinking", "data": "1c"}, call(1)), user(result(1))),
    assistant("done"),
    *(user("two"), assistant("without a thought")),
    *(user("three"), assistant(thinking("3a"), "so", thinking("3b"), call(2)), user(result(2), "and hurry")),
    assistant(thinking("4a"), "well"),
    user("five"),
]
ALL = ["1a", "1b", "1c", "3a", "3b", "4a"]


@pytest.mark.parametrize(
    ("fields", "kept", "turns"),
    [
        ({}, ["4a"], 2),
        ({"keep": {"type": "thinking_turns", "value": 1}}, ["4a"], 2),
        ({"keep": {"type": "thinking_turns", "value": 2}}, ["3a", "3b", "4a"], 1),
        ({"keep": {"type": "thinking_turns", "value": 3}}, ALL, 0),
        ({"keep": {"type": "thinking_turns", "value": 9}}, ALL, 0),
        ({"keep": {"type": "all"}}, ALL, 0),
        ({"keep": "all"}, ALL, 0),
    ],
)
async def test_of_which_turns_thinking_is_kept(fields: dict[str, Any], kept: list[str], turns: int) -> None:
    done, asked = await edited(TURNS, clear_thinking(**fields))
    assert thoughts(done) == kept
    if not turns:
        assert (report(done), asked) == ([], 0)
        return
    saved = sum(map(len, ALL)) - sum(map(len, kept))
    assert (report(done), asked) == (
        [clear_thinking(cleared_input_tokens=saved, cleared_thinking_turns=turns)],
        2,
    )


async def test_a_turn_goes_on_through_its_tool_results() -> None:
    messages = [*TURNS[:6], assistant(thinking("1d"), "done")]
    done, asked = await edited(messages, clear_thinking())
    assert thoughts(done) == ["1a", "1b", "1c", "1d"]
    assert asked == 0


async def test_a_message_that_was_nothing_but_thinking_keeps_its_place() -> None:
    messages = [
        user("one"),
        assistant(thinking("a")),
        user("two"),
        assistant(thinking("b"), "well"),
        user("three"),
    ]
    done, _ = await edited(messages, clear_thinking())
    assert [len(message.content) for message in done.messages] == [1, 0, 1, 2, 1]


@pytest.mark.parametrize("is_in_order", [True, False])
async def test_thinking_goes_first_and_may_spare_the_results(is_in_order: bool) -> None:
    messages = [
        user("one"),
        assistant(thinking("x" * 5000), "so"),
        user("two"),
        assistant(thinking("y"), call(0)),
        user(result(0)),
    ]
    length = await Counter()(MESSAGES.validate_python(messages))

    async def both(trigger: int) -> tuple[list[dict[str, Any]], int]:
        edits = [clear_thinking(), clear_results(trigger=tokens(trigger), keep=uses(0))]
        done, asked = await edited(messages, *(edits if is_in_order else edits[::-1]))
        return report(done), asked

    thinking_report = clear_thinking(cleared_input_tokens=5000, cleared_thinking_turns=1)
    result_report = clear_results(cleared_input_tokens=SAVED, cleared_tool_uses=1)
    assert await both(length - 5001) == ([thinking_report, result_report], 3)
    assert await both(length - 5000) == ([thinking_report], 2)


async def test_nothing_to_clear_is_not_even_counted() -> None:
    for edits in [(), (clear_results(),), (clear_thinking(), clear_results(trigger=NOW))]:
        done, asked = await edited([user("go"), assistant(thinking("a"), call(0)), user(result(0))], *edits)
        assert (report(done), asked) == ([], 0)


async def test_what_no_edit_touches_is_shared() -> None:
    said = MESSAGES.validate_python(SIX)
    management = ContextManagement.model_validate({"edits": [clear_results(trigger=NOW)]})
    done = await apply_edits(said, management.edits, Counter())
    touched = [i for i, (one, other) in enumerate(zip(said, done.messages, strict=True)) if one is not other]
    assert touched == [2, 4, 6]


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 9000), st.integers(0, 3000))
async def test_the_report_adds_up(calls: int, kept: int, trigger: int, least: int) -> None:
    messages = loop(*["read"] * calls)
    before = await Counter()(MESSAGES.validate_python(messages))
    edit = clear_results(trigger=tokens(trigger), keep=uses(kept), clear_at_least=tokens(least))
    done, asked = await edited(messages, edit)
    after = await Counter()(done.messages)
    assert asked <= 2
    expected = max(calls - kept, 0)
    if before > trigger and expected and expected * SAVED >= least:
        assert report(done) == [clear_results(cleared_input_tokens=before - after, cleared_tool_uses=expected)]
        assert cleared_uses(done) == [f"t{i}" for i in range(expected)]
        again, _ = await edited(MESSAGES.dump_python(done.messages, exclude_none=True), edit)
        assert report(again) == []
    else:
        assert report(done) == []
        assert after == before
