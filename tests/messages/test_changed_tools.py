"""What messages change about the tools, and how changes that cannot be are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from commonweight.messages.errors import InvalidRequestError, make_invalid_request_error
from commonweight.messages.request import CountTokensRequest, MessageRequest

Body = dict[str, Any]

SCHEMA = {"type": "object", "properties": {}}
MARK = {"type": "ephemeral"}
BASH = {"type": "bash_20250124", "name": "bash"}
CLEARED = "a turn-scoped system message supports text blocks only (clear_at: 'next_user_message')"
OUTSIDE = "`tool_addition` and `tool_removal` blocks can only be in `system` messages"
PAUSED = "tool_addition and tool_removal blocks cannot follow a paused assistant turn"
SERVER_RESULT = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}


def tool(name: str = "a", **fields: object) -> Body:
    return {"name": name, "input_schema": SCHEMA, **fields}


def late(name: str = "late") -> Body:
    return tool(name, defer_loading=True)


def add(name: str) -> Body:
    return {"type": "tool_addition", "tool": {"type": "tool_reference", "name": name}}


def define(definition: Body, **fields: object) -> Body:
    return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}, **fields}


def remove(name: str) -> Body:
    return {"type": "tool_removal", "tool": {"type": "tool_reference", "name": name}}


def find(*names: str) -> list[Body]:
    """A search of the client's own, and what it found."""
    found = [{"type": "tool_reference", "tool_name": name} for name in names]
    call = {"type": "tool_use", "id": f"t{names}", "name": "search", "input": {}}
    result = {"type": "tool_result", "tool_use_id": f"t{names}", "content": found}
    return [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]


def system(*blocks: Body, **fields: object) -> Body:
    return {"role": "system", "content": list(blocks), **fields}


def parsed(*messages: Body, tools: list[Body] | None = None, **fields: object) -> MessageRequest:
    said = [{"role": "user", "content": "hello"}, *messages]
    declared = {} if tools is None else {"tools": tools}
    return MessageRequest.model_validate({"model": "m", "max_tokens": 1, "messages": said, **declared, **fields})


def refusal(*messages: Body, tools: list[Body] | None = None, **fields: object) -> InvalidRequestError:
    with pytest.raises(ValidationError) as error:
        parsed(*messages, tools=tools, **fields)
    return make_invalid_request_error(error.value)


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ([], ["a", "b"]),
        ([add("late")], ["a", "b", "late"]),
        ([remove("b")], ["a"]),
        ([remove("a"), remove("b")], []),
        ([remove("b"), add("b")], ["a", "b"]),
        ([remove("b"), define(tool("b"))], ["a", "b"]),
        ([add("b"), remove("late")], ["a", "b"]),
        ([define(tool("c"))], ["a", "b", "c"]),
        ([define(tool("c")), remove("c")], ["a", "b"]),
        ([define(tool("c")), remove("c"), add("c")], ["a", "b", "c"]),
        ([define(late("c"))], ["a", "b"]),
        ([define(late("c")), add("c")], ["a", "b", "c"]),
        ([add("late"), define(late("late"))], ["a", "b", "late"]),
        ([define(late("b"))], ["a"]),
        ([define({**BASH, "type": "bash_20241022"}), define(BASH)], ["a", "b", "bash"]),
    ],
    ids=str,
)
def test_what_can_be_called_after_changes(changes: list[Body], left: list[str]) -> None:
    said = [system(*changes)] if changes else []
    assert list(parsed(*said, tools=[tool("a"), tool("b"), late()]).trace_tools().callable) == left


@pytest.mark.parametrize(
    ("messages", "is_loaded"),
    [
        (find("late"), True),
        ([*find("late"), system(remove("late"))], False),
        ([system(remove("late")), *find("late")], False),
        ([system(remove("late")), system(add("late"))], True),
        ([system(remove("late"), define(late())), *find("late")], True),
        ([system(define(late("new"))), *find("new", "late")], True),
    ],
    ids=str,
)
def test_a_reference_loads_what_was_not_removed(messages: list[Body], is_loaded: bool) -> None:
    request = parsed(*messages, tools=[tool("search"), late()])
    assert ("late" in request.trace_tools().callable) == is_loaded


def test_the_latest_definition_holds() -> None:
    other = tool("a", description="Another.")
    tools = parsed(system(define(other)), tools=[tool("a")]).trace_tools()
    assert tools.callable["a"].description == "Another."


