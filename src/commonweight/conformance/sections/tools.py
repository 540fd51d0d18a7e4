"""Client tools: section 7, and their calls and results in the history (section 6)."""

from typing import Any

import anthropic

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import (
    ENDS_SOON,
    GREETING,
    ROUND_TRIP,
    Json,
    assistant,
    result,
    text,
    tool_use,
    user,
)
from commonweight.conformance.shapes import CUT_STOP_REASONS, check_ending, check_error, check_instance, list_calls
from commonweight.conformance.target import Target
from commonweight.conformance.toolbox import AGENTS_KEYWORDS, CLOCK, DEMANDING, MARKUP, WEATHER

QUESTION = [user("How is the weather in Paris, and what time is it there?")]
ANY = {"type": "any"}
ONE = {"type": "any", "disable_parallel_tool_use": True}
"""Without this a small model may go on calling until its tokens end."""


@check()
async def free_choice(target: Target) -> None:
    """With `auto`, and without a choice, the answer is a valid message, whatever the model does (§7)."""
    for more in ({}, {"tool_choice": {"type": "auto"}}):
        message = await target.create_message(tools=[WEATHER, CLOCK], messages=QUESTION, max_tokens=48, **more)
        check_ending(message)
        if message["stop_reason"] not in CUT_STOP_REASONS:
            for call in list_calls(message):
                check_call(call, WEATHER, CLOCK)


@check()
async def any_tool(target: Target) -> None:
    """With `any` the model calls one of the tools, with input that is valid for it (§5, §7)."""
    message = await force_tool(target, ANY)
    check_ending(message)
    calls = list_calls(message)
    # The tokens may end within a further call.
    whole = calls[:-1] if message["stop_reason"] in CUT_STOP_REASONS else calls
    assert whole, f"no whole call, but {[block['type'] for block in message['content']]}"
    for call in whole:
        check_call(call, WEATHER, CLOCK)


@check()
async def this_tool(target: Target) -> None:
    """With `{"type":"tool","name":...}` the model calls that one (§5, §7)."""
    for tool in (WEATHER, CLOCK):
        message = await force_tool(target, this(tool))
        check_one_call(message, tool)


@check()
async def no_tool(target: Target) -> None:
    """With `none` the model calls nothing, but still knows of the tools, so that the prompt stays (§5)."""
    message = await target.create_message(tools=[WEATHER, CLOCK], tool_choice={"type": "none"}, messages=QUESTION)
    assert not list_calls(message), f"a call: {list_calls(message)}"
    bare, shown = (
        await target.count_prompt_tokens(),
        await target.count_prompt_tokens(tools=[WEATHER], tool_choice={"type": "none"}),
    )
    assert shown > bare, f"{shown} prompt tokens with a tool and {bare} without"


@check()
async def one_call_at_a_time(target: Target) -> None:
    """With `disable_parallel_tool_use` there is exactly one call (§5)."""
    check_one_call(await force_tool(target, ONE), WEATHER, CLOCK)


@check()
async def ids_of_calls(target: Target) -> None:
    """The id of a call begins with `toolu_`, and is never the same (§8)."""
    messages = [await force_tool(target, choice) for choice in (ANY | {"disable_parallel_tool_use": False}, ONE)]
    ids = [call["id"] for message in messages for call in list_calls(message)]
    assert len(ids) >= 2, "two forced answers have less than two calls"
    assert len(set(ids)) == len(ids), f"the same id twice: {ids}"
    assert all(id_.startswith("toolu_") for id_ in ids), f"the ids are {ids}"


@check()
async def a_streamed_call(target: Target) -> None:
    """`input_json_delta`s add up to JSON that is valid for the tool (§10)."""
    stream = await target.stream(tools=[WEATHER, CLOCK], tool_choice=ONE, messages=QUESTION, max_tokens=64)
    assert stream.deltas("input_json_delta"), "no input_json_delta"
    check_one_call(stream.message, WEATHER, CLOCK)


@check()
async def a_streamed_call_not_buffered(target: Target) -> None:
    """`eager_input_streaming` changes nothing about what is valid (§10)."""
    eager = WEATHER | {"eager_input_streaming": True}
    stream = await target.with_betas("fine-grained-tool-streaming-2025-05-14").stream(
        tools=[eager],
        tool_choice=ONE,
        messages=QUESTION,
        max_tokens=64,
    )
    check_one_call(stream.message, WEATHER)


