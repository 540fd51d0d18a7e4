"""`POST /v1/messages/count_tokens`: sections 2 and 8."""

import asyncio

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import GREETING, ROUND_TRIP, Json, assistant, system, text, user
from commonweight.conformance.shapes import check_error, is_count
from commonweight.conformance.target import COUNT, Target, check_accepted
from commonweight.conformance.toolbox import CLOCK, WEATHER

CONCURRENT_REQUESTS = 25
"""Number of requests that an agent's `/context` sends."""

DOCUMENT: Json = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "Grass is green. The sky is blue."},
    "title": "Colours",
}


@check()
async def the_shape_of_a_count(target: Target) -> None:
    """The answer is `{"input_tokens": n}` (§2)."""
    body = check_accepted(await target.post({"model": target.model, "messages": GREETING}, COUNT))
    assert is_count(body.get("input_tokens")), f"the answer is {body}"
    assert body["input_tokens"] > 0, "a prompt of no tokens"


@check()
async def the_sdk_counts(target: Target) -> None:
    """The official SDK reads a count (§2)."""
    arguments: Json = {"model": target.model, "messages": GREETING, "system": "Be brief."}
    counted = await target.sdk.messages.count_tokens(**arguments)
    assert counted.input_tokens > 0, "a prompt of no tokens"


@check()
async def plain_text_is_counted_truly(target: Target) -> None:
    """A count is what a run of the same request reports (§2)."""
    await check_true(target, messages=[user("Say hello."), assistant("Hello."), user("Grüße, 你好, 👩‍👩‍👧‍👦?")])


@check()
async def system_text_is_counted_truly(target: Target) -> None:
    """`system` and system messages are counted as they are run (§2)."""
    await check_true(
        target, system=[text("Be brief."), text("Be kind.")], messages=[*GREETING, system("Be quick.")]
    )


@check()
async def a_begun_answer_is_counted_truly(target: Target) -> None:
    """A begun answer is counted as it is run (§2)."""
    await check_true(target, messages=[*GREETING, assistant("Hello and")])


@check()
async def tools_are_counted_truly(target: Target) -> None:
    """Tools, calls, results and choices are counted as they are run, deferred tools as well (§2)."""
    tools = [WEATHER, CLOCK | {"defer_loading": True}]
    with_tools = await check_true(target, tools=tools, messages=ROUND_TRIP)
    bare = await target.count(messages=ROUND_TRIP)
    assert with_tools > bare, f"{with_tools} tokens with tools, {bare} without"
    await check_true(target, tools=[WEATHER], tool_choice={"type": "any"})


@check()
async def documents_are_counted_truly(target: Target) -> None:
    """Documents are counted as they are run (§2)."""
    with_document = await check_true(target, messages=[user([DOCUMENT, text("Say hello.")])])
    bare = await target.count()
    assert with_document > bare, f"{with_document} tokens with a document, {bare} without"


@check()
async def settings_are_counted_truly(target: Target) -> None:
    """Thinking, effort and cache marks are accepted, and counted as they are run (§2)."""
    mark = {"cache_control": {"type": "ephemeral"}}
    await check_true(target, thinking={"type": "disabled"}, output_config={"effort": "low"}, **mark)
    await check_true(target, messages=[user([text("Say hello.", **mark)])])


@check()
async def many_counts_at_once(target: Target) -> None:
    """25 counts at once are all true (§2)."""
    prompts = [[user("Say hello." + " Again." * i)] for i in range(CONCURRENT_REQUESTS)]
    together = await asyncio.gather(*(target.count(messages=prompt) for prompt in prompts))
    assert sorted(set(together)) == together, f"longer prompts are not longer: {together}"
    alone = [await target.count(messages=prompt) for prompt in prompts]
    assert together == alone, f"{together} together and {alone} alone"


@check()
async def what_cannot_be_run_cannot_be_counted(target: Target) -> None:
    """Counting refuses what is no request (§9.1)."""
    cases: tuple[Json, ...] = (
        {"messages": []},
        {"messages": [{"role": "robot", "content": "hi"}]},
        {"messages": [user([{"type": "hologram"}])]},
        {"tools": [{"name": "a"}]},
    )
    for changes in cases:
        response = await target.post({"model": target.model, "messages": GREETING, **changes}, COUNT)
        check_error(response, 400, "invalid_request_error")


async def check_true(target: Target, **changes: object) -> int:
    """A count that is what a run reports."""
    counted, run = await target.count(**changes), await target.count_prompt_tokens(**changes)
    assert counted == run, f"{counted} tokens counted and {run} run"
    return counted
