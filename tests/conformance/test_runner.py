"""The right checks fail against servers that break one rule each, and nothing stops the run."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from fake import Json, frames, serving

from commonweight.conformance import (
    SECTIONS,
    Check,
    NotApplicableError,
    Outcome,
    Target,
    WrongKeyError,
    open_target,
    run,
    runner,
)
from commonweight.conformance.checks import check
from conftest import Server

STREAMING = SECTIONS["streaming"]
SILENT = {"an empty stream", "the headers of a stream", "an error before the stream", "a stream that nobody reads"}
"""Checks that read no stream with text in it."""
ALL = {check.name for check in STREAMING}
BY_SDK = {"the sdk adds it up"}


async def outcomes(url: str, checks: tuple[Check, ...] = STREAMING) -> list[Outcome]:
    async with open_target(url) as target:
        return [outcome async for outcome in run(target, checks)]


async def failed(url: str) -> set[str]:
    found = await outcomes(url)
    assert [outcome.check for outcome in found] == list(STREAMING)
    for outcome in found:
        assert (outcome.why == "") == (outcome.status == "passed")
        assert "\n" not in outcome.why
    return {outcome.check.name for outcome in found if outcome.status == "failed"}


async def test_a_server_that_keeps_the_rules() -> None:
    with serving() as url:
        assert await failed(url) == set()


def each(kind: str, change: Callable[[Json], Json]) -> Callable[[list[Json]], list[Json]]:
    """Every event of one type is changed."""
    return lambda told: [change(event) if event["type"] == kind else event for event in told]


def without_prompt(event: Json) -> Json:
    return event | {"usage": {"output_tokens": event["usage"]["output_tokens"]}}


def later(event: Json) -> Json:
    return event | {"index": event["index"] + 1}


def at_once(told: list[Json]) -> list[Json]:
    """All text in one delta."""
    deltas = [event for event in told if event["type"] == "content_block_delta"]
    text = "".join(event["delta"]["text"] for event in deltas)
    one = [event | {"delta": {"type": "text_delta", "text": text}} for event in deltas[:1]]
    start = [event for event in told if event["type"] in ("message_start", "content_block_start")]
    end = [event for event in told if event not in start and event not in deltas]
    return [*start, *one, *end]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"spoil": each("message_delta", without_prompt)}, {"usage is cumulative"}),
        ({"spoil": at_once}, {"text comes in pieces"}),
        ({"spoil": each("content_block_start", later)}, ALL - SILENT),
        ({"spoil": lambda told: told[:-1]}, ALL - SILENT | {"an empty stream"}),
        ({"encode": lambda told: frames(told) + "data: [DONE]\n\n"}, ALL - SILENT - BY_SDK | {"an empty stream"}),
        ({"headers": {"cache-control": "max-age=60"}}, {"the headers of a stream"}),
        ({"errors_as_json": False}, {"an error before the stream"}),
    ],
    ids=["usage", "one delta", "index", "no end", "done", "cached", "late errors"],
)
async def test_a_server_that_breaks_a_rule(broken: dict[str, Any], expected: set[str]) -> None:
    with serving(**broken) as url:
        assert await failed(url) == expected


async def test_a_server_with_null_where_the_api_has_no_key() -> None:
    [check] = [check for check in SECTIONS["messages"] if check.name == "no null in place of citations"]
    null = {"type": "text", "text": "", "citations": None}
    with (
        serving() as kept,
        serving(each("content_block_start", lambda event: event | {"content_block": null})) as broken,
    ):
        [good], [bad] = [await outcomes(url, (check,)) for url in (kept, broken)]
    assert (good.status, bad.status) == ("passed", "failed")
    assert "with a null" in bad.why


def made(trial: Callable[[Target], Awaitable[None]], **more: str) -> Check:
    return check(**more)(trial)


async def outcome_of(trial: Callable[[Target], Awaitable[None]], **more: str) -> tuple[str, str]:
    with serving() as url:
        [outcome] = await outcomes(url, (made(trial, **more),))
    return outcome.status, outcome.why


async def test_whatever_a_check_raises_is_one_line() -> None:
    async def surprised(_: Target) -> None:
        raise KeyError("a\nlong\nstory " * 100)

    async def silent(_: Target) -> None:
        """Something holds."""
        raise AssertionError

    async def excused(_: Target) -> None:
        raise NotApplicableError("not here")

    status, why = await outcome_of(surprised)
    assert (status, why[:10], len(why)) == ("failed", "KeyError: ", runner.MAX_REASON_CHARACTERS)
    assert await outcome_of(silent) == ("failed", "Something holds.")
    assert await outcome_of(excused) == ("not applicable", "not here")


async def test_a_check_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(_: Target) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(runner, "CHECK_TIMEOUT_SECONDS", 0.01)
    status, why = await outcome_of(slow)
    assert status == "failed"
    assert "not done after" in why


async def test_a_server_that_goes_away_in_the_middle() -> None:
    with contextlib.ExitStack() as running:
        url = running.enter_context(serving())
        async with open_target(url) as target:
            results = run(target, STREAMING)
            assert (await anext(results)).status == "passed"
            running.close()
            rest = [outcome async for outcome in results]
    assert len(rest) == len(STREAMING) - 1
    assert {outcome.status for outcome in rest} == {"failed"}
    assert all("Connect" in outcome.why for outcome in rest)


async def passes(_: Target) -> None:
    """It holds."""


@pytest.mark.parametrize(
    ("declared", "needs", "lacks"),
    [
        ({}, "passed", "not applicable"),
        ({"thinking": {"supported": None}}, "passed", "not applicable"),
        ({"thinking": {"supported": True}}, "passed", "not applicable"),
        ({"thinking": {"supported": False}}, "not applicable", "passed"),
    ],
)
async def test_what_a_server_declares_decides_what_applies(declared: Json, needs: str, lacks: str) -> None:
    with serving() as url:
        async with open_target(url) as target:
            declaring = replace(target, info={"capabilities": declared})
            checks = made(passes, needs="thinking"), made(passes, lacks="thinking")
            found = [outcome.status async for outcome in run(declaring, checks)]
    assert found == [needs, lacks]


async def test_capabilities_may_be_within_others() -> None:
    with serving() as url:
        async with open_target(url) as target:
            types = {"adaptive": {"supported": False}, "enabled": {"supported": True}}
            declaring = replace(target, info={"capabilities": {"thinking": {"supported": True, "types": types}}})
            assert declaring.declares("thinking") is True
            assert declaring.declares("thinking.types.adaptive") is False
            assert declaring.declares("thinking.types.disabled") is None
            assert declaring.declares("citations") is None


async def test_the_first_listed_model_is_asked(server: Server) -> None:
    async with open_target(server.url, server.key) as target:
        assert target.info["id"] == target.model
        assert target.window
    async with open_target(server.url, server.key, server.alias) as target:
        assert target.model == target.info["id"] == server.alias
    async with open_target(server.url, server.key, "not listed") as target:
        assert (target.model, target.info) == ("not listed", {})


async def test_a_wrong_key_ends_it_before_it_begins(server: Server) -> None:
    with pytest.raises(WrongKeyError, match="refuses the API key"):
        async with open_target(server.url, "sk-wrong"):
            pass
