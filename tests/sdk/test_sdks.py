"""The official SDK, as it is today and as it was years ago, against the live server, neither of them changed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Server

SCRIPT = Path(__file__).with_name("conversation.py")
OLD_SDK = Path(__file__).parents[2] / ".venv" / "old-sdk"
STARTER = "SmolLM2-135M-Instruct.Q4_1"
WINDOW = 8192

Facts = dict[str, Any]


@pytest.fixture(scope="module", params=["2.x", "0.121.0"])
def facts(request: pytest.FixtureRequest, server: Server) -> Facts:
    """What the client application told, run with one of the SDKs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    environment |= {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": server.key}
    if request.param != "2.x":
        if not (OLD_SDK / "installed").exists():
            pytest.fail(f"the old SDK is not there; run: make {OLD_SDK.relative_to(OLD_SDK.parents[1])}/installed")
        environment["PYTHONPATH"] = str(OLD_SDK)
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Facts = json.loads(done.stdout)
    # Without this, a broken path would quietly test one SDK twice.
    assert found["version"].startswith(request.param.removesuffix("x"))
    return found


def test_each_sdk_shows_the_key_in_its_own_header(facts: Facts, server: Server) -> None:
    shown = {(h.get("authorization"), h.get("x-api-key"), h["anthropic-version"]) for h in facts["headers"]}
    if facts["version"].startswith("2."):
        assert shown == {(f"Bearer {key}", None, "2026-10-21") for key in (server.key, "sk-wrong")}
    else:
        assert shown == {(None, key, "2023-06-01") for key in (server.key, "sk-wrong")}


def test_a_conversation_of_three_streamed_turns(facts: Facts) -> None:
    length = 0
    assert len(facts["turns"]) == 3
    for turn in facts["turns"]:
        message, usage = turn["message"], turn["message"]["usage"]
        assert turn["request_id"].startswith("req_")
        assert message["id"].startswith("msg_")
        assert message["model"] == "claude-opus-5-5"
        assert message["stop_reason"] in ("end_turn", "max_tokens")
        assert turn["seen"] == "".join(block["text"] for block in message["content"]) != ""
        assert 0 < usage["output_tokens"] <= 24
        # The prompt is as long as counting said, and longer than all that was said before.
        assert whole_prompt(usage) == turn["counted"] > length
        length = whole_prompt(usage) + usage["output_tokens"]
    assert len({turn["message"]["id"] for turn in facts["turns"]}) == 3


def test_a_stop_sequence_ends_the_answer_and_is_not_part_of_it(facts: Facts) -> None:
    message = facts["answers"]["stop_sequence"]["message"]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "8")
    assert message["content"] == [{"type": "text", "text": " 5, 6, 7, ", "citations": None}]


def test_max_tokens_cuts_the_answer(facts: Facts) -> None:
    message = facts["answers"]["max_tokens"]["message"]
    assert (message["stop_reason"], message["stop_sequence"]) == ("max_tokens", None)
    assert message["usage"]["output_tokens"] == 5


def test_an_answer_that_the_model_ends_itself(facts: Facts) -> None:
    message = facts["answers"]["end_turn"]["message"]
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["usage"]["output_tokens"] < 40


def test_no_tokens_wanted_means_an_empty_answer(facts: Facts) -> None:
    message = facts["answers"]["empty"]["message"]
    assert message["content"] == []
    assert message["usage"]["output_tokens"] == 0


@pytest.mark.parametrize("ending", ["stop_sequence", "max_tokens", "end_turn", "empty"])
def test_streams_keep_to_the_grammar(facts: Facts, ending: str) -> None:
    answer = facts["answers"][ending]
    assert answer["content_type"] == "text/event-stream; charset=utf-8"
    events = parsed(answer["stream"])
    letters = "".join(LETTERS[event["type"]] for event in events)
    assert re.fullmatch("p*Mp*(B(D|p)*Ep*)*(Xp*)+S", letters), letters
    index = -1
    for event in events:
        match event["type"]:
            case "content_block_start":
                index += 1
                assert event == {
                    "type": "content_block_start",
                    "index": index,
                    "content_block": {"type": "text", "text": ""},
                }
            case "content_block_delta":
                assert event["index"] == index
                assert event["delta"].keys() == {"type", "text"}
                assert event["delta"]["type"] == "text_delta"
                assert event["delta"]["text"] != ""
            case "content_block_stop":
                assert event == {"type": "content_block_stop", "index": index}


