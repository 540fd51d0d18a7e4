"""Tools that are added, defined and removed in mid-conversation: sections 5 and 11.1."""

import secrets

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import ROUND_TRIP, Json, assistant, result, system, text, tool_use, user
from commonweight.conformance.sections.caching import MARK, fresh, usage
from commonweight.conformance.sections.tools import ANY, ONE, check_one_call, this
from commonweight.conformance.shapes import check_error, list_calls
from commonweight.conformance.target import Target
from commonweight.conformance.toolbox import CLOCK, WEATHER

BETAS = "mid-conversation-tool-changes-2026-07-01,inline-tools-2026-09-15"
QUESTION = user("How is the weather in Paris, and what time is it there?")
DEFERRED = CLOCK | {"defer_loading": True}
BASH: Json = {"type": "bash_20250124", "name": "bash"}


def addition(subject: str | Json, **more: object) -> Json:
    """A ``tool_addition`` of a tool by its name, or of a definition."""
    tool = subject if isinstance(subject, str) else {"type": "tool_definition", "definition": subject}
    return {"type": "tool_addition", "tool": reference(tool) if isinstance(tool, str) else tool, **more}


def removal(name: str, **more: object) -> Json:
    """A ``tool_removal``."""
    return {"type": "tool_removal", "tool": reference(name), **more}


def reference(name: str) -> Json:
    """A reference to a tool."""
    return {"type": "tool_reference", "name": name}


@check()
async def a_deferred_tool_is_added(target: Target) -> None:
    """A `tool_addition` shows a deferred tool from there on, and it can be called, streamed or not (§5, §11.1)."""
    tools = [WEATHER, DEFERRED]
    plain = await count(target, tools=tools)
    shown = await count(target, addition("get_time"), tools=tools)
    assert shown > plain + 10, f"{shown} tokens with the addition, {plain} without"
    await check_can_call(target, CLOCK, addition("get_time"), tools=tools)


@check()
async def a_tool_is_defined(target: Target) -> None:
    """A `tool_addition` may define a tool, beside those of `tools` or where there are none (§5, §11.1)."""
    for tools in ([WEATHER], [BASH], None):
        more = {} if tools is None else {"tools": tools}
        await check_can_call(target, CLOCK, addition(CLOCK), **more)


@check()
async def a_published_tool_is_defined(target: Target) -> None:
    """A tool of the API's own is defined by its type, as in `tools` (§7, §11.1)."""
    message = await answer(target, addition(BASH), tools=[WEATHER], tool_choice=this(BASH))
    assert [call["name"] for call in list_calls(message)] == ["bash"], f"{message['content']}"


@check()
async def a_removed_tool_is_not_called(target: Target) -> None:
    """After a `tool_removal` only the other tools can be called (§5, §11.1)."""
    for gone, left in ((WEATHER, CLOCK), (CLOCK, WEATHER)):
        message = await answer(target, removal(gone["name"]), tools=[WEATHER, CLOCK], tool_choice=ONE)
        check_one_call(message, left)


@check()
async def nothing_is_called_when_all_are_removed(target: Target) -> None:
    """Where every tool was removed the answer is text (§5, §11.1)."""
    message = await answer(target, removal("get_weather"), tools=[WEATHER])
    assert not list_calls(message), f"a call: {list_calls(message)}"


@check()
async def a_removed_tool_is_not_forced(target: Target) -> None:
    """A choice of a removed tool is refused, by its name, and so is `any` where all were removed (§5, §11.1)."""
    tools = [WEATHER, CLOCK]
    refusal = await refuse(target, removal("get_time"), tools=tools, tool_choice=this(CLOCK))
    assert "get_time" in refusal["message"], f"the refusal does not name the tool: {refusal}"
    await refuse(target, removal("get_time"), removal("get_weather"), tools=tools, tool_choice=ANY)


