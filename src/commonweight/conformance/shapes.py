"""Validation of response bodies: sections 8 and 9.1 of the contract."""

from typing import Any

import httpx
import jsonschema_rs

from commonweight.conformance.conversation import Json

STOP_REASONS = {
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "compaction",
    "refusal",
    "model_context_window_exceeded",
}
CUT_STOP_REASONS = {"max_tokens", "model_context_window_exceeded"}
"""Stop reasons of answers that end wherever they happened to be, also within JSON."""


def check_message(message: Json) -> None:
    """A complete ``Message``, as strict clients validate it."""
    assert isinstance(message.get("id"), str) and message["id"], f"id is {message.get('id')!r}"
    assert message.get("type") == "message", f"type is {message.get('type')!r}"
    assert message.get("role") == "assistant", f"role is {message.get('role')!r}"
    assert isinstance(message.get("model"), str), f"model is {message.get('model')!r}"
    assert isinstance(message.get("content"), list), f"content is {message.get('content')!r}"
    for block in message["content"]:
        check_block(block)
    check_ending(message)
    check_usage(message.get("usage"))


def check_block(block: Json) -> None:
    """A block of an answer."""
    match block:
        case {"type": "text", "text": str(), **rest}:
            citations = rest.get("citations")
            assert citations is None or isinstance(citations, list), f"citations are {citations!r}"
        case {"type": "thinking", "thinking": str(), "signature": str(signature)}:
            assert signature, "a thinking block has an empty signature"
        case {"type": "tool_use", "id": str(id_), "name": str(), "input": dict()}:
            assert id_, "a tool_use has an empty id"
        case {"type": "text" | "thinking" | "tool_use"} | {"type": "redacted_thinking"}:
            raise AssertionError(f"a block that no open-weight model answers: {block}")
        case {"type": str()}:
            pass  # blocks of server tools have shapes of their own
        case _:
            raise AssertionError(f"a block without a type: {block}")


def check_ending(message: Json) -> None:
    """``stop_reason`` and ``stop_sequence`` agree with each other and with the content."""
    reason, sequence = message.get("stop_reason"), message.get("stop_sequence", "missing")
    assert reason in STOP_REASONS, f"stop_reason is {reason!r}"
    assert isinstance(sequence, str) == (reason == "stop_sequence"), f"{reason} with stop_sequence {sequence!r}"
    calls = any(block["type"] == "tool_use" for block in message["content"])
    if reason not in CUT_STOP_REASONS:
        assert calls == (reason == "tool_use"), f"stop_reason {reason} {'with' if calls else 'without'} a tool_use"


def check_usage(usage: Any) -> None:  # noqa: ANN401 - whatever stands in its place
    """Token counts; those of the cache come together and add up."""
    assert isinstance(usage, dict), f"usage is {usage!r}"
    for name in ("input_tokens", "output_tokens"):
        assert is_count(usage.get(name)), f"usage.{name} is {usage.get(name)!r}"
    written, read = usage.get("cache_creation_input_tokens"), usage.get("cache_read_input_tokens")
    if written is None and read is None:
        return
    assert is_count(written), f"usage.cache_creation_input_tokens is {written!r}"
    assert is_count(read), f"usage.cache_read_input_tokens is {read!r}"
    if (split := usage.get("cache_creation")) is not None:
        parts = split["ephemeral_5m_input_tokens"] + split["ephemeral_1h_input_tokens"]
        assert parts == written, f"cache_creation adds up to {parts}, not {written}"


def is_count(value: object) -> bool:
    """Whether it is a number of things. JSON's ``true`` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def prompt_tokens(usage: Json) -> int:
    """All tokens of the prompt, cached or not."""
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(usage.get(part) or 0 for part in parts)


def check_error(response: httpx.Response, status: int, kind: str) -> str:
    """An error answer of a status and type; its message. What surrounds it is for one check of its own."""
    assert response.status_code == status, f"HTTP {response.status_code}, not {status}: {response.text[:200]}"
    error = response.json().get("error")
    assert isinstance(error, dict), f"no error body: {response.text[:200]}"
    assert error.get("type") == kind, f"error.type is {error.get('type')!r}, not {kind!r}"
    message = error.get("message")
    assert isinstance(message, str) and message, f"error.message is {message!r}"
    assert "Traceback" not in message, "error.message is a stack trace"
    return message


def check_instance(instance: object, schema: Json) -> None:
    """A value that its JSON schema allows."""
    try:
        jsonschema_rs.validate(schema, instance)
    except jsonschema_rs.ValidationError as error:
        raise AssertionError(f"{instance} is not valid for its schema: {error.message}") from error


def list_calls(message: Json) -> list[Json]:
    """The ``tool_use`` blocks."""
    return [block for block in message["content"] if block["type"] == "tool_use"]


def join_text(message: Json) -> str:
    """All text."""
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")
