"""Strict parser of event streams by the grammar of section 10, and their fold into a message.

stream  :=  ping* message_start (ping | block)* message_delta+ message_stop
block   :=  content_block_start content_block_delta* content_block_stop
"""

import copy
import json
import re
from dataclasses import dataclass

from commonweight.conformance.conversation import Json
from commonweight.conformance.shapes import CUT_STOP_REASONS, is_count

_DELTAS = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "server_tool_use": {"input_json_delta"},
    "mcp_tool_use": {"input_json_delta"},
    "compaction": {"compaction_delta"},
}
"""Blocks that grow, and by what. All others are complete when they start."""

_AT_START: dict[str, Json] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "server_tool_use": {"input": {}},
    "mcp_tool_use": {"input": {}},
}


@dataclass(frozen=True)
class Stream:
    """A valid stream: its events, and the message."""

    events: list[Json]
    """Without pings."""
    message: Json
    """Fold of the events."""

    @property
    def first_usage(self) -> Json:
        """Usage in ``message_start``."""
        usage: Json = self.events[0]["message"]["usage"]
        return usage

    @property
    def last_usage(self) -> Json:
        """Usage in the last ``message_delta``."""
        usage: Json = self.events[-2]["usage"]
        return usage

    def deltas(self, kind: str) -> list[Json]:
        """The deltas of one type, in order."""
        list_deltas = (event["delta"] for event in self.events if event["type"] == "content_block_delta")
        return [delta for delta in list_deltas if delta["type"] == kind]


def read_stream(body: str) -> Stream:
    """The body of an event stream.

    Raises:
        AssertionError: it breaks the grammar, and the message says where.
    """
    events = [event for event in parse_frames(body) if event["type"] != "ping"]
    return Stream(events, fold(events))


def parse_frames(body: str) -> list[Json]:
    """The events as they travel: a name, one line of JSON of that type, an empty line. Comments are skipped."""
    assert body.endswith("\n\n"), f"the stream ends within a frame: {body[-80:]!r}"
    events = []
    for raw in body.removesuffix("\n\n").split("\n\n"):
        frame = "\n".join(line for line in raw.split("\n") if not line.startswith(":"))
        if not frame:
            continue
        match = re.fullmatch(r"event: (\w+)\ndata: (\{.*\})", frame)
        assert match, f"no frame of an event line and a data line: {frame[:80]!r}"
        event = json.loads(match[2])
        assert event.get("type") == match[1], f"the event {match[1]} has data of type {event.get('type')!r}"
        events.append(event)
    return events


def fold(events: list[Json]) -> Json:
    """Fold events without pings into a message, and check their order."""
    fold = _Fold()
    for event in events:
        fold.add(event)
    assert fold.is_over, "the stream ends without message_stop"
    return fold.message


class _Fold:
    """State of the parser and fold."""

    def __init__(self) -> None:
        self.message: Json = {}
        self.is_over = False
        self._open: Json | None = None
        self._json = ""
        self._cut = ""
        """JSON of the last block that is not complete, which only a cut answer may leave behind."""
        self._written: int | None = None

    def add(self, event: Json) -> None:
        """Take the next event."""
        kind = event["type"]
        assert not self.is_over, f"{kind} after message_stop"
        assert kind != "error", f"the stream ended in an error: {event.get('error')}"
        assert bool(self.message) != (kind == "message_start"), (
            "a second message_start" if self.message else f"{kind} before message_start"
        )
        match kind:
            case "message_start":
                self._start(event["message"])
            case "content_block_start":
                self._start_block(event["index"], event["content_block"])
            case "content_block_delta":
                self._grow(self._require_open(event), event["delta"])
            case "content_block_stop":
                self._stop_block(self._require_open(event))
            case "message_delta":
                self._end(event["delta"], event["usage"])
            case "message_stop":
                assert self._written is not None, "message_stop without a message_delta"
                self.is_over = True
            case _:
                raise AssertionError(f"there is no event {kind!r}")

    def _start(self, message: Json) -> None:
        for name, empty in (("content", []), ("stop_reason", None), ("stop_sequence", None)):
            assert message.get(name, "missing") == empty, (
                f"message_start has {name} {message.get(name, 'missing')!r}"
            )
        assert isinstance(message.get("usage"), dict), f"message_start has usage {message.get('usage')!r}"
        self.message = copy.deepcopy(message)

    def _start_block(self, index: int, block: Json) -> None:
        content = self.message["content"]
        assert self._open is None, f"block {index} starts before block {len(content) - 1} stops"
        assert self._written is None, f"block {index} starts after message_delta"
        assert index == len(content), f"block {index} starts where {len(content)} is next"
        for name, empty in _AT_START.get(block["type"], {}).items():
            assert block.get(name) == empty, f"a {block['type']} block starts with {name} {block.get(name)!r}"
        self._open = copy.deepcopy(block)
        self._json = ""
        content.append(self._open)

    def _require_open(self, event: Json) -> Json:
        last = len(self.message["content"]) - 1
        assert self._open is not None, f"{event['type']} for block {event['index']}, which is not open"
        assert event["index"] == last, f"{event['type']} for block {event['index']} while {last} is open"
        return self._open

    def _grow(self, block: Json, delta: Json) -> None:
        kind = delta["type"]
        assert kind in _DELTAS.get(block["type"], set()), f"{kind} in a {block['type']} block"
        assert not block.get("signature"), f"{kind} after the signature"
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                # Half of a surrogate pair is valid JSON, but no text.
                text.encode()
                block["text"] += text
            case {"type": "citations_delta", "citation": dict(citation)}:
                block["citations"] = [*(block.get("citations") or []), citation]
            case {"type": "thinking_delta", "thinking": str(thinking)}:
                block["thinking"] += thinking
            case {"type": "signature_delta", "signature": str(signature)}:
                block["signature"] = signature
            case {"type": "input_json_delta", "partial_json": str(part)}:
                self._json += part
            case {"type": "compaction_delta"}:
                block |= {name: value for name, value in delta.items() if name != "type"}
            case _:
                raise AssertionError(f"a delta of another shape: {delta}")

    def _stop_block(self, block: Json) -> None:
        assert not self._cut, f"a block after input that is no complete JSON: {self._cut!r}"
        if "input_json_delta" in _DELTAS.get(block["type"], set()):
            try:
                block["input"] = json.loads(self._json or "{}")
            except ValueError:
                self._cut = self._json
        self._open = None

    def _end(self, delta: Json, usage: Json) -> None:
        assert self._open is None, "message_delta before the last block stops"
        assert is_count(usage.get("output_tokens")), (
            f"message_delta has output_tokens {usage.get('output_tokens')!r}"
        )
        written: int = usage["output_tokens"]
        assert written >= (self._written or 0), f"output_tokens fall from {self._written} to {written}"
        assert not self._cut or delta["stop_reason"] in CUT_STOP_REASONS, (
            f"input is no complete JSON: {self._cut!r}"
        )
        self._written = written
        self.message |= delta
        self.message["usage"] |= {name: value for name, value in usage.items() if value is not None}