@check()
async def the_sdk_reads_calls(target: Target) -> None:
    """The official SDK reads a call, whole and streamed, and takes it back with its result (§7)."""
    arguments: dict[str, Any] = target.request(
        max_tokens=64, tools=[WEATHER], tool_choice=this(WEATHER), messages=QUESTION
    )
    whole = await target.sdk.messages.create(**arguments)
    async with target.sdk.messages.stream(**arguments) as stream:
        streamed = await stream.get_final_message()
    for message in (whole, streamed):
        calls = [block for block in message.content if isinstance(block, anthropic.types.ToolUseBlock)]
        assert message.stop_reason == "tool_use" and calls, f"{message.stop_reason} with {len(calls)} calls"
        check_instance(calls[0].input, WEATHER["input_schema"])
        said = [block.model_dump(mode="json", exclude_none=True) for block in message.content]
        answers = [result("Rain.", call.id) for call in calls]
        await target.sdk.messages.create(
            **{
                **arguments,
                "messages": [*QUESTION, assistant(said), user(answers)],
                "tool_choice": {"type": "none"},
            }
        )


@check()
async def a_call_cut_by_max_tokens(target: Target) -> None:
    """A call that `max_tokens` cuts ends with `max_tokens` (§8)."""
    for answer in (
        await force_tool(target, ANY, max_tokens=3),
        (await target.stream(tools=[WEATHER], tool_choice=ONE, messages=QUESTION, max_tokens=3)).message,
    ):
        assert answer["stop_reason"] == "max_tokens", f"stop_reason is {answer['stop_reason']!r}"


@check()
async def demanding_schemas(target: Target) -> None:
    """Nested objects, references, unions, constants, arrays and patterns are kept to (§7)."""
    message = await target.create_message(tools=[DEMANDING], tool_choice=ONE, messages=GREETING, max_tokens=128)
    check_one_call(message, DEMANDING)


@check()
async def strict_tools(target: Target) -> None:
    """A tool with `strict: true` gets input that is valid for its schema, streamed or not (§7)."""
    strict = DEMANDING | {"strict": True}
    arguments: Json = {"tools": [strict], "tool_choice": ONE, "messages": GREETING, "max_tokens": 128}
    check_one_call(await target.create_message(**arguments), DEMANDING)
    check_one_call((await target.stream(**arguments)).message, DEMANDING)


@check()
async def schemas_of_agents(target: Target) -> None:
    """Every keyword that coding agents use in their schemas is accepted (§7)."""
    tool = {"name": "fetch", "input_schema": AGENTS_KEYWORDS}
    await target.create_message(tools=[tool], max_tokens=1)


@check()
async def values_that_look_like_markup(target: Target) -> None:
    """A value that a schema lists comes back whole, whatever a model's own format makes of it (§7)."""
    properties = {f"tag_{i}": {"enum": [value]} for i, value in enumerate(MARKUP)}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    tool = {"name": "mark", "input_schema": schema}
    choice: Json = {"tools": [tool], "tool_choice": this(tool), "messages": GREETING, "max_tokens": 256}
    check_one_call(await target.create_message(**choice), tool)
    check_one_call((await target.stream(**choice)).message, tool)


@check()
async def optional_choices(target: Target) -> None:
    """An optional choice, a list of values or null, is kept to (§7)."""
    kind = {"anyOf": [{"type": "string", "enum": ["red", "blue"]}, {"type": "null"}]}
    schema = {"type": "object", "properties": {"kind": kind}, "required": ["kind"], "additionalProperties": False}
    tool = {"name": "paint", "input_schema": schema}
    message = await target.create_message(tools=[tool], tool_choice=this(tool), messages=GREETING, max_tokens=64)
    check_one_call(message, tool)


@check()
async def tools_without_properties(target: Target) -> None:
    """A tool without parameters is called with an object (§7)."""
    tool = {"name": "ping", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}
    message = await target.create_message(tools=[tool], tool_choice=ONE, messages=GREETING, max_tokens=32)
    check_one_call(message, tool)


@check()
async def further_fields_of_a_tool(target: Target) -> None:
    """`type`, `input_examples`, `allowed_callers` and long MCP names are accepted (§7)."""
    await target.create_message(
        max_tokens=1,
        tools=[
            WEATHER | {"type": "custom", "allowed_callers": ["direct"]},
            CLOCK | {"type": None, "input_examples": [{"zone": "UTC"}]},
            CLOCK | {"name": "mcp__" + "server" * 15 + "__tool"},
        ],
    )


@check()
async def a_result_goes_back(target: Target) -> None:
    """A call and its result are part of the next prompt, as string or as blocks (§6)."""
    asked = await target.count_prompt_tokens(tools=[WEATHER], messages=ROUND_TRIP[:1])
    as_string = await target.count_prompt_tokens(tools=[WEATHER], messages=ROUND_TRIP)
    as_blocks = await target.count_prompt_tokens(
        tools=[WEATHER], messages=[*ROUND_TRIP[:2], user([result([text("Rain.")])])]
    )
    assert as_string > asked, f"{as_string} tokens with call and result, {asked} without"
    assert as_string == as_blocks, f"{as_string} tokens with a string and {as_blocks} with a block"