@pytest.mark.parametrize("ending", ["stop_sequence", "max_tokens", "end_turn", "empty"])
def test_a_stream_tells_the_same_as_the_whole_answer(facts: Facts, ending: str) -> None:
    answer = facts["answers"][ending]
    events = parsed(answer["stream"])
    [start] = (event["message"] for event in events if event["type"] == "message_start")
    *_, delta = (event for event in events if event["type"] == "message_delta")
    assert (start["type"], start["role"], start["content"]) == ("message", "assistant", [])
    assert (start["stop_reason"], start["stop_sequence"]) == (None, None)
    assert start["id"].startswith("msg_")

    message = answer["message"]
    assert answer["request_id"].startswith("req_")
    assert start["model"] == message["model"] == "claude-opus-5-5"
    assert delta["delta"]["stop_reason"] == message["stop_reason"]
    assert delta["delta"]["stop_sequence"] == message["stop_sequence"]
    assert delta["usage"]["output_tokens"] == message["usage"]["output_tokens"]
    assert whole_prompt(start["usage"]) == whole_prompt(delta["usage"]) == whole_prompt(message["usage"])
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == "".join(block["text"] for block in message["content"])


def test_counting_sees_the_system_prompt(facts: Facts) -> None:
    # A system prompt of one's own replaces the template's default, which is longer than this one.
    assert 0 < facts["tokens"]["with_system"] != facts["tokens"]["bare"] > 0


def test_models_are_listed_and_found_by_name_and_alias(facts: Facts, server: Server) -> None:
    assert [model["listed"]["id"] for model in facts["models"]] == [STARTER, server.alias]
    for model in facts["models"]:
        assert model["listed"] == model["alone"]
        assert model["listed"]["type"] == "model"
        assert model["listed"]["max_input_tokens"] == WINDOW
        assert model["listed"]["capabilities"]["image_input"] == {"supported": False}


def test_errors_become_the_sdks_own_classes(facts: Facts) -> None:
    errors = facts["errors"]
    found = {name: (error["class"], error["status"]) for name, error in errors.items()}
    assert found == {
        "wrong_key": ("AuthenticationError", 401),
        "too_long": ("BadRequestError", 400),
        "too_long_stream": ("BadRequestError", 400),
        "no_such_model": ("NotFoundError", 404),
    }
    types = {name: error["body"]["error"]["type"] for name, error in errors.items()}
    assert types == {
        "wrong_key": "authentication_error",
        "too_long": "invalid_request_error",
        "too_long_stream": "invalid_request_error",
        "no_such_model": "not_found_error",
    }
    for error in errors.values():
        assert error["body"]["type"] == "error"
        assert error["body"]["request_id"] == error["request_id"]
        assert error["request_id"].startswith("req_")


def test_a_prompt_that_does_not_fit_is_refused_in_words_that_agents_know(facts: Facts) -> None:
    length = facts["tokens"]["too_long"]
    assert length > WINDOW
    for name in ("too_long", "too_long_stream"):
        message = facts["errors"][name]["body"]["error"]["message"]
        assert message == f"prompt is too long: {length} tokens > {WINDOW} maximum"


LETTERS = {
    "ping": "p",
    "message_start": "M",
    "content_block_start": "B",
    "content_block_delta": "D",
    "content_block_stop": "E",
    "message_delta": "X",
    "message_stop": "S",
}


def parsed(stream: str) -> list[Facts]:
    """The events of a stream. Every frame is a name, one line of JSON of that type, and an empty line."""
    assert stream.endswith("\n\n")
    events = []
    for frame in stream.removesuffix("\n\n").split("\n\n"):
        match = re.fullmatch(r"event: (\w+)\ndata: (\{.*\})", frame)
        assert match, frame
        event = json.loads(match[2])
        assert event["type"] == match[1]
        events.append(event)
    return events


def whole_prompt(usage: Facts) -> int:
    """All tokens of the prompt, cached or not."""
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(int(usage[part]) for part in parts)
