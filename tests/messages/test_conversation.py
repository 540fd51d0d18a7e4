"""Which messages may follow which, and who decides about the effort."""

from typing import Any

import pytest
from pydantic import ValidationError

from commonweight.messages.errors import make_invalid_request_error
from commonweight.messages.request import CountTokensRequest

Message = dict[str, Any]

USER: Message = {"role": "user", "content": "hello"}
ASSISTANT: Message = {"role": "assistant", "content": "hi"}
SYSTEM: Message = {"role": "system", "content": "Be brief."}
TEXT = {"type": "text", "text": "x"}
ANYWHERE = "; the directive-only form (content: [] with output_config) is accepted at any position"
EMPTY = "all messages must have non-empty content except for the optional final assistant message"
MUST_FOLLOW = (
    "role 'system' must follow a 'user' message or an 'assistant' message ending in a server tool result"
    + ANYWHERE
)


def user(*content: object) -> Message:
    return {"role": "user", "content": list(content)}


def assistant(*content: object) -> Message:
    return {"role": "assistant", "content": list(content)}


def directive(effort: str | None, content: object = ()) -> Message:
    return {"role": "system", "content": content or [], "output_config": {"effort": effort}}


def call(id_: str = "t") -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "n", "input": {}}


def result(id_: str = "t") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": "r"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


REMOVAL = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "n"}}
SERVER_RESULT = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}


def parsed(messages: list[Message], **fields: object) -> CountTokensRequest:
    return CountTokensRequest.model_validate({"model": "m", "messages": messages, **fields})


