"""The window and its management: section 9.4's words for what is too long, section 5's edits."""

import re

from commonweight.conformance.checks import NotApplicableError, check
from commonweight.conformance.conversation import ENDS_SOON, Json, assistant, result, tool_use, user
from commonweight.conformance.shapes import check_error, prompt_tokens
from commonweight.conformance.target import COUNT, Target, check_accepted
from commonweight.conformance.toolbox import WEATHER

BETA = "context-management-2025-06-27"
MAX_WINDOW_TOKENS = 1_000_000
"""Tokens: what is tried where a server does not say what it has."""

TOOL_CALLS = 3
HISTORY = [user("How is the weather this week?")]
for _i in range(TOOL_CALLS):
    HISTORY += [
        assistant([tool_use(call=f"toolu_{_i}", city="Oslo", days=_i + 1)]),
        user([result(f"Day {_i}: " + "rain and wind, " * 12, call=f"toolu_{_i}")]),
    ]


@check()
async def a_prompt_that_is_too_long(target: Target) -> None:
    """It is refused in the words that agents compact for, with both numbers, streamed or not (§9.4)."""
    body: Json = {"messages": [user("word " * int((target.window or MAX_WINDOW_TOKENS) * 1.1))]}
    for more in ({}, {"stream": True}):
        message = await target.read_refusal(**body, **more)
        match = re.fullmatch(r"prompt is too long: (\d+) tokens > (\d+) maximum", message)
        assert match, f"refused in other words: {message}"
        tokens, limit = map(int, match.groups())
        assert tokens > limit, f"{tokens} is not more than {limit}"
        assert limit == (target.window or limit), f"the limit is {limit}, and {target.window} in /v1/models"
    counted = await target.post({"model": target.model, **body}, COUNT)
    if counted.status_code == 200:
        assert counted.json()["input_tokens"] == tokens, f"counted {counted.json()['input_tokens']}, not {tokens}"


@check()
async def megabytes_of_one_letter(target: Target) -> None:
    """What cannot fit is refused and not counted for minutes, wherever it stands (§9.4)."""
    letters = "a" * 16_000_000
    for more in ({"messages": [user(letters)]}, {"system": letters}):
        message = await target.read_refusal(**more)
        assert message.startswith("prompt is too long"), f"refused in other words: {message[:200]}"
    counted = await target.post({"model": target.model, "messages": [user(letters)]}, COUNT)
    assert counted.status_code in (200, 400), f"HTTP {counted.status_code}: {counted.text[:200]}"


@check()
async def the_window_is_declared(target: Target) -> None:
    """`max_input_tokens` and `max_tokens` say what there is, so that agents compact in time (§11)."""
    for name in ("max_input_tokens", "max_tokens"):
        value = target.info.get(name)
        assert isinstance(value, int) and value > 0, f"{name} is {value!r}"


@check()
async def room_for_the_declared_output(target: Target) -> None:
    """As many `max_tokens` as are declared are accepted (§5)."""
    limit = target.info.get("max_tokens")
    if limit is None:
        raise NotApplicableError("declares no max_tokens")
    await target.create_message(max_tokens=limit, stop_sequences=ENDS_SOON)


@check()
async def an_edit_of_nothing(target: Target) -> None:
    """Agents always ask for `clear_thinking` that keeps all, which changes nothing (§5)."""
    bare = await target.count_prompt_tokens()
    for keep in ("all", {"type": "all"}):
        edits = {"edits": [{"type": "clear_thinking_20251015", "keep": keep}]}
        message = await target.with_betas(BETA).create_message(context_management=edits, max_tokens=1)
        size = prompt_tokens(message["usage"])
        assert size == bare, f"{size} tokens with the edit, {bare} without"
        assert not list_applied(message), f"applied: {list_applied(message)}"


@check(needs="context_management.clear_tool_uses_20250919")
async def old_tool_results_are_cleared(target: Target) -> None:
    """`clear_tool_uses` keeps the last uses, and reports what it cleared (§5)."""
    whole = await target.count_prompt_tokens(tools=[WEATHER], messages=HISTORY)
    message = await apply_edit(target, clear(keep=1))
    assert len(list_applied(message)) == 1, f"applied: {list_applied(message)}"
    edit = list_applied(message)[0]
    saved = whole - prompt_tokens(message["usage"])
    assert edit["type"] == "clear_tool_uses_20250919", f"the edit is {edit}"
    assert edit["cleared_tool_uses"] == TOOL_CALLS - 1, (
        f"{edit['cleared_tool_uses']} uses cleared, not {TOOL_CALLS - 1}"
    )
    assert edit["cleared_input_tokens"] == saved > 0, f"{edit['cleared_input_tokens']} said, {saved} saved"