@check()
async def results_of_every_form(target: Target) -> None:
    """A result may have no content, be an error, and stand beside others and before text (§6)."""
    empty = {"type": "tool_result", "tool_use_id": "toolu_01"}
    two = [tool_use(), tool_use("get_time", "toolu_02", zone="UTC")]
    for calls, answers in (
        ([tool_use()], [empty]),
        ([tool_use()], [result("No such city.", is_error=True)]),
        ([tool_use()], [result(is_error=False), text("And tomorrow?")]),
        ([text("Let me see."), *two], [result("Noon.", "toolu_02"), result()]),
    ):
        messages = [*ROUND_TRIP[:1], assistant(calls), user(answers)]
        await target.create_message(tools=[WEATHER, CLOCK], messages=messages, max_tokens=1)


@check()
async def history_without_definitions(target: Target) -> None:
    """Calls and results are read where the tools are no longer defined (§6)."""
    await target.create_message(messages=ROUND_TRIP, max_tokens=1)


@check()
async def history_that_begins_with_a_call(target: Target) -> None:
    """A history whose beginning was cut off is read: a call and its result come first (§6)."""
    for messages in (ROUND_TRIP[1:], [*ROUND_TRIP[1:], assistant("Rain."), user("And tomorrow?")]):
        await target.create_message(tools=[WEATHER], messages=messages, max_tokens=1)


@check()
async def a_call_without_a_result(target: Target) -> None:
    """A call that the next message does not answer is refused, by its id (§6)."""
    messages = [*ROUND_TRIP[:2], user("And tomorrow?")]
    refusal = await target.read_refusal(tools=[WEATHER], messages=messages)
    assert "toolu_01" in refusal, f"the refusal does not name the call: {refusal}"


@check()
async def a_result_without_a_call(target: Target) -> None:
    """A result for no call of the message before is refused, by its id (§6)."""
    messages = [*ROUND_TRIP[:2], user([result(), result(call="toolu_99")])]
    refusal = await target.read_refusal(tools=[WEATHER], messages=messages)
    assert "toolu_99" in refusal, f"the refusal does not name the result: {refusal}"


@check()
async def choices_that_cannot_be(target: Target) -> None:
    """A choice of a tool that is not there, of one without a name, or of an unknown kind is refused (§5)."""
    for choice in ({"type": "tool", "name": "fly"}, {"type": "tool"}, {"type": "perhaps"}, "auto"):
        await target.read_refusal(tools=[WEATHER], tool_choice=choice)
    await target.read_refusal(tool_choice=ANY)


@check()
async def definitions_that_cannot_be(target: Target) -> None:
    """A tool without name or schema, with one of no object, or defined twice is refused, and found (§7)."""
    schema = WEATHER["input_schema"]
    for tool in (
        {"input_schema": schema},
        {"name": "a"},
        {"name": "a b", "input_schema": schema},
        {"name": "a" * 300, "input_schema": schema},
        {"name": "a", "input_schema": {"type": "string"}},
    ):
        refusal = await target.read_refusal(tools=[CLOCK, tool])
        assert refusal.startswith("tools.1"), f"the refusal does not say which tool: {refusal}"
    await target.read_refusal(tools=[WEATHER, WEATHER])


@check()
async def deferred_tools_wait(target: Target) -> None:
    """A tool with `defer_loading` is no part of the prompt until it is referenced (§1.5, §7)."""
    deferred = CLOCK | {"defer_loading": True}
    alone = await target.count_prompt_tokens(tools=[WEATHER])
    beside = await target.count_prompt_tokens(tools=[deferred, WEATHER])
    assert alone == beside, f"{beside} tokens with a deferred tool, {alone} without"


@check()
async def a_referenced_tool_is_shown(target: Target) -> None:
    """A `tool_reference` in a result shows the tool from there on, and it can be called (§1.5, §6)."""
    deferred = CLOCK | {"defer_loading": True}
    found = [{"type": "tool_reference", "tool_name": "get_time"}]
    messages = [*ROUND_TRIP[:2], user([result(found), text("Tool loaded.")])]
    tools = [deferred, WEATHER]
    shown = await target.count_prompt_tokens(tools=tools, messages=messages)
    plain = await target.count_prompt_tokens(
        tools=tools, messages=[*ROUND_TRIP[:2], user([result([]), text("Tool loaded.")])]
    )
    assert shown > plain + 10, f"{shown} tokens with the reference, {plain} without"
    choice = this(CLOCK)
    check_one_call(
        await target.create_message(tools=tools, tool_choice=choice, messages=messages, max_tokens=64), CLOCK
    )


