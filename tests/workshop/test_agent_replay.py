"""Replayed sessions of agents, with the starter: what ends one, and how often a text is scored."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from commonweight.charter import parse
from commonweight.engines.settings import EngineSettings
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from commonweight.messages.request import MessageRequest
from commonweight.runtime.assistant import open_assistant
from commonweight.runtime.data import DataFolder
from commonweight.runtime.settings import AssistantSettings
from commonweight.turn.record import TurnRecorder
from commonweight.workshop.heads.agent_replay import measure_agents, replay_session
from commonweight.workshop.heads.agent_sessions import AgentSession
from commonweight.workshop.heads.evaluate import Evaluator
from commonweight.workshop.heads.measurement import Measurement
from sample_charter import BREAD, UMBRELLA, source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WINDOW = 1024
CHARTER = parse(
    source()
    .replace(b"schema: charter/1", b"schema: charter/2")
    .replace(b"{input: refuse, output: refuse}", b"{input: refuse, tool_result: log}")
)
TOOL = {"name": "look_up", "description": "Looks up a page.", "input_schema": {"type": "object"}}


@pytest.fixture
async def evaluator(tmp_path: Path) -> AsyncIterator[Evaluator]:
    encoder = load_encoder()
    guard = Guard(CHARTER, recompile(CHARTER, Bundle.load(DEFAULT, None), encoder, {}), encoder)
    recorder = TurnRecorder()
    settings = AssistantSettings(engine=EngineSettings(context=WINDOW, threads=1, cache_disk=0, parallel=2))
    async with open_assistant(settings, data=DataFolder(tmp_path), guard=guard, listeners=[recorder]) as assistant:
        yield Evaluator(assistant, recorder)


def make_session(name: str, last: str, found: str = "Rye needs a sour dough.") -> AgentSession:
    """A session of three requests: a question, a result, and a last word of the user's."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"page": "rye"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": found}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": BREAD},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": "With sour dough."},
        {"role": "user", "content": last},
    ]
    requests = tuple(
        MessageRequest.model_validate(
            {
                "model": "m",
                "max_tokens": 4,
                "temperature": 0,
                "system": "You bake.",
                "tools": [TOOL],
                "messages": messages[:end],
            }
        )
        for end in (1, 3, 5)
    )
    return AgentSession(name, requests)


CALM = make_session("calm", "How long does it rise?")
ASKING = make_session("asking", UMBRELLA)
TELLING = make_session("telling", "Thank you.", UMBRELLA)
LONG = make_session("long", "Thank you.", f"{BREAD} " * 300)


async def test_each_text_is_scored_once_and_a_calm_session_goes_on(evaluator: Evaluator) -> None:
    first = await replay_session(evaluator, CALM)
    assert (first.refusal, first.is_read, len(first.requests)) == (None, True, 3)
    assert first.requests[0].new == first.requests[0].texts
    assert all(0 < one.new < one.texts for one in first.requests[1:])
    assert all(one.computed > 0 for one in first.requests)
    again = await replay_session(evaluator, CALM)
    assert [one.computed for one in again.requests] == [0, 0, 0], "all of it is known"
    assert [one.known for one in again.requests] == [one.known + one.computed for one in first.requests]


async def test_what_the_user_asks_ends_a_session_and_what_a_tool_tells_is_recorded(evaluator: Evaluator) -> None:
    asking = await replay_session(evaluator, ASKING)
    assert asking.refusal is not None
    assert (asking.refusal.principle, asking.refusal.block) == ("no-umbrellas", "messages[4].content[0]")
    assert len(asking.requests) == 3
    telling = await replay_session(evaluator, TELLING)
    assert (telling.refusal, len(telling.requests)) == (None, 3)


async def test_a_session_that_outgrows_the_window_is_in_no_rate(evaluator: Evaluator) -> None:
    found = await replay_session(evaluator, LONG)
    assert (found.is_read, found.refusal, len(found.requests)) == (False, None, 1)


async def test_rows_of_sessions(evaluator: Evaluator) -> None:
    run = Measurement(evaluator, {}, sessions=[CALM, ASKING, TELLING, LONG])
    refused, known, texts, new, computed = [figure async for figure in measure_agents(run)]
    assert refused.value is not None
    assert refused.value.value == pytest.approx(1 / 3)
    assert (refused.texts, refused.unread) == (3, 1)
    assert refused.result == "missed"
    assert refused.note == "asking: no-umbrellas in messages[4].content[0]"
    assert known.value is not None
    assert 0 < known.value.value < 1
    assert "computed for" in known.note
    assert [one.texts for one in (texts, new, computed)] == [10, 10, 10], "requests"
    assert texts.value is not None
    assert new.value is not None
    assert texts.value.value > new.value.value
    few = [figure async for figure in measure_agents(Measurement(evaluator, {}, sessions=[CALM, ASKING], most=1))]
    assert few[0].texts == 1
    only_long = [figure async for figure in measure_agents(Measurement(evaluator, {}, sessions=[LONG]))]
    assert only_long[0].note == "n/a: no session fits into the model's window"


async def test_without_sessions_nothing_is_measured(evaluator: Evaluator) -> None:
    figures = [figure async for figure in measure_agents(Measurement(evaluator, {}))]
    assert len(figures) == 5
    assert {figure.note for figure in figures} == {"n/a: no sessions: --sessions"}
