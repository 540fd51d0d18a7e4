"""Tools that change in mid-conversation, with the official SDK: single requests, a batch, and its tool runner."""

import json
import time
from typing import Any

import anthropic
import pytest
from anthropic import beta_tool
from anthropic.types.beta import BetaToolUseBlock as Call

from conftest import Server
from replay import replaying

BETAS = ["inline-tools-2026-09-15"]
PLACES = {
    "type": "object",
    "properties": {"place": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["place"],
    "additionalProperties": False,
}
WEATHER: Any = {"name": "weather", "description": "The weather of a place.", "input_schema": PLACES}
TIDES: Any = {"name": "tides", "description": "The tides of a place.", "input_schema": PLACES}
LONG = " ".join(f"Rule {i}: answer in short and kind sentences." for i in range(40))
DEFINITION = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": TIDES}}
REMOVAL = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "weather"}}


def asked(*changes: object, **fields: object) -> Any:
    """A long question, and what changes after it."""
    block = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [block]}]
    if changes:
        messages += [
            {"role": "assistant", "content": "I see."},
            {"role": "user", "content": "What now?"},
            {"role": "system", "content": [*changes]},
        ]
    return {"model": "any-name", "max_tokens": 48, "tools": [WEATHER], "messages": messages, **fields}


@pytest.fixture
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=server.key, max_retries=0)


def test_the_prompt_before_a_change_is_read_from_the_cache(client: anthropic.Anthropic) -> None:
    written = client.beta.messages.create(**asked(max_tokens=1), betas=BETAS).usage
    before = (written.cache_creation_input_tokens or 0) + (written.cache_read_input_tokens or 0)
    assert before > 400
    for change in (DEFINITION, REMOVAL):
        usage = client.beta.messages.create(**asked(change, max_tokens=1), betas=BETAS).usage
        assert (usage.cache_read_input_tokens or 0) >= before
        arguments = asked(change)
        del arguments["max_tokens"]
        counted = client.beta.messages.count_tokens(**arguments, betas=BETAS).input_tokens
        parts = (usage.input_tokens, usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0)
        assert sum(parts) == counted > before


def test_only_what_is_left_is_called_whole_or_streamed(client: anthropic.Anthropic) -> None:
    forced = asked(DEFINITION, REMOVAL, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    whole = client.beta.messages.create(**forced, betas=BETAS)
    with client.beta.messages.stream(**forced, betas=BETAS) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        [(name, given)] = [(block.name, block.input) for block in message.content if isinstance(block, Call)]
        assert name == "tides"
        assert given in [{"place": "Oslo"}, {"place": "Rome"}]
        assert message.stop_reason == "tool_use"
    with pytest.raises(anthropic.BadRequestError, match="Tool 'weather' not found in provided tools"):
        client.beta.messages.create(**asked(REMOVAL, tool_choice={"type": "tool", "name": "weather"}), betas=BETAS)


def test_tools_change_in_a_batch_too(client: anthropic.Anthropic) -> None:
    forced = asked(DEFINITION, REMOVAL, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    unknown = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "nothing"}}
    requests: Any = [{"custom_id": "good", "params": forced}, {"custom_id": "bad", "params": asked(unknown)}]
    batches = client.beta.messages.batches
    made = batches.create(requests=requests, betas=BETAS)
    while batches.retrieve(made.id).processing_status != "ended":
        time.sleep(0.05)
    results = {one.custom_id: one.result for one in batches.results(made.id)}
    good, bad = results["good"], results["bad"]
    assert good.type == "succeeded"
    assert [block.name for block in good.message.content if isinstance(block, Call)] == ["tides"]
    assert bad.type == "errored"
    assert "references tool 'nothing'" in bad.error.error.message


def test_the_tool_runner_adds_and_removes_tools() -> None:
    called: list[str] = []

    @beta_tool
    def open_shed() -> str:
        """Open the shed."""
        called.append("open_shed")
        runner.add_tools(mow)
        runner.remove_tools(open_shed)
        return "It is open."

    @beta_tool
    def mow(metres: int) -> str:
        """Mow the lawn.

        Args:
            metres: How many of them.
        """
        called.append(f"mow {metres}")
        return "It is mown."

    def call(name: str, **arguments: object) -> str:
        body = json.dumps({"name": name, "arguments": arguments})
        return f"<tool_call>\n{body}\n</tool_call>"

    script = [call("open_shed"), call("mow", metres=3), "Done."]
    with replaying(script) as served:
        client = anthropic.Anthropic(base_url=served.url, api_key=served.key, max_retries=0)
        runner = client.beta.messages.tool_runner(
            model="any-name",
            max_tokens=64,
            tools=[open_shed],
            messages=[{"role": "user", "content": "Mow."}],
            betas=BETAS,
        )
        final = runner.until_done()
    assert called == ["open_shed", "mow 3"]
    assert [block.text for block in final.content if block.type == "text"] == ["Done."]
    first, second, third = served.engine.prompts
    assert "Mow the lawn." not in first
    assert (
        second.index("It is open.")
        < second.index("Mow the lawn.")
        < second.index("no longer be called: open_shed")
    )
    assert third.startswith(second)