@check()
async def a_removed_tool_comes_back(target: Target) -> None:
    """What was removed can be added again, by its name or by a definition (§5, §11.1)."""
    for back in (addition("get_time"), addition(CLOCK)):
        messages = [QUESTION, system([removal("get_time")]), assistant("I see."), user("Now?"), system([back])]
        await check_can_call(target, CLOCK, tools=[WEATHER, CLOCK], messages=messages)


@check()
async def earlier_calls_stay(target: Target) -> None:
    """Calls of a tool that was removed later are still read (§6, §11.1)."""
    messages = [*ROUND_TRIP, system([removal("get_weather")])]
    told = await count(target, messages=messages, tools=[WEATHER, CLOCK])
    before = await count(target, messages=ROUND_TRIP[:1], tools=[WEATHER, CLOCK])
    assert told > before, f"{told} tokens with call, result and removal, {before} without"


@check()
async def a_definition_is_replaced(target: Target) -> None:
    """Another definition under the same name is what holds from there on (§11.1)."""
    properties = {"moon": {"type": "string", "enum": ["Io", "Europa"]}}
    schema = {"type": "object", "properties": properties, "required": ["moon"], "additionalProperties": False}
    other = CLOCK | {"input_schema": schema}
    await check_can_call(target, other, addition(other), tools=[WEATHER, CLOCK])
    await check_can_call(target, CLOCK, addition(other), addition(CLOCK), tools=[WEATHER])


@check()
async def the_same_definition_changes_nothing(target: Target) -> None:
    """A definition that is sent again adds nothing to the prompt (§11.1)."""
    once, twice = [
        await count(target, *[addition(CLOCK)] * times, text("Go on."), tools=[WEATHER]) for times in (1, 2)
    ]
    assert once == twice, f"{twice} tokens with the definition twice, {once} with it once"


@check()
async def changes_after_results(target: Target) -> None:
    """A system message with text and changes may follow results of tools (§5, §11.1)."""
    messages = [*ROUND_TRIP, system([text("There is a clock now."), addition(CLOCK)])]
    await check_can_call(target, CLOCK, tools=[WEATHER], messages=messages)


@check()
async def what_was_read_before_is_kept(target: Target) -> None:
    """An addition, a definition or a removal leaves the prompt before it as it was (§8, §11.1)."""
    tools = [WEATHER, DEFERRED]
    for change in (addition("get_time"), addition(CLOCK | {"description": "Another."}), removal("get_weather")):
        turns = [user([text(fresh(), **MARK)])]
        first = await usage(target.with_betas(BETAS), tools=tools, messages=turns)
        turns += [assistant("I see."), user("Go on."), system([change])]
        second = await usage(target.with_betas(BETAS), tools=tools, messages=turns)
        written, read = first["cache_creation_input_tokens"], second["cache_read_input_tokens"]
        assert read >= written > 0, f"{written} tokens written, and {read} read after a {change['type']}"


@check()
async def marks_on_changes(target: Target) -> None:
    """A change may carry a cache mark, on its block or in its definition, but not on both (§5, §11.1)."""
    for change in (removal("get_weather", **MARK), addition(CLOCK, **MARK), addition(CLOCK | MARK)):
        messages = [user(f"Hello {secrets.token_hex(8)}."), system([change])]
        used = await usage(target.with_betas(BETAS), tools=[WEATHER, BASH], messages=messages)
        assert used["cache_creation_input_tokens"] > 0, f"nothing was written for the mark: {used}"
    await refuse(target, addition(CLOCK | MARK, **MARK), tools=[WEATHER])
    await refuse(target, addition(DEFERRED | MARK), tools=[WEATHER])


@check()
async def a_count_is_what_runs(target: Target) -> None:
    """Counting reads changes as a run does (§2, §11.1)."""
    changes = [addition("get_time"), addition(BASH), removal("get_weather"), text("Go on.")]
    arguments: Json = {"tools": [WEATHER, DEFERRED], "messages": [QUESTION, system(changes)]}
    betas = target.with_betas(BETAS)
    counted, ran = await betas.count(**arguments), await betas.count_prompt_tokens(**arguments)
    assert counted == ran, f"{counted} tokens counted, {ran} run"


