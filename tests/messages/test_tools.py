"""Tools: what clients may offer, and what models are told of the tools that the API publishes."""

from typing import Any

import pytest
from pydantic import ValidationError

from commonweight.messages.errors import make_invalid_request_error
from commonweight.messages.request import CountTokensRequest
from commonweight.messages.tools import CustomTool, FreeToolChoice, NamedToolChoice, Tool

SCHEMA = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {}}
BASH = {"type": "bash_20250124", "name": "bash"}
ANYONE = {"type": "any"}
PUBLISHED = {
    "bash_20241022": ("bash", {"command", "restart"}),
    "bash_20250124": ("bash", {"command", "restart"}),
    "text_editor_20241022": ("str_replace_editor", {"command", "path", "new_str", "insert_line"}),
    "text_editor_20250124": ("str_replace_editor", {"command", "path", "new_str", "insert_line"}),
    "text_editor_20250429": ("str_replace_based_edit_tool", {"command", "path", "insert_text", "view_range"}),
    "text_editor_20250728": ("str_replace_based_edit_tool", {"command", "path", "old_str", "file_text"}),
    "memory_20250818": ("memory", {"command", "path", "old_path", "new_path", "insert_text"}),
}
TAGS = "'custom', " + ", ".join(
    f"'{kind}'"
    for kind in (
        *("bash_20241022", "bash_20250124", "text_editor_20250429", "text_editor_20250728"),
        *("text_editor_20241022", "text_editor_20250124", "memory_20250818"),
    )
)


def custom(name: str = "a", **fields: object) -> dict[str, Any]:
    return {"name": name, "input_schema": SCHEMA, **fields}


def parsed(tools: object, choice: object = None, messages: object = None) -> CountTokensRequest:
    messages = messages or [{"role": "user", "content": "hello"}]
    return CountTokensRequest.model_validate(
        {"model": "m", "messages": messages, "tools": tools, "tool_choice": choice}
    )


def only(tool: dict[str, Any]) -> Tool:
    tools = parsed([tool]).tools
    assert tools is not None
    return tools[0]


def refusal(tools: object, choice: object = None, messages: object = None) -> str:
    with pytest.raises(ValidationError) as error:
        parsed(tools, choice, messages)
    return make_invalid_request_error(error.value).message


@pytest.mark.parametrize("kind", [{}, {"type": None}, {"type": "custom"}], ids=str)
def test_a_tool_of_the_clients_own(kind: dict[str, object]) -> None:
    tool = only(
        {
            **custom("mcp__server__" + "x" * 100, **kind),
            "description": "d",
            "cache_control": {"type": "ephemeral"},
            "strict": True,
            "defer_loading": False,
            "eager_input_streaming": None,
            "input_examples": [{"x": 1}],
            "allowed_callers": ["direct"],
        }
    )
    assert isinstance(tool, CustomTool)
    assert (tool.type, tool.description, tool.strict) == ("custom", "d", True)
    assert list(tool.input_schema) == list(SCHEMA)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_models_are_told_what_requests_leave_out(kind: str) -> None:
    name, fields = PUBLISHED[kind]
    tool = only({"type": kind, "name": name, "max_characters": 10_000, "cache_control": None})
    assert tool.name == name
    assert tool.description
    assert tool.input_schema["type"] == "object"
    properties = tool.input_schema["properties"]
    assert fields <= properties.keys() >= set(tool.input_schema["required"])
    assert all(field["description"] for field in properties.values())


