"""Whatever comes in, what goes out is the API's error shape."""

import json
import re
import socket
import threading
import time
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Server

GOOD: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
MESSAGE_PATHS = ["/v1/messages", "/v1/messages/count_tokens"]


def post(
    server: Server, body: bytes | dict[str, Any], path: str = "/v1/messages", **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(server.url + path, content=content, headers={"x-api-key": server.key, **headers}, timeout=60)


def check(response: httpx.Response, status: int, kind: str, **details: str) -> str:
    """The message of an error answer, whose every part is checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body == {
        "type": "error",
        "error": {"type": kind, "message": body["error"]["message"]} | ({"details": details} if details else {}),
        "request_id": response.headers["request-id"],
    }
    message: str = body["error"]["message"]
    assert message
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("path", MESSAGE_PATHS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, "model: Input should be a valid string"),
        ({"messages": None}, "messages: Input should be a valid list"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": "hi"}, "messages: Input should be a valid list"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role: Input should be 'user'"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: all messages must have non-empty content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content: Input should be a valid list"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text.text: Field req",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages.0.content.0: Input tag"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                            }
                        ],
                    }
                ]
            },
            "messages.0.content.0.image: ",
        ),
        ({"system": 3}, "system: Input should be a valid list"),
        ({"tools": [{"description": "nameless"}]}, "tools.0.custom.name: Field required"),
    ],
)
def test_bad_requests_say_what_is_wrong(server: Server, path: str, change: dict[str, Any], words: str) -> None:
    message = check(post(server, GOOD | change, path), 400, "invalid_request_error")
    assert message.startswith(words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": "10"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"top_k": -1}, "top_k: Input should be greater than or equal to 0"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"stop_sequences": [" "]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.any may only be specified while providing tools"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema: Field required"),
        (
            {"messages": [*GOOD["messages"], {"role": "assistant", "content": "so "}]},
            "messages: final assistant content cannot end with trailing whitespace",
        ),
    ],
)
def test_bad_settings_say_what_is_wrong(server: Server, change: dict[str, Any], words: str) -> None:
    for stream in (False, True):
        message = check(post(server, {"stream": stream, **GOOD, **change}), 400, "invalid_request_error")
        assert message.startswith(words)


@pytest.mark.parametrize("path", MESSAGE_PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"model": "m", "max_tokens": NaN}',
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b"[]",
        b"null",
        b'"text"',
    ],
)
def test_bodies_that_are_no_request(server: Server, path: str, body: bytes) -> None:
    check(post(server, body, path), 400, "invalid_request_error")


def test_a_prompt_beyond_the_window_is_refused_in_the_words_that_clients_act_on(server: Server) -> None:
    long = GOOD | {"messages": [{"role": "user", "content": "word " * 9000}]}
    for stream in (False, True):
        message = check(post(server, long | {"stream": stream}), 400, "invalid_request_error")
        match = re.fullmatch(r"prompt is too long: (\d+) tokens > 8192 maximum", message)
        assert match
        tokens = int(match[1])
        assert 9000 < tokens < 9100
    counted = post(server, {"model": "m", "messages": long["messages"]}, "/v1/messages/count_tokens")
    assert counted.json() == {"input_tokens": tokens}


@pytest.mark.parametrize("path", MESSAGE_PATHS)
def test_a_body_beyond_32_mb_is_too_large(server: Server, path: str) -> None:
    check(post(server, b" " * (32 * 1024 * 1024 + 1), path), 413, "request_too_large")
    assert post(server, GOOD).status_code == 200


def test_other_encodings_than_gzip_are_refused(server: Server) -> None:
    code = "request_body_encoding_unsupported"
    refused = post(server, GOOD, **{"content-encoding": "br"})
    message = check(refused, 415, "invalid_request_error", error_code=code)
    assert message.startswith("content-encoding: br")


def test_unknown_versions_are_refused(server: Server) -> None:
    message = check(post(server, GOOD, **{"anthropic-version": "1999-01-01"}), 400, "invalid_request_error")
    assert "1999-01-01" in message


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "x-api-key header is required"),
        ({"x-api-key": "wrong"}, "invalid x-api-key"),
        ({"x-api-key": ""}, "invalid x-api-key"),
        ({"authorization": "Bearer wrong"}, "Invalid bearer token"),
        ({"authorization": "Basic c2VjcmV0"}, "x-api-key header is required"),
        ({"x-api-key": "wrong", "authorization": "Bearer {key}"}, "invalid x-api-key"),
    ],
)
def test_wrong_keys(server: Server, headers: dict[str, str], words: str) -> None:
    sent = {name: value.format(key=server.key) for name, value in headers.items()}
    for method, path in (("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens"), ("GET", "/v1/models")):
        response = httpx.request(method, server.url + path, headers=sent)
        assert check(response, 401, "authentication_error") == words


def test_a_key_beyond_ascii_is_only_wrong(server: Server) -> None:
    response = httpx.get(f"{server.url}/v1/models", headers={b"x-api-key": "schlüssel".encode()})
    check(response, 401, "authentication_error")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found_error"),
        ("POST", "/v1/complete", 404, "not_found_error"),
        ("GET", "/v1/organizations/me", 404, "not_found_error"),
        ("GET", "/v1/models/gpt-none", 404, "not_found_error"),
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/", 400, "invalid_request_error"),
        ("DELETE", "/v1/models", 405, "invalid_request_error"),
        ("GET", "/v1/models?limit=0", 400, "invalid_request_error"),
        ("GET", "/v1/models?limit=many", 400, "invalid_request_error"),
        ("GET", "/v1/models?after_id=nobody", 400, "invalid_request_error"),
    ],
)
def test_paths_methods_and_parameters(server: Server, method: str, path: str, status: int, kind: str) -> None:
    response = httpx.request(method, server.url + path, headers={"x-api-key": server.key})
    check(response, status, kind)


def test_the_root_may_be_probed(server: Server) -> None:
    assert httpx.head(server.url).status_code == 404


KEYS = ["type", "text", "role", "content", "source", "data", "name", "input", "id", "tool_use_id"]
WORDS = ["text", "user", "assistant", "system", "tool_use", "tool_result", "document", "image"]
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(field=st.sampled_from([*GOOD, "system", "tools", "stop_sequences", "thinking", "top_k"]), value=json_values)
def test_no_body_makes_the_server_fail(server: Server, field: str, value: Any) -> None:
    response = post(server, GOOD | {"max_tokens": 1, field: value})
    if response.status_code != 200:
        check(response, 400, "invalid_request_error")


def test_a_body_that_is_wrong_in_every_place_is_refused_for_the_first(server: Server) -> None:
    message = check(post(server, GOOD | {"messages": [1] * 100_000}), 400, "invalid_request_error")
    assert message == "messages.0: Input should be an object"


def test_settings_up_to_64_bits_are_harmless_and_others_refused(server: Server) -> None:
    for name in ("top_k", "max_tokens"):
        for beyond in (2**63, 2**64, 10**30):
            check(post(server, GOOD | {name: beyond}), 400, "invalid_request_error")
    for huge in (2**31, 2**32, 2**63 - 1):
        assert post(server, GOOD | {"top_k": huge}).status_code == 200
        assert (
            post(server, GOOD | {"temperature": 0, "max_tokens": huge, "stop_sequences": ["e"]}).status_code == 200
        )


def test_a_client_that_leaves_while_it_sends_is_no_failure(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    before = server.log.read_text()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {server.key}\r\ncontent-length: 100\r\n\r\n{{"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode())
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    assert "Traceback" not in server.log.read_text().removeprefix(before)


def test_garbage_on_the_wire_does_not_end_the_server(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for garbage in (
        b"\x16\x03\x01",
        b"POST /v1/messages HTTP/1.1\r\ncontent-length: 100\r\n\r\n{",
        b"GET / HTTP/9\r\n\r\n",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(garbage)
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def test_a_small_request_does_not_wait_behind_large_ones(server: Server) -> None:
    def large(i: int) -> dict[str, Any]:
        return GOOD | {"messages": [{"role": "user", "content": f"word{i} " * 90_000}]}

    finished: list[str] = []

    def send(name: str, body: dict[str, Any]) -> None:
        response = post(server, body, "/v1/messages/count_tokens")
        assert response.status_code == 200
        finished.append(name)

    threads = [threading.Thread(target=send, args=(f"large {i}", large(i))) for i in range(8)]
    for thread in threads:
        thread.start()
    while not finished:  # one large one is done, the others are there
        time.sleep(0.01)
    send("small", {"model": "m", "messages": GOOD["messages"]})
    for thread in threads:
        thread.join()
    assert finished.index("small") < 4
