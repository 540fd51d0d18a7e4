"""``POST /v1/messages`` on the live server, over plain HTTP."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import Server, running

QUESTION = {"role": "user", "content": "Write a short story about a fox."}


def ask(server: Server, **changes: Any) -> httpx.Response:
    """Send a request that works, but for the changes."""
    body = {"model": "any-name", "max_tokens": 24, "temperature": 0, "messages": [QUESTION]} | changes
    return httpx.post(f"{server.url}/v1/messages", json=body, headers={"x-api-key": server.key}, timeout=60)


def answer(server: Server, **changes: Any) -> dict[str, Any]:
    response = ask(server, **changes)
    assert response.status_code == 200, response.text
    message: dict[str, Any] = response.json()
    return message


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each of whose frames is checked."""
    assert response.text.endswith("\n\n")
    found = []
    for frame in response.text[:-2].split("\n\n"):
        match = re.fullmatch(r"event: (\w+)\ndata: (\{.*\})", frame)
        assert match, frame
        found.append(json.loads(match[2]))
        assert found[-1]["type"] == match[1]
    return found


def text(message: dict[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"])


def test_a_message_has_every_field_and_true_numbers(server: Server) -> None:
    response = ask(server)
    message = response.json()
    assert response.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_\w{24}", response.headers["request-id"])
    assert re.fullmatch(r"msg_\w{24}", message["id"])
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "any-name")
    assert (message["stop_reason"], message["stop_sequence"]) == ("max_tokens", None)
    assert [block["type"] for block in message["content"]] == ["text"]
    counted = httpx.post(
        f"{server.url}/v1/messages/count_tokens",
        json={"model": "x", "messages": [QUESTION]},
        headers={"x-api-key": server.key},
    )
    usage = message["usage"]
    # Whether others have asked the same before is not this test's business.
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted.json()["input_tokens"] > 10
    assert usage["output_tokens"] == 24
    assert usage["cache_creation_input_tokens"] == 0
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}


def whole_prompt(usage: dict[str, Any]) -> int:
    kinds = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage[kind] for kind in kinds)


def test_the_json_answer_is_the_folded_stream(server: Server) -> None:
    whole = answer(server)
    response = ask(server, stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert re.fullmatch(r"req_\w{24}", response.headers["request-id"])
    stream = [event for event in events(response) if event["type"] != "ping"]
    kinds = [event["type"] for event in stream]
    deltas = kinds.count("content_block_delta")
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert deltas > 5
    start, block = stream[0]["message"], stream[1]
    assert (start["content"], start["stop_reason"], start["stop_sequence"]) == ([], None, None)
    # The first answer has filled the cache for the second; the whole prompt is the same.
    assert whole_prompt(start["usage"]) == whole_prompt(whole["usage"])
    assert (block["index"], block["content_block"]) == (0, {"type": "text", "text": ""})
    assert "".join(event["delta"]["text"] for event in stream[2:-3]) == text(whole)
    assert {event["index"] for event in stream[1:-2]} == {0}
    nothing = dict.fromkeys(("stop_sequence", "stop_details"))
    assert stream[-2]["delta"] == {"stop_reason": "max_tokens", **nothing}
    assert stream[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    constant = {"cache_creation", "service_tier", "inference_geo"}
    counts = {name: count for name, count in start["usage"].items() if name not in constant}
    assert stream[-2]["usage"] == {**counts, "output_tokens": whole["usage"]["output_tokens"]}


def test_a_stop_sequence_ends_the_text_before_it(server: Server) -> None:
    free = text(answer(server))
    stop = free[9:13]
    assert stop.strip()
    message = answer(server, stop_sequences=["never this", stop])
    assert text(message) == free[: free.index(stop)]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", stop)
    assert message["usage"]["output_tokens"] < 24


def test_a_model_that_says_it_is_done_ends_its_turn(server: Server) -> None:
    # One word to say, and the examples show when to stop.
    shots = [
        {"role": role, "content": "yes" if role == "assistant" else "Say yes."}
        for _ in range(6)
        for role in ("user", "assistant")
    ]
    message = answer(server, messages=[*shots, {"role": "user", "content": "Say yes."}], max_tokens=100)
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["usage"]["output_tokens"] < 100


def test_max_tokens_beyond_the_window_are_clamped(tmp_path: Path) -> None:
    # A model in the middle of counting does not stop of its own accord in the few tokens that are left.
    count = ", ".join(str(n) for n in range(1, 56)) + ","
    messages = [QUESTION, {"role": "assistant", "content": count}]
    with running(tmp_path / "output.txt", "--context", "256") as (server, _):
        message = answer(server, messages=messages, max_tokens=32000)
        assert message["stop_reason"] == "model_context_window_exceeded"
        usage = message["usage"]
        assert usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["output_tokens"] == 256
        assert usage["output_tokens"] > 5
        exact = answer(server, messages=messages, max_tokens=usage["output_tokens"])
        assert (exact["stop_reason"], exact["content"]) == ("max_tokens", message["content"])


def test_no_tokens_asked_for_is_an_empty_answer(server: Server) -> None:
    message = answer(server, max_tokens=0)
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert message["usage"]["output_tokens"] == 0


def test_an_answer_continues_a_prefill(server: Server) -> None:
    prefilled = answer(server, messages=[QUESTION, {"role": "assistant", "content": "One, two, three, four,"}])
    assert "five" in text(prefilled)
    assert not text(prefilled).startswith("One")


def test_sampling_settings_are_used(server: Server) -> None:
    likeliest = answer(server)
    assert text(answer(server, temperature=1.0, top_k=1)) == text(likeliest)
    assert text(answer(server, temperature=1.0, top_p=0.0)) == text(likeliest)
    drawn = {text(answer(server, temperature=1.0)) for _ in range(3)}
    assert len(drawn) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"anthropic-version": "2023-06-01"},
        {"anthropic-version": "2026-10-21"},
        {"anthropic-beta": "claude-code-20250219,never-heard-of-2031-01-01"},
        {"user-agent": "curl", "x-stainless-lang": "js"},
    ],
)
def test_known_versions_and_any_beta_are_served(server: Server, headers: dict[str, str]) -> None:
    response = httpx.post(
        f"{server.url}/v1/messages?beta=true",
        json={"model": "claude-opus-5-5", "max_tokens": 1, "messages": [QUESTION]},
        headers={"authorization": f"Bearer {server.key}", **headers},
        timeout=60,
    )
    assert response.status_code == 200
    assert response.json()["model"] == "claude-opus-5-5"


def test_what_an_agent_sends_is_accepted(server: Server) -> None:
    message = answer(
        server,
        max_tokens=4,
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.a1b; cc_entrypoint=cli;"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
            {"role": "system", "content": "You are in a terminal.", "output_config": {"effort": "medium"}},
        ],
        tools=[{"name": "Bash", "description": "Run it", "input_schema": {"type": "object", "properties": {}}}],
        tool_choice={"type": "auto"},
        thinking={"type": "adaptive", "display": "omitted"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        metadata={"user_id": "{}"},
        safeguards=[{"type": "dangerous_tool_use"}],
    )
    assert message["stop_reason"] in ("end_turn", "max_tokens")


def test_a_large_conversation_within_the_limit_is_read(server: Server) -> None:
    # 31 MB of JSON, most of it in a field that does not reach the prompt.
    message = answer(server, max_tokens=1, metadata={"user_id": "x" * (31 * 1024 * 1024)})
    assert message["usage"]["output_tokens"] == 1