@check()
async def changes_of_unknown_tools(target: Target) -> None:
    """A change of a tool that is defined nowhere before is refused: `tool_reference_unresolved` (§9.1, §11.1)."""
    for changes in (
        [addition("get_lost")],
        [removal("get_lost")],
        [removal("get_time"), addition(CLOCK)],
        [addition("get_lost"), addition(CLOCK | {"name": "get_lost"})],
        [{"type": "tool_addition", "tool": {"type": "mcp_toolset_reference", "server_name": "nowhere"}}],
        [{"type": "tool_removal", "tool": {"type": "mcp_tool_reference", "server_name": "x", "name": "y"}}],
    ):
        refusal = await refuse(target, *changes, tools=[WEATHER])
        code = (refusal.get("details") or {}).get("error_code")
        assert code == "tool_reference_unresolved", f"{changes} is refused with {code}: {refusal['message']}"


@check()
async def names_of_other_kinds_of_tools(target: Target) -> None:
    """A definition with the name of another kind of tool is refused: `tool_name_conflict` (§9.1, §11.1)."""
    refusal = await refuse(target, addition(CLOCK | {"name": "bash"}), tools=[BASH])
    code = (refusal.get("details") or {}).get("error_code")
    assert code == "tool_name_conflict", f"refused with {code}: {refusal['message']}"


@check()
async def definitions_that_cannot_be_added(target: Target) -> None:
    """A definition without name, or with a schema of no object, is refused with its place (§11.1)."""
    for definition in (
        {"input_schema": CLOCK["input_schema"]},
        {"name": "a"},
        CLOCK | {"input_schema": {"type": "string"}},
    ):
        refusal = await refuse(target, addition(definition), tools=[WEATHER])
        place = "messages.1.content.0.tool.definition"
        assert refusal["message"].startswith(place), f"not refused for its place: {refusal['message']}"


@check()
async def where_changes_cannot_stand(target: Target) -> None:
    """Changes stand in system messages only, and not in those for one turn (§5, §11.1)."""
    for messages in (
        [user([text("Hello."), removal("get_weather")])],
        [QUESTION, assistant([text("I see."), addition(CLOCK)]), user("Go on.")],
        [QUESTION, system([removal("get_weather")]) | {"clear_at": "next_user_message"}],
        [system([removal("get_weather")]), QUESTION],
        [QUESTION, assistant([tool_use()]), system([removal("get_weather")]), user([result()])],
    ):
        await refuse(target, tools=[WEATHER], messages=messages)


def asked(*changes: Json, **more: object) -> Json:
    """The question with a system message that makes the changes."""
    messages = [QUESTION, system([*changes])] if changes else [QUESTION]
    return {"messages": messages, "max_tokens": 64, **more}


async def answer(target: Target, *changes: Json, **more: object) -> Json:
    """The answer after changes."""
    return await target.with_betas(BETAS).create_message(**asked(*changes, **more))


async def count(target: Target, *changes: Json, **more: object) -> int:
    """The prompt tokens after changes."""
    return await target.with_betas(BETAS).count_prompt_tokens(**asked(*changes, **more) | {"max_tokens": 1})


async def refuse(target: Target, *changes: Json, **more: object) -> Json:
    """The error with which changes are refused."""
    response = await target.with_betas(BETAS).post(target.request(**asked(*changes, **more)))
    check_error(response, 400, "invalid_request_error")
    error: Json = response.json()["error"]
    return error


async def check_can_call(target: Target, tool: Json, *changes: Json, **more: object) -> None:
    """A tool can be called, streamed or not, if it has to be."""
    forced = asked(*changes, tool_choice=this(tool), **more)
    betas = target.with_betas(BETAS)
    check_one_call(await betas.create_message(**forced), tool)
    check_one_call((await betas.stream(**forced)).message, tool)