@pytest.mark.parametrize(
    ("blocks", "effective"),
    [
        ([add("late"), add("late")], [True, False]),
        ([define(tool("c")), define(tool("c"))], [True, False]),
        ([define(tool("c")), define(tool("c", cache_control=MARK))], [True, False]),
        ([define(tool("c")), define(tool("c", description="x"))], [True, True]),
        ([define(tool("c")), remove("c"), define(tool("c"))], [True, True, True]),
        ([add("a"), remove("a"), remove("a")], [False, True, False]),
        ([remove("late"), remove("late")], [False, False]),
        ([define(late("c")), define(late("c")), add("c")], [False, False, True]),
    ],
    ids=str,
)
def test_what_changes_nothing_is_no_change(blocks: list[Body], effective: list[bool]) -> None:
    request = parsed(system(*blocks), tools=[tool("a"), late()])
    tools = request.trace_tools()
    content = request.messages[1].content
    assert [tools.find_change(block) is not None for block in content] == effective


def test_only_the_first_tool_of_a_conversation_is_the_first() -> None:
    def firsts(tools: list[Body] | None) -> list[bool]:
        request = parsed(system(define(tool("x")), remove("x"), define(tool("y"))), tools=tools)
        changes = map(request.trace_tools().find_change, request.messages[1].content)
        return [change is not None and change.is_first for change in changes]

    assert firsts([tool("a")]) == [False, False, False]
    assert firsts([late()]) == firsts([]) == firsts(None) == [True, False, False]


@pytest.mark.parametrize(
    ("choice", "changes"),
    [
        ({"type": "tool", "name": "late"}, []),
        ({"type": "tool", "name": "late"}, [add("late")]),
        ({"type": "tool", "name": "c"}, [define(tool("c"))]),
        ({"type": "tool", "name": "a"}, [remove("a"), add("a")]),
        ({"type": "any"}, [remove("a"), add("late")]),
        ({"type": "none"}, [remove("a")]),
        ({"type": "auto"}, [remove("a")]),
    ],
    ids=str,
)
def test_choices(choice: Body, changes: list[Body]) -> None:
    assert parsed(system({"type": "text", "text": "x"}, *changes), tools=[tool("a"), late()], tool_choice=choice)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([remove("a")], "Tool 'a' not found in provided tools: messages.1.content.0 removed it"),
        (
            [remove("a"), add("a"), remove("a")],
            "Tool 'a' not found in provided tools: messages.1.content.2 removed it",
        ),
    ],
    ids=str,
)
def test_a_removed_tool_cannot_be_chosen(changes: list[Body], message: str) -> None:
    tools = [tool("a"), late()]
    assert refusal(system(*changes), tools=tools, tool_choice={"type": "tool", "name": "a"}).message == message


def test_any_tool_needs_one_that_is_left() -> None:
    any_tool = {"type": "any"}
    only = "tool_choice.any may only be specified while providing tools"
    assert refusal(system(remove("a")), tools=[tool("a"), late()], tool_choice=any_tool).message == only
    assert parsed(system(define(tool("b"))), tool_choice=any_tool)


def test_tools_may_all_be_deferred_if_one_is_added() -> None:
    refused = "All tools have defer_loading set. At least one tool must be non-deferred."
    assert refusal(tools=[late()]).message == refused
    assert refusal(system(remove("late")), tools=[late()]).message == refused
    assert parsed(system(define(tool("a"))), tools=[late()])
    assert parsed(system(add("late")), tools=[late()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([add("x")], "messages.1.content.0: tool_addition references tool 'x', which is not defined before it"),
        (
            [add("late"), remove("x")],
            "messages.1.content.1: tool_removal references tool 'x', which is not defined before it",
        ),
        (
            [remove("x"), define(tool("x"))],
            "messages.1.content.0: tool_removal references tool 'x', which is not defined before it",
        ),
        (
            [{"type": "tool_addition", "tool": {"type": "mcp_toolset_reference", "server_name": "s"}}],
            "messages.1.content.0.tool_addition.tool: mcp_toolset_reference is not supported by this server",
        ),
        (
            [{"type": "tool_removal", "tool": {"type": "mcp_tool_reference", "server_name": "s", "name": "n"}}],
            "messages.1.content.0.tool_removal.tool: mcp_tool_reference is not supported by this server",
        ),
    ],
    ids=str,
)
def test_tools_that_are_defined_nowhere(changes: list[Body], message: str) -> None:
    error = refusal(system(*changes), tools=[tool("a"), late()])
    assert error.message == message
    assert error.details == {"error_code": "tool_reference_unresolved"}