def unanswered(i: int, *ids: str) -> str:
    return (
        f"messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        + ", ".join(ids)
        + ". Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def unexpected(i: int, j: int, id_: str) -> str:
    return (
        f"messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks: {id_}. "
        "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
    )


@pytest.mark.parametrize(
    "messages",
    [
        [ASSISTANT],
        [USER, USER, ASSISTANT, ASSISTANT],
        [USER, assistant()],
        [USER, {"role": "assistant", "content": ""}],
        [user(text(" "), text("x"))],
        [USER, assistant(TEXT, {"type": "document", "source": {"type": "url", "url": "u"}}), USER],
        # What Claude Code sends.
        [USER, SYSTEM],
        [USER, SYSTEM, ASSISTANT, USER],
        [USER, SYSTEM, assistant(TEXT, call()), user(result())],
        [USER, SYSTEM, USER],
        [USER, SYSTEM, SYSTEM, USER, ASSISTANT],
        # Where else system messages may stand.
        [USER, assistant(TEXT, SERVER_RESULT), SYSTEM, USER],
        [directive("low"), USER],
        [USER, ASSISTANT, directive("low"), USER],
        [USER, assistant(call()), directive("low"), user(result())],
        [USER, {"role": "system", "content": "", "output_config": {}}],
        [USER, {**SYSTEM, "clear_at": "next_user_message"}],
        [USER, {"role": "system", "content": [TEXT, REMOVAL]}],
        # Calls and results.
        [USER, assistant(TEXT, call("a"), call("b")), user(result("b"), result("a"), TEXT)],
        [USER, assistant(call("a")), user(TEXT, result("a"))],
        [USER, assistant(call("a")), user(result("a")), assistant(call("b")), user(result("b")), ASSISTANT],
        [USER, assistant(call("a")), assistant(call("b")), user(result("a")), user(TEXT), user(result("b"))],
        [USER, assistant(call("a"), call("b")), user(result("a")), SYSTEM, user(result("b"))],
    ],
    ids=lambda messages: "".join(message["role"][0] for message in messages),
)
def test_valid_conversations(messages: list[Message]) -> None:
    assert len(parsed(messages).messages) == len(messages)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages: at least one message is required"),
        ([{"role": "user", "content": ""}], f"messages.0: {EMPTY}"),
        ([user()], f"messages.0: {EMPTY}"),
        ([USER, assistant(), USER], f"messages.1: {EMPTY}"),
        ([USER, {**user(), "output_config": {"effort": "low"}}], f"messages.1: {EMPTY}"),
        ([user(TEXT, text(""))], "messages: text content blocks must be non-empty"),
        ([USER, assistant(text(""), text(""))], "messages: text content blocks must be non-empty"),
        ([USER, ASSISTANT, user(text(" \n"))], "messages: text content blocks must contain non-whitespace text"),
        ([user(text(" "), text("\t"))], "messages: text content blocks must contain non-whitespace text"),
        ([USER, assistant(text(" ")), USER], "messages: text content blocks must contain non-whitespace text"),
        ([USER, {"role": "system", "content": ""}], "messages.1: system content must contain at least one block"),
        ([USER, {"role": "system", "content": []}], "messages.1: system content must contain at least one block"),
        (
            [USER, {"role": "system", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}],
            "messages.1: role 'system' supports text, tool_addition, and tool_removal blocks only",
        ),
        (
            [SYSTEM, SYSTEM, USER],
            f"messages.0: use the top-level 'system' parameter for the initial system prompt{ANYWHERE}",
        ),
        ([USER, ASSISTANT, SYSTEM, USER], f"messages.2: {MUST_FOLLOW}"),
        ([USER, ASSISTANT, SYSTEM, SYSTEM, USER], f"messages.2: {MUST_FOLLOW}"),
        ([USER, ASSISTANT, directive("low"), SYSTEM], f"messages.3: {MUST_FOLLOW}"),
        ([USER, USER, assistant(SERVER_RESULT, TEXT), SYSTEM, USER], f"messages.3: {MUST_FOLLOW}"),
        ([USER, assistant(call()), SYSTEM, user(result())], f"messages.2: {MUST_FOLLOW}"),
        ([user(call())], "messages.0: `tool_use` blocks can only be in `assistant` messages"),
        (
            [USER, assistant(call(), result())],
            "messages.1: `tool_result` blocks can only be in `user` messages",
        ),
        ([USER, assistant(call("a"))], unanswered(1, "a")),
        ([USER, assistant(TEXT, call("a"), call("b"), call("c")), user(result("b"))], unanswered(1, "a", "c")),
        ([USER, assistant(call("a")), assistant(call("b")), user(result("a"))], unanswered(2, "b")),
        ([USER, assistant(call("a")), USER, ASSISTANT, user(result("a"))], unanswered(1, "a")),
        ([user(TEXT, result("a"))], unexpected(0, 1, "a")),
        ([USER, ASSISTANT, user(result("a"))], unexpected(2, 0, "a")),
        (
            [USER, assistant(call("a")), user(result("a")), ASSISTANT, user(result("a"))],
            unexpected(4, 0, "a"),
        ),
        (
            [USER, assistant(call("a")), user(result("a")), user(TEXT, result("a"))],
            "messages.3.content.1: each tool_use must have a single result. "
            "Found multiple `tool_result` blocks with id: a",
        ),
        (
            [USER, assistant(call("a"), call("a")), user(result("a"))],
            "messages.1.content.1: `tool_use` ids must be unique",
        ),
        (
            [USER, assistant(call("a")), user(result("a")), assistant(TEXT, call("a")), user(result("a"))],
            "messages.3.content.1: `tool_use` ids must be unique",
        ),
        ([USER, assistant(call("{0}")), user(result("{x}"))], unexpected(2, 0, "{x}")),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_with_its_place(messages: list[Message], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        parsed(messages)
    assert make_invalid_request_error(error.value).message == message


@pytest.mark.parametrize(
    ("messages", "effort"),
    [
        ([USER], "max"),
        ([USER, directive("low")], "low"),
        ([USER, directive("low", "Be brief.")], "low"),
        ([USER, directive(None)], "max"),
        ([USER, directive("low"), directive("medium")], "medium"),
        ([USER, directive("low"), ASSISTANT, USER], "low"),
        ([USER, ASSISTANT, directive("low")], "max"),
        ([USER, ASSISTANT, directive("low"), USER], "low"),
        ([directive("low"), USER], "low"),
        ([USER, directive("low"), USER, directive("high")], "high"),
        ([USER, directive("low"), assistant(call()), user(result())], "low"),
        ([USER, assistant(call()), user(result()), directive("low")], "max"),
        ([USER, assistant(call()), user(result()), directive("low"), ASSISTANT, USER], "low"),
        ([USER, assistant(call()), user(result(), TEXT), directive("low")], "low"),
    ],
    ids=lambda value: "".join(message["role"][0] for message in value) if isinstance(value, list) else value,
)
def test_a_message_may_change_the_effort_from_there_on(messages: list[Message], effort: str) -> None:
    assert parsed(messages, output_config={"effort": "max"}).effort == effort


def test_nobody_need_say_anything_about_the_effort() -> None:
    assert parsed([USER]).effort is None
    assert parsed([USER], output_config={}).effort is None