def test_only_the_old_editor_takes_back() -> None:
    commands = {
        kind: "undo_edit" in only({"type": kind, "name": name}).input_schema["properties"]["command"]["enum"]
        for kind, (name, _) in PUBLISHED.items()
        if kind.startswith("text_editor")
    }
    assert commands == {
        "text_editor_20241022": True,
        "text_editor_20250124": True,
        "text_editor_20250429": False,
        "text_editor_20250728": False,
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("web_search_20250305", "web_search_20260318", "web_fetch_20250910", "code_execution_20250825"),
        *("tool_search_tool_regex_20251119", "tool_search_tool_bm25_20251119", "mcp_toolset", "advisor_20260301"),
        *("computer_20250124", "computer_toolset_20260801", "browser_toolset_20260801"),
    ],
)
def test_tools_that_this_server_would_have_to_run_are_refused_plainly(kind: str) -> None:
    assert refusal([custom(), {"type": kind}]) == f"tools.1: {kind} is not supported by this server"


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({}, "tools: Input should be a valid list"),
        ([None], "tools.0: Input should be an object"),
        (
            [{"type": "bash_20990101", "name": "bash"}],
            "tools.0: Input tag 'bash_20990101' found using 'type' does not match any of the expected tags: "
            + TAGS,
        ),
        ([{"input_schema": SCHEMA}], "tools.0.custom.name: Field required"),
        ([custom(), {"name": "b", "type": "custom"}], "tools.1.custom.input_schema: Field required"),
        ([custom("a b")], "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"),
        ([custom("x" * 129)], "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"),
        ([custom("")], "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"),
        ([custom(input_schema=[])], "tools.0.custom.input_schema: Input should be a valid dictionary"),
        ([custom(input_schema={})], "tools.0.custom.input_schema.type: Field required"),
        ([custom(input_schema={"type": "string"})], "tools.0.custom.input_schema.type: Input should be 'object'"),
        ([custom(strict="yes")], "tools.0.custom.strict: Input should be a valid boolean"),
        ([{**BASH, "name": "shell"}], "tools.0.bash_20250124.name: Input should be 'bash'"),
        (
            [{"type": "text_editor_20250728", "name": "str_replace_editor"}],
            "tools.0.text_editor_20250728.name: Input should be 'str_replace_based_edit_tool'",
        ),
        ([custom(), custom("b"), custom()], "tools: Tool names must be unique."),
        ([BASH, custom("bash")], "tools: Tool names must be unique."),
        (
            [custom(), custom("b", defer_loading=True, cache_control={"type": "ephemeral"})],
            "Tool 'b' cannot have both defer_loading=true and cache_control set. "
            "Tools with defer_loading cannot use prompt caching.",
        ),
        (
            [custom(defer_loading=True), {**BASH, "defer_loading": True}],
            "All tools have defer_loading set. At least one tool must be non-deferred.",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_tools_is_said_with_its_place(tools: object, message: str) -> None:
    assert refusal(tools) == message


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (None, {"type": "auto"}),
        (None, {"type": "none"}),
        ([], {"type": "auto", "disable_parallel_tool_use": False}),
        ([custom()], {"type": "any", "disable_parallel_tool_use": True}),
        ([custom(), BASH], {"type": "tool", "name": "bash"}),
        ([custom(), custom("b", defer_loading=True)], {"type": "tool", "name": "b"}),
    ],
    ids=str,
)
def test_choices(tools: object, choice: dict[str, Any]) -> None:
    parsed_choice = parsed(tools, choice).tool_choice
    assert isinstance(parsed_choice, FreeToolChoice | NamedToolChoice)
    assert parsed_choice.model_dump(exclude_none=True) == choice


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ([], "auto", "tool_choice: Input should be an object"),
        ([], {}, "tool_choice: Unable to extract tag using discriminator 'type'"),
        (
            [],
            {"type": "x"},
            "tool_choice: Input tag 'x' found using 'type' does not match any of the expected tags: "
            "'auto', 'any', 'none', 'tool'",
        ),
        ([custom()], {"type": "tool"}, "tool_choice.tool.name: Field required"),
        (None, ANYONE, "tool_choice.any may only be specified while providing tools"),
        ([], ANYONE, "tool_choice.any may only be specified while providing tools"),
        (None, {"type": "tool", "name": "x"}, "Tool 'x' not found in provided tools"),
        ([custom()], {"type": "tool", "name": "x"}, "Tool 'x' not found in provided tools"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_choice_is_said(tools: object, choice: object, message: str) -> None:
    assert refusal(tools, choice) == message


def test_a_reference_names_a_tool_that_is_there() -> None:
    def found(name: str) -> list[dict[str, Any]]:
        reference = {"type": "tool_reference", "tool_name": name}
        search = {"type": "tool_use", "id": "t", "name": "ToolSearch", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "t", "content": [reference]}
        said = [("user", "hello"), ("assistant", [search]), ("user", [result])]
        return [{"role": role, "content": content} for role, content in said]

    tools = [custom("ToolSearch"), custom("b", defer_loading=True)]
    assert parsed(tools, messages=found("b")).tools
    assert refusal(tools, messages=found("c")) == (
        "messages.2.content.0.tool_result.content.0: Tool reference 'c' not found in available tools"
    )
    assert parsed(None, messages=found("c")).messages  # messages alone, to count them