def test_a_conversation_without_tools_has_none_to_name() -> None:
    unresolved = {"error_code": "tool_reference_unresolved"}
    assert refusal(system(remove("x"))).details == unresolved
    assert refusal(system(remove("x")), tools=[]).details == unresolved
    # A message that is counted alone names tools that are not sent with it.
    alone = [{"role": "user", "content": "hello"}, system(remove("x"), add("y"))]
    assert CountTokensRequest.model_validate({"model": "m", "messages": alone})


@pytest.mark.parametrize(
    ("declared", "changes"),
    [
        ([BASH], [define(tool("bash"))]),
        ([tool("bash")], [define(BASH)]),
        ([BASH], [remove("bash"), define(tool("bash"))]),
        ([], [define(BASH), define(tool("bash"))]),
    ],
    ids=str,
)
def test_a_name_stays_with_a_kind_of_tool(declared: list[Body], changes: list[Body]) -> None:
    error = refusal(system(*changes), tools=declared)
    kind = "custom" if declared == [tool("bash")] else BASH["type"]
    place = f"messages.1.content.{len(changes) - 1}.tool.definition.name"
    assert error.message == f"{place}: 'bash' is already used by a {kind} tool"
    assert error.details == {"error_code": "tool_name_conflict"}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "tool_addition"}, "messages.1.content.0.tool_addition.tool: Field required"),
        ({"type": "tool_removal", "tool": {}}, "messages.1.content.0.tool_removal.tool.type: Field required"),
        (
            {"type": "tool_removal", "tool": {"type": "tool_definition", "definition": tool()}},
            "messages.1.content.0.tool_removal.tool.type: Input should be 'tool_reference'",
        ),
        (
            define(tool("a b")),
            "messages.1.content.0.tool.definition.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
        ),
        (define({"name": "a"}), "messages.1.content.0.tool.definition.input_schema: Field required"),
        (
            define(tool(input_schema={"type": "string"})),
            "messages.1.content.0.tool.definition.input_schema.type: Input should be 'object'",
        ),
        (define({**BASH, "name": "b"}), "messages.1.content.0.tool.definition.name: Input should be 'bash'"),
        (
            define({"type": "computer_20250124", "name": "computer"}),
            "messages.1.content.0.tool.definition: computer_20250124 cannot yet be defined in a message",
        ),
        (
            define({"type": "mcp_toolset", "mcp_server_name": "s"}),
            "messages.1.content.0.tool.definition: mcp_toolset cannot yet be defined in a message",
        ),
        (
            define(tool(cache_control=MARK), cache_control=MARK),
            "messages.1.content.0.tool_addition: "
            "cache_control goes on the block or in its definition, not on both",
        ),
        (
            define(tool(cache_control=MARK, defer_loading=True)),
            "messages.1.content.0.tool_addition: Tool 'a' cannot have both defer_loading=true and cache_control "
            "set. Tools with defer_loading cannot use prompt caching.",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_change_is_said_with_its_place(block: Body, message: str) -> None:
    assert refusal(system(block)).message == message


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user", "content": [remove("a")]}], f"messages.1: {OUTSIDE}"),
        ([{"role": "assistant", "content": [define(tool("b"))]}], f"messages.1: {OUTSIDE}"),
        ([system(remove("a"), clear_at="next_user_message")], f"messages.1: {CLEARED}"),
        ([{"role": "assistant", "content": [SERVER_RESULT]}, system(remove("a"))], f"messages.2: {PAUSED}"),
    ],
)
def test_where_changes_cannot_stand(messages: list[Body], message: str) -> None:
    assert refusal(*messages, tools=[tool("a")]).message == message


def test_changes_for_good_may_be_said_so() -> None:
    assert parsed(system(remove("a"), clear_at="never"), tools=[tool("a")])


def test_a_mark_in_a_definition_is_the_blocks() -> None:
    request = parsed(
        system(define(tool("x", cache_control={**MARK, "ttl": "1h"})), {**add("x"), "cache_control": MARK})
    )
    assert [(where, mark.ttl) for where, mark in request.cache_marks()] == [
        ("messages.1.content.0", "1h"),
        ("messages.1.content.1", "5m"),
    ]
