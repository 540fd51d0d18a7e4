"""Takes down what the coding agent sends: ``python tests/clients/record.py`` writes ``recorded/*.json`` anew.

The agent talks to a stub that answers from a script, whatever it is asked; see ``recordings`` for the files.
"""

import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from installed import claude_code, environment

Block = dict[str, Any]
Body = dict[str, Any]

RECORDED = Path(__file__).with_name("recorded")
MINIMAL = ("--tools", "Bash,Read", "--system-prompt", "You are terse.")


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def thought(words: str, signature: str) -> Block:
    return {"type": "thinking", "thinking": words, "signature": signature}


def call(number: int, tool: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "id": f"toolu_{number:024}", "name": tool, "input": arguments}


# Each prompt is a run of the agent that continues the conversation; the answers are what the stub says in all.
PLAIN = (["Say hi."], [[thought("", "c2lnbmF0dXJlIDE="), text("Hi.")]])
BASH = (
    ["Run echo one, then two more.", "Thanks. And now run echo four."],
    [
        [
            thought("", "c2lnbmF0dXJlIDE="),
            text("First the first."),
            call(1, "Bash", command="echo one", description="Print one"),
        ],
        [
            thought("Now both of the others.", "c2lnbmF0dXJlIDI="),
            call(2, "Bash", command="sleep 1; echo two", description="Print two"),  # done last, and told last
            call(3, "Bash", description="Fail", command="echo three; false"),
        ],
        [text("One, two, and three failed.")],
        [thought("", "c2lnbmF0dXJlIDM="), call(4, "Bash", command="echo four")],
        [text("Four.")],
    ],
)
SEARCH = (
    ["What is planned?", "Now run echo done."],
    [
        [thought("", "c2lnbmF0dXJlIDE="), call(1, "ToolSearch", query="select:TaskStop,CronList", max_results=5)],
        [call(2, "CronList")],
        [call(3, "ToolSearch", query="notebook", max_results=1)],
        [text("Nothing is planned.")],
        [call(4, "Bash", command="echo done")],
        [text("Done.")],
    ],
)
# What small models do: space around text or for text, arguments in any order, wrong ones, tools that do not exist.
UNTIDY = (
    ["Go on.", "More?"],
    [
        [text("\n\nSo. \n\n"), call(1, "Bash", description="Print one", command="echo one")],
        [text("\n"), call(2, "Bash", timeout=5000, command="echo two\n")],
        [text(""), call(3, "Bash", extra=1, command="echo three")],
        [text("A"), text("B"), call(4, "Bash", description="Print four")],
        [thought("Hm.\n", "c2lnbmF0dXJlIDE="), text(" "), call(5, "Nope", b=1, a="é😀")],
        [call(6, "Bash", command="true")],
        [call(7, "Bash", command="seq 30")],
        [call(8, "Read", limit=3, file_path="nothing.txt")],
        [call(9, "Bash", command="printf '\\n a\\n\\n'")],
        [call(10, "Bash", command="echo ten")],
        [text("Enough.")],
        [text("No.")],
    ],
)
CONVERSATIONS = {
    "plain-minimal": (PLAIN, MINIMAL),
    "plain-full": (PLAIN, ()),
    "bash-minimal": (BASH, MINIMAL),
    "bash-full": (BASH, ()),
    "toolsearch-full": (SEARCH, ()),
    "untidy-minimal": (UNTIDY, MINIMAL),
}


class Stub(ThreadingHTTPServer):
    """Says what the script says next, and keeps what it was asked."""

    def __init__(self, script: list[list[Block]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.bodies: list[Body] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/v1/messages?beta=true", self.path
        assert body["stream"], "the agent fell back to whole answers"
        self.server.bodies.append(body)
        frames = "".join(
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            for event in events(body["model"], len(self.server.bodies), self.server.script)
        )
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(frames)))
        self.end_headers()
        self.wfile.write(frames.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


def events(model: str, number: int, script: list[list[Block]]) -> Iterator[Block]:
    """A message as it is streamed, counted from 1. The agent takes messages with the same id for parts of one."""
    blocks = script[number - 1]
    message: Block = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": model, "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
    yield {"type": "message_start", "message": message}
    for index, block in enumerate(blocks):
        match block["type"]:
            case "thinking":
                start: Block = {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}] if block["thinking"] else []
                deltas += [{"type": "signature_delta", "signature": block["signature"]}]
            case "tool_use":
                start = {"input": {}}
                deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
            case _:
                start = {"text": ""}
                deltas = [{"type": "text_delta", "text": block["text"]}]
        yield {"type": "content_block_start", "index": index, "content_block": block | start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    reason = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"input_tokens": 9, "output_tokens": 9}}
    yield {"type": "message_stop"}


def record(prompts: list[str], script: list[list[Block]], options: tuple[str, ...]) -> list[Body]:
    """The requests of one conversation."""
    with Stub(script) as stub, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        home, project = Path(folder, "home"), Path(folder, "project")
        home.mkdir()
        project.mkdir()
        for number, prompt in enumerate(prompts):
            command: list[str | Path] = [claude_code(), "--print", prompt, "--allowedTools", "Bash", *options]
            subprocess.run(
                [*command, *(["--continue"] if number else [])],
                cwd=project,
                env=environment(home, f"http://127.0.0.1:{stub.server_port}", "any"),
                stdin=subprocess.DEVNULL,
                timeout=120,
                check=True,
            )
        stub.shutdown()
        assert len(stub.bodies) == len(script), f"the agent sent {len(stub.bodies)} requests"
        return stub.bodies


class Neutral:
    """Takes out of a conversation the vendor's texts and whatever tells who recorded it, and where."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, value: Any, key: str = "") -> Any:
        match value:
            case {"type": "tool_use"}:
                return value  # our script's own words
            case dict():
                return {name: self(part, name) for name, part in value.items()}
            case list():
                return [self(part, key) for part in value]
            case str() if key == "user_id":
                return json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": "0" * 36})
            case str() if key == "description" or len(value) > 40:
                return self._text(value, key)
            case _:
                return value

    def _text(self, value: str, key: str) -> str:
        # What our scripts say is shorter; what else is long and has to stay is no prose.
        if key in ("$schema", "pattern", "signature") or value.startswith("x-anthropic-billing-header:"):
            return value
        found = re.fullmatch(
            r"(\s*(?:<system-reminder>\s*)?)(.*?)((?:\s*</system-reminder>)?\s*)", value, re.DOTALL
        )
        assert found
        number = self._numbers.setdefault(found[2], len(self._numbers) + 1)
        return f"{found[1]}{{{{text {number}: {len(found[2])}}}}}{found[3]}"


def main() -> None:
    """Record everything; a body a line, so that one can see what changes."""
    RECORDED.mkdir(exist_ok=True)
    for name, ((prompts, script), options) in CONVERSATIONS.items():
        neutral = Neutral()
        lines = [json.dumps(neutral(body), ensure_ascii=False) for body in record(prompts, script, options)]
        (RECORDED / f"{name}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
