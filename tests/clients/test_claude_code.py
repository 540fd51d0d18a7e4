"""The coding agent itself: a turn with the starter model, a tool that really runs, a window that gets full."""

import json
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from installed import claude_code, environment

from conftest import Server
from replay import replaying

pytestmark = [pytest.mark.clients, pytest.mark.timeout(400)]

# The agent's own prompt has more tokens than a small machine likes to read.
SMALL = ("--tools", "Bash,Read", "--system-prompt", "You are terse.")


def ask(prompt: str, folder: Path, url: str, key: str, *options: str, **variables: str) -> list[dict[str, Any]]:
    """What the agent tells, event by event."""
    project = folder / "project"
    project.mkdir()
    done = subprocess.run(
        [claude_code(), "--print", prompt, "--output-format", "stream-json", "--verbose", *SMALL, *options],
        cwd=project,
        env=environment(folder, url, key) | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events, done.stderr
    assert events[-1]["type"] == "result"
    assert done.returncode == int(events[-1]["is_error"])
    return events


def write_call(name: str, **arguments: object) -> str:
    """A call as the starter model's prompt explains it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def test_a_plain_turn_with_the_starter_model(server: Server, tmp_path: Path) -> None:
    *events, result = ask(
        "Say hello.",
        tmp_path,
        server.url,
        server.key,
        "--max-turns",
        "2",
        CLAUDE_CODE_MAX_OUTPUT_TOKENS="16",
    )
    answers = [event for event in events if event["type"] == "assistant"]
    # The agent's own remarks have no request of ours.
    own = [answer for answer in answers if answer.get("request_id", "").startswith("req_")]
    assert any(
        block["type"] == "text" and block["text"] for answer in own for block in answer["message"]["content"]
    )
    usage = result["usage"]
    kinds = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert sum(usage[kind] for kind in kinds) > 200
    assert usage["output_tokens"] > 0
    # A tiny model may find no end, or call tools it may not use; the agent tells then which limit it met.
    limits = {(result["subtype"], result.get("api_error"))}
    assert limits <= {("success", None), ("success", "max_output_tokens"), ("error_max_turns", None)}, result


def test_a_tool_runs_and_the_model_reads_what_it_printed(tmp_path: Path) -> None:
    # The command computes what it prints: nobody can know it who did not run it.
    number = secrets.randbelow(10**6)
    command = f"echo sum $(({number} + 1000000))"
    call = json.dumps({"name": "Bash", "arguments": {"command": command, "description": "Add"}})
    script = [f"I will run it.\n<tool_call>\n{call}\n</tool_call>", "That is what it printed."]
    with replaying(script) as served:
        *_, result = ask("What is it?", tmp_path, served.url, served.key, "--allowedTools", "Bash")
    assert (result["subtype"], result["is_error"], result["num_turns"]) == ("success", False, 2)
    assert result["result"] == "That is what it printed."
    first, second = served.engine.prompts
    printed = f"sum {number + 1000000}"
    assert printed not in first
    assert printed in second.partition(command)[2]


def test_a_conversation_that_no_longer_fits_is_summarised_and_goes_on(tmp_path: Path) -> None:
    calls = 0

    def script(prompt: str) -> str:
        nonlocal calls
        if "<summary> block" in prompt:
            return "<summary>Nothing but numbers were printed.</summary>"
        if "Nothing but numbers were printed." in prompt:
            return "Enough."
        calls += 1
        call = json.dumps({"name": "Bash", "arguments": {"command": f"seq {calls}000 {calls}400"}})
        return f"<tool_call>\n{call}\n</tool_call>"

    with replaying(script, window=6000) as served:
        *_, result = ask("Count.", tmp_path, served.url, served.key, "--allowedTools", "Bash")
    # It does so on the words of our refusal alone: it thinks this model's window is a million tokens.
    assert (result["subtype"], result.get("result")) == ("success", "Enough."), result
    assert calls > 1


# By reference the tool is in `tools`, deferred; by value its definition is in the message.
@pytest.mark.parametrize("by_value", [False, True])
def test_tools_that_an_mcp_server_changes_in_mid_session_are_followed(tmp_path: Path, *, by_value: bool) -> None:
    number = secrets.randbelow(10**6)
    shown = "This tool can be called from now on:"
    gone = "This tool can no longer be called: mcp__kit__adder"

    def script(prompt: str) -> str:
        """Switches the adder on, waits until the agent says that it is there, calls it, and switches it off."""
        # The agent lists the tools again beside its turns: turns that take no time are over before it has.
        time.sleep(0.1)
        is_added = f"sum {number + 1000000}" in prompt
        # Tools by reference stay where they are, and a text says that they are gone.
        if gone in prompt or (is_added and not by_value):
            return "That is the sum."
        if is_added:
            return write_call("mcp__kit__disable")
        if shown in prompt:
            return write_call("mcp__kit__adder", a=number, b=1000000)
        return write_call("mcp__kit__enable")

    kit = {"command": sys.executable, "args": [str(Path(__file__).with_name("mcp_kit.py"))], "alwaysLoad": True}
    servers = json.dumps({"mcpServers": {"kit": kit}})
    options = ("--mcp-config", servers, "--allowedTools", "mcp__kit", "--max-turns", "100")
    with replaying(script) as served:
        *_, result = ask(
            "What is it?", tmp_path, served.url, served.key, *options, CLAUDE_CODE_INLINE_TOOLS=str(int(by_value))
        )
    assert (result["subtype"], result.get("result")) == ("success", "That is the sum."), result
    first, *_, last = served.engine.prompts
    tools = first[: first.index("</tools>")]
    assert "Add two integers." not in tools
    assert last.startswith(tools)
    assert last.index("It is on.") < last.index(shown) < last.index("Add two integers.")
