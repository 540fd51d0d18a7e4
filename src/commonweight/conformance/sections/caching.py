"""Prompt caching: `cache_control` and the usage that answers it, sections 1.7, 5 and 8."""

import secrets

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import GREETING, Json, assistant, reference, text, user
from commonweight.conformance.shapes import prompt_tokens
from commonweight.conformance.target import Target
from commonweight.conformance.toolbox import CLOCK, WEATHER

MARK: Json = {"cache_control": {"type": "ephemeral"}}
HOUR: Json = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


@check()
async def a_marked_prefix_is_written(target: Target) -> None:
    """What is before a mark is written at first, and not again by the same request (§5, §8)."""
    marked = [text(fresh(), **MARK)]
    first, second = await usage(target, system=marked), await usage(target, system=marked)
    assert first["cache_creation_input_tokens"] > 0, f"nothing was written: {first}"
    assert second["cache_creation_input_tokens"] < first["cache_creation_input_tokens"], f"written again: {second}"


@check()
async def a_written_prefix_is_read(target: Target) -> None:
    """What was written is read by the same request again, and only then (§5, §8)."""
    marked = [text(fresh(), **MARK)]
    first, second = await usage(target, system=marked), await usage(target, system=marked)
    # Whatever a template writes before any text may have been seen.
    assert first["cache_read_input_tokens"] < 32, f"text that nobody has seen was read: {first}"
    assert second["cache_read_input_tokens"] > 100, f"little or nothing was read: {second}"


@check()
async def the_parts_add_up(target: Target) -> None:
    """Written, read and other tokens are the whole prompt, which is what counting says (§8)."""
    marked: Json = {"system": [text(fresh(), **MARK)]}
    whole = await target.count(**marked)
    for which in ("first", "second"):
        parts = prompt_tokens(await usage(target, **marked))
        assert parts == whole, f"{parts} tokens in the {which} run, {whole} counted"


@check()
async def five_minutes(target: Target) -> None:
    """Without a `ttl`, and with 5m, what is written counts as 5m (§8)."""
    for mark in (MARK, {"cache_control": {"type": "ephemeral", "ttl": "5m"}}):
        split = read_written(await usage(target, system=[text(fresh(), **mark)]))
        assert split == (True, False), f"written for 5m, 1h: {split}"


@check()
async def an_hour(target: Target) -> None:
    """With a `ttl` of 1h, what is written counts as 1h (§8)."""
    split = read_written(await usage(target, system=[text(fresh(), **HOUR)]))
    assert split == (False, True), f"written for 5m, 1h: {split}"


@check()
async def both_at_once(target: Target) -> None:
    """What is before a mark of 1h counts as that, what is between it and one of 5m as 5m (§8)."""
    marked = [user([text(fresh(), **MARK)])]
    split = read_written(await usage(target, system=[text(fresh(), **HOUR)], messages=marked))
    assert split == (True, True), f"written for 5m, 1h: {split}"


@check()
async def a_stream_knows_at_once(target: Target) -> None:
    """`message_start` says already what was written and read (§10)."""
    marked = [text(fresh(), **MARK)]
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    for _ in range(2):
        stream = await target.stream(system=marked, max_tokens=1)
        at_first, at_last = (
            [used.get(part) for part in parts] for used in (stream.first_usage, stream.last_usage)
        )
        assert at_first == at_last, f"{at_first} in message_start and {at_last} in message_delta"
    assert stream.first_usage["cache_read_input_tokens"] > 0, "nothing was read"


@check()
async def marks_on_tools(target: Target) -> None:
    """A mark on the last tool covers all tools (§5)."""
    tools = [WEATHER | {"description": fresh()}, CLOCK | MARK]
    first = await usage(target, tools=tools)
    assert first["cache_creation_input_tokens"] > 0, f"nothing was written: {first}"
    again = await usage(target, tools=tools, messages=[user("Something else.")])
    assert again["cache_read_input_tokens"] > 0, f"nothing was read: {again}"


@check()
async def one_mark_at_the_top(target: Target) -> None:
    """`cache_control` at the top marks the end of the prompt: the next turn reads it (§5)."""
    question = user(fresh())
    await usage(target, **MARK, messages=[question])
    second = await usage(target, **MARK, messages=[question, assistant("Hello."), user("Again.")])
    assert second["cache_read_input_tokens"] > 0, f"nothing was read: {second}"


@check()
async def marks_that_move(target: Target) -> None:
    """Marks move and blocks become strings from turn to turn, and what was marked is still read (§1.7)."""
    words = fresh()
    await usage(target, messages=[user([text(words, **MARK)])])
    turns = [user(words), assistant("Hello."), user([text("Again.", **MARK)])]
    second = await usage(target, messages=turns)
    assert second["cache_read_input_tokens"] > 0, f"nothing was read: {second}"


@check()
async def attribution_that_changes(target: Target) -> None:
    """The attribution block differs in every conversation, and what follows it is still read (§1.6)."""
    marked = text(fresh(), **MARK)
    for version in ("a1b", "c2d"):
        header = text(f"x-anthropic-billing-header: cc_version=2.1.330.{version}; cc_entrypoint=cli;")
        last = await usage(target, system=[header, marked])
    assert last["cache_read_input_tokens"] > 0, f"nothing was read: {last}"


@check()
async def deferred_tools_that_appear(target: Target) -> None:
    """A deferred tool that appears among the others leaves the prefix as it was (§1.5)."""
    words = text(fresh(), **MARK)
    await usage(target, tools=[WEATHER], system=[words])
    again = await usage(target, tools=[CLOCK | {"defer_loading": True}, WEATHER], system=[words])
    assert again["cache_read_input_tokens"] > 0, f"nothing was read: {again}"


@check()
async def a_prompt_read_in_advance(target: Target) -> None:
    """With `max_tokens: 0` a marked prompt is written, for the next request to read (§5)."""
    marked = [text(fresh(), **MARK)]
    await usage(target, system=marked, max_tokens=0)
    again = await usage(target, system=marked)
    assert again["cache_read_input_tokens"] > 0, f"nothing was read: {again}"


@check()
async def nothing_is_written_without_a_mark(target: Target) -> None:
    """Without a mark nothing counts as written (§8)."""
    plain = await usage(target, system=fresh())
    assert plain["cache_creation_input_tokens"] == 0, f"written without a mark: {plain}"


@check()
async def marks_that_cannot_be(target: Target) -> None:
    """Unknown types and times are refused (§5)."""
    for mark in ({"type": "forever"}, {"type": "ephemeral", "ttl": "2h"}, {}):
        refusal = await target.read_refusal(messages=[user([text("Say hello.", cache_control=mark)])])
        assert "cache_control" in refusal, f"{mark} is refused for: {refusal}"


async def usage(target: Target, **changes: object) -> Json:
    """What a request used, where a count that is not there is nought."""
    message = await target.create_message(**{"max_tokens": 1, "messages": GREETING, **changes})
    used: Json = message["usage"]
    return used | {
        part: used.get(part) or 0 for part in ("cache_creation_input_tokens", "cache_read_input_tokens")
    }


def read_written(used: Json) -> tuple[bool, bool]:
    """Whether tokens were written for five minutes, and for an hour."""
    split = used.get("cache_creation") or {}
    minutes, hour = (split.get(f"ephemeral_{ttl}_input_tokens", 0) > 0 for ttl in ("5m", "1h"))
    return minutes, hour


def fresh() -> str:
    """Text that no cache has seen."""
    return reference(secrets.token_hex(8))
