"""Small applications, each made with what people make them with, and told nothing but where the server is."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from installed import environment, python

from conftest import Server
from replay import replaying

pytestmark = [pytest.mark.clients, pytest.mark.timeout(400)]

PROGRAMS = Path(__file__).parent
LIGHTS = [{"room": room, "on": on} for room in ("kitchen", "hall") for on in (True, False)]

Facts = dict[str, Any]


def told(command: list[str | Path], folder: Path, url: str, key: str, **variables: str) -> Facts:
    """What a program says on standard output."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder, url, key) | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts: Facts = json.loads(done.stdout)
    return facts


def test_the_agent_sdk_asks_a_question(tmp_path: Path) -> None:
    with replaying(["Hello from the script."]) as served:
        facts = told([python(), PROGRAMS / "agent_sdk.py"], tmp_path, served.url, served.key)
    assert (facts["texts"], facts["is_error"]) == (["Hello from the script."], False)
    [prompt] = served.engine.prompts
    assert facts["usage"]["input_tokens"] == len(served.engine.jobs[0].token_ids)
    assert "You are terse." in prompt
    assert "Say hello." in prompt


def test_the_typescript_sdk_creates_streams_counts_and_forces_tools(server: Server, tmp_path: Path) -> None:
    facts = told(["node", PROGRAMS / "typescript.mjs"], tmp_path, server.url, server.key)
    assert facts["created"]["model"] == "any-name"
    assert facts["seen"] == "".join(block["text"] for block in facts["streamed"]["content"])
    assert facts["counted"]["input_tokens"] == prompt_tokens(facts["created"]["usage"])
    for message in (facts["called"], facts["calledInStream"]):
        [block] = message["content"]
        assert (block["type"], block["name"]) == ("tool_use", "switch_light")
        assert block["input"] in LIGHTS
        assert message["stop_reason"] == "tool_use"


# It validates every answer with schemas of its own, in which few keys may be null.
AI_SDKS = pytest.mark.parametrize("major", ["5", "6", "7"])


@AI_SDKS
def test_the_ai_sdk_generates_streams_forces_tools_and_gets_objects(
    server: Server, tmp_path: Path, major: str
) -> None:
    ways = ("generated", "streamed", "called", "calledInStream", "object")
    facts = told(["node", PROGRAMS / "ai_sdk.mjs", major, *ways], tmp_path, server.url, server.key)
    for way in ("generated", "streamed"):
        assert facts[way]["finishReason"] in ("stop", "length")
        assert facts[way]["usage"]["inputTokens"] > 0
        assert 0 < facts[way]["usage"]["outputTokens"] <= 100
    for way in ("called", "calledInStream"):
        assert facts[way]["finishReason"] == "tool-calls"
        [(name, given)] = facts[way]["inputs"]
        assert name == "switch_light"
        assert given in LIGHTS
    assert facts["object"] in LIGHTS


@AI_SDKS
def test_the_ai_sdk_reads_citations(tmp_path: Path, major: str) -> None:
    ways = ("cited", "citedInStream")
    with replaying(['It is green.<cite doc="0">The sky is green.</cite>'] * 2) as served:
        facts = told(["node", PROGRAMS / "ai_sdk.mjs", major, *ways], tmp_path, served.url, served.key)
    for way in ways:
        assert facts[way]["text"] == "It is green."
        assert facts[way]["sources"] == ["sky.txt"]


def test_langchain_invokes_streams_and_gets_objects(server: Server, tmp_path: Path) -> None:
    # It takes no key but this one: with the token alone it sends an empty one.
    command: list[str | Path] = [python(), PROGRAMS / "langchain_app.py"]
    facts = told(command, tmp_path, server.url, server.key, ANTHROPIC_API_KEY=server.key)
    assert facts["invoke"]["about"]["model"] == "any-name"
    for way in ("invoke", "stream"):
        usage = facts[way]["usage"]
        assert usage["input_tokens"] > 0
        assert 0 < usage["output_tokens"] <= 200
    for way in ("tool", "schema"):
        assert facts[way]["verdict"] in ("good", "bad")
        assert facts[way]["is_long"] in (True, False)
        assert facts[way]["stars"] in (1, 2, 3)


def test_litellm_completes_streams_and_forces_tools(server: Server, tmp_path: Path) -> None:
    facts = told([python(), PROGRAMS / "litellm_app.py"], tmp_path, server.url, server.key)
    for way in ("completion", "stream"):
        assert facts[way]["finish_reason"] in ("stop", "length")
        assert facts[way]["message"]["role"] == "assistant"
        assert facts[way]["usage"]["prompt_tokens"] == facts["completion"]["usage"]["prompt_tokens"] > 0
    for way in ("tool", "streamed_tool"):
        assert facts[way]["finish_reason"] == "tool_calls"
        [call] = facts[way]["message"]["tool_calls"]
        assert call["function"]["name"] == "switch_light"
        assert json.loads(call["function"]["arguments"]) in LIGHTS


def prompt_tokens(usage: Facts) -> int:
    """All of the prompt, cached or not."""
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(int(usage[part]) for part in parts)