@check(needs="context_management.clear_tool_uses_20250919")
async def inputs_are_cleared_too(target: Target) -> None:
    """`clear_tool_inputs` clears the calls' input as well (§5)."""
    results, both = (
        await apply_edit(target, clear(keep=1)),
        await apply_edit(target, clear(keep=1, clear_tool_inputs=True)),
    )
    sizes = [prompt_tokens(message["usage"]) for message in (results, both)]
    assert sizes[1] < sizes[0], f"{sizes[1]} tokens without inputs, {sizes[0]} with them"


@check(needs="context_management.clear_tool_uses_20250919")
async def what_is_kept(target: Target) -> None:
    """Excluded tools, edits below their trigger and too small a gain leave the prompt as it is (§5)."""
    whole = await target.count_prompt_tokens(tools=[WEATHER], messages=HISTORY)
    for edit in (
        clear(keep=0, exclude_tools=["get_weather"]),
        clear(keep=0, trigger={"type": "tool_uses", "value": 50}),
        clear(keep=0, trigger={"type": "input_tokens", "value": 100_000}),
        clear(keep=0, clear_at_least={"type": "input_tokens", "value": 100_000}),
        clear(keep=TOOL_CALLS),
    ):
        message = await apply_edit(target, edit)
        assert not list_applied(message), f"applied by {edit}: {list_applied(message)}"
        size = prompt_tokens(message["usage"])
        assert size == whole, f"{size} tokens with {edit}, {whole} without"


@check(needs="context_management.clear_tool_uses_20250919")
async def a_stream_reports_edits(target: Target) -> None:
    """A stream reports edits with its last `message_delta` (§10)."""
    management = {"edits": [clear(keep=1)]}
    stream = await target.with_betas(BETA).stream(
        context_management=management, tools=[WEATHER], messages=HISTORY, max_tokens=1
    )
    edits = (stream.events[-2].get("context_management") or {}).get("applied_edits")
    assert edits, f"message_delta has context_management {stream.events[-2].get('context_management')!r}"


@check(needs="context_management.clear_tool_uses_20250919")
async def counting_edits(target: Target) -> None:
    """Counting says how long the prompt is after its edits, and how long it was (§2)."""
    whole = await target.count(tools=[WEATHER], messages=HISTORY)
    body = {
        "model": target.model,
        "tools": [WEATHER],
        "messages": HISTORY,
        "context_management": {"edits": [clear(keep=1)]},
    }
    counted = check_accepted(await target.post(body, COUNT, headers=target.headers | {"anthropic-beta": BETA}))
    original = (counted.get("context_management") or {}).get("original_input_tokens")
    assert original == whole, f"original_input_tokens is {original}, and {whole} without edits"
    assert counted["input_tokens"] < whole, f"{counted['input_tokens']} of {whole} tokens are left"


@check()
async def edits_that_cannot_be(target: Target) -> None:
    """Unknown edits are refused by name (§5)."""
    management = {"edits": [{"type": "clear_the_moon_20990101"}]}
    response = await target.post(
        target.request(context_management=management), headers=target.headers | {"anthropic-beta": BETA}
    )
    message = check_error(response, 400, "invalid_request_error")
    assert message.startswith("context_management"), f"refused for: {message}"


def clear(keep: int, **more: object) -> Json:
    """A ``clear_tool_uses`` that is due."""
    return {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "tool_uses", "value": 1},
        "keep": {"type": "tool_uses", "value": keep},
        **more,
    }


async def apply_edit(target: Target, edit: Json) -> Json:
    """The answer to the history after an edit."""
    return await target.with_betas(BETA).create_message(
        context_management={"edits": [edit]}, tools=[WEATHER], messages=HISTORY, max_tokens=1
    )


def list_applied(message: Json) -> list[Json]:
    """The edits that an answer reports."""
    edits: list[Json] = (message.get("context_management") or {}).get("applied_edits") or []
    return edits