@check()
async def references_that_lead_nowhere(target: Target) -> None:
    """A reference to an unknown tool is refused, and so are tools that are all deferred (§6, §7)."""
    found = [{"type": "tool_reference", "tool_name": "get_lost"}]
    refusal = await target.read_refusal(tools=[WEATHER], messages=[*ROUND_TRIP[:2], user([result(found)])])
    assert "get_lost" in refusal, f"the refusal does not name the tool: {refusal}"
    await target.read_refusal(tools=[WEATHER | {"defer_loading": True}])


@check()
async def the_bash_tool(target: Target) -> None:
    """`bash_20250124` comes without a schema: its input has a command or a restart (§7)."""
    properties = {"command": {"type": "string"}, "restart": {"type": "boolean"}}
    await check_own_tool(target, {"type": "bash_20250124", "name": "bash"}, properties)


@check()
async def the_text_editor(target: Target) -> None:
    """The text editors come without schemas: their input has one of their commands and a path (§7)."""
    commands = ["view", "create", "str_replace", "insert"]
    newer = {"command": {"enum": commands}, "path": {"type": "string"}}
    older = {"command": {"enum": [*commands, "undo_edit"]}, "path": {"type": "string"}}
    name = "str_replace_based_edit_tool"
    editor = {"type": "text_editor_20250728", "name": name, "max_characters": 10_000}
    await check_own_tool(target, editor, newer, "command")
    await check_own_tool(target, {"type": "text_editor_20250429", "name": name}, newer, "command")
    for version in ("text_editor_20250124", "text_editor_20241022"):
        await check_own_tool(target, {"type": version, "name": "str_replace_editor"}, older, "command")


@check()
async def the_memory_tool(target: Target) -> None:
    """`memory_20250818` comes without a schema: its input has one of its commands (§7)."""
    commands = ["view", "create", "str_replace", "insert", "delete", "rename"]
    await check_own_tool(
        target, {"type": "memory_20250818", "name": "memory"}, {"command": {"enum": commands}}, "command"
    )


@check()
async def tools_that_nobody_runs(target: Target) -> None:
    """Tools of the original service that a server does not have are refused, never played (§7)."""
    for kind in ("advisor_20260301", "teleport_20990101"):
        await target.read_refusal(tools=[{"type": kind, "name": kind.rpartition("_")[0]}])


@check(lacks="server_tools.web_search")
async def no_made_up_search_results(target: Target) -> None:
    """Without a search backend `web_search` is refused, or answered by an error: never by results (§7)."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}
    response = await target.post(target.request(tools=[search], max_tokens=48, stop_sequences=ENDS_SOON))
    if response.status_code != 200:
        check_error(response, 400, "invalid_request_error")
        return
    for block in response.json()["content"]:
        if block["type"] == "web_search_tool_result":
            assert block["content"]["type"] == "web_search_tool_result_error", f"made up: {block}"


async def force_tool(target: Target, choice: Json, max_tokens: int = 64) -> Json:
    """An answer to the question, with a choice that forces a call."""
    return await target.create_message(
        tools=[WEATHER, CLOCK], tool_choice=choice, messages=QUESTION, max_tokens=max_tokens
    )


def this(tool: Json) -> Json:
    """The choice of one tool, once."""
    return {"type": "tool", "name": tool["name"], "disable_parallel_tool_use": True}


def check_one_call(message: Json, *tools: Json) -> None:
    """Exactly one call, a valid one, and the end that goes with it."""
    calls = list_calls(message)
    assert len(calls) == 1, f"{len(calls)} calls, and {[block['type'] for block in message['content']]}"
    assert message["stop_reason"] == "tool_use", f"stop_reason is {message['stop_reason']!r}"
    check_call(calls[0], *tools)


def check_call(call: Json, *tools: Json) -> None:
    """A call of one of the tools, with input that is valid for it."""
    schemas = {tool["name"]: tool["input_schema"] for tool in tools}
    assert call["name"] in schemas, f"a call of {call['name']!r}, where there are {sorted(schemas)}"
    check_instance(call["input"], schemas[call["name"]])


async def check_own_tool(target: Target, tool: Json, properties: Json, *required: str) -> None:
    """A tool whose schema the server knows is called as it should, and not under another name."""
    message = await target.create_message(tools=[tool], tool_choice=ONE, messages=GREETING, max_tokens=64)
    calls = list_calls(message)
    assert calls, f"no call, but {[block['type'] for block in message['content']]}"
    assert calls[0]["name"] == tool["name"], f"a call of {calls[0]['name']!r}"
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "minProperties": 1,
    }
    # Commands are free text, which a small model may not end in time.
    if message["stop_reason"] not in CUT_STOP_REASONS:
        check_instance(calls[0]["input"], schema)
    await target.read_refusal(tools=[tool | {"name": "another_name"}])
