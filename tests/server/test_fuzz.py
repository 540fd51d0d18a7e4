"""Whatever a client sends, the answer is the API's: never a failure of the server."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import Server
from replay import Served, replaying

SAID = [
    "Fine.",
    "",
    '<tool_call>\n{"name": "look", "arguments": {"where": "here"}}\n</tool_call>',
    '<tool_call>\n{"name": "no such tool", "arguments": ',
    'So.<cite doc="0">words</cite>',
    '<cite doc="77">words',
    "<think>Hm</think>",
    "</think>",
    "{}",
]

DESCRIBED = [status_code_conformance, content_type_conformance, response_schema_conformance]
"""The answer is one that the OpenAPI document describes."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    said = iter(range(10**9))
    with replaying(lambda prompt: SAID[next(said) % len(SAID)]) as served:
        yield served


def check(status: int, kind: str, text: str) -> None:
    assert status < 500, text
    if status != 200:
        body = json.loads(text)
        assert body["type"] == "error"
        assert body["request_id"].startswith("req_")
        assert body["error"]["message"]
    elif "event-stream" in kind:
        assert "event: error" not in text
        assert text.rstrip().endswith('data: {"type":"message_stop"}')


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_requests_made_from_the_description(served: Served, path: str) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    schema.config.max_stream_events = 100_000  # it would leave before the end, and the end is what is looked at

    @given(case=schema[path]["POST"].as_strategy())
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def fuzz(case: Any) -> None:
        case.headers = {**(case.headers or {}), "x-api-key": served.key}
        response = case.call(base_url=served.url)
        check(response.status_code, response.headers["content-type"][0], response.text)
        case.validate_response(response, checks=DESCRIBED)

    fuzz()


OTHERS = [
    ("/v1/models", "GET"),
    ("/v1/models/{model_id}", "GET"),
    ("/v1/messages/batches", "GET"),
    ("/v1/messages/batches/{batch_id}", "GET"),
    ("/v1/messages/batches/{batch_id}", "DELETE"),
    ("/v1/messages/batches/{batch_id}/cancel", "POST"),
    ("/v1/messages/batches/{batch_id}/results", "GET"),
    ("/v1/files", "POST"),
    ("/v1/files", "GET"),
    ("/v1/files/{file_id}", "GET"),
    ("/v1/files/{file_id}", "DELETE"),
    ("/v1/files/{file_id}/content", "GET"),
]


def test_every_operation_is_fuzzed(server: Server) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    described = {(path, method.upper()) for path, operations in paths.items() for method in operations}
    bodies = {(f"/v1/messages{path}", "POST") for path in ("", "/count_tokens", "/batches")}
    assert described == {*bodies, *OTHERS}


@pytest.mark.parametrize(("path", "method"), OTHERS)
def test_other_requests_made_from_the_description(server: Server, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

    @given(case=schema[path][method].as_strategy())
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def fuzz(case: Any) -> None:
        case.headers = {**(case.headers or {}), "x-api-key": server.key}
        response = case.call(base_url=server.url)
        check(response.status_code, response.headers["content-type"][0], response.text)
        case.validate_response(response, checks=DESCRIBED)

    fuzz()


LINES = [
    "--b\r\n",
    "--b--\r\n",
    "--b",
    'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n',
    'Content-Disposition: form-data; name="file"; filename="../\\0\u202e"\r\n',
    'Content-Disposition: form-data; name="expires_in_seconds"\r\n',
    'Content-Disposition: form-data; name="other"\r\n',
    "Content-Disposition: form-data; name*=utf-8''file\r\n",
    "Content-Type: application/pdf\r\n",
    "Content-Transfer-Encoding: base64\r\n",
    ": \r\n",
    "\r\n",
    "\n",
    "3600",
    "%PDF-",
    "\0",
]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.sampled_from(LINES).map(str.encode) | st.binary(max_size=8), max_size=12),
    boundary=st.sampled_from(["b", '"b"', "", "-", "b" * 70, "\xff"]) | st.just("b"),
    begins=st.booleans(),
)
def test_forms(server: Server, pieces: list[bytes], boundary: str, begins: bool) -> None:
    start = "".join([LINES[0], LINES[3], "\r\n"]).encode() if begins else b""
    headers = {b"x-api-key": server.key.encode()}
    headers[b"content-type"] = f"multipart/form-data; boundary={boundary}".encode("latin-1")
    response = httpx.post(f"{server.url}/v1/files", content=start + b"".join(pieces), headers=headers)
    check(response.status_code, response.headers["content-type"], response.text)


def test_what_the_fuzzing_uploaded_is_gone(server: Server) -> None:
    with httpx.Client(base_url=server.url, headers={"x-api-key": server.key}) as client:
        while files := client.get("/v1/files").json()["data"]:
            for file in files:
                assert client.delete(f"/v1/files/{file['id']}").status_code == 200


# Histories that a client could have had, and some that it could not

words = st.sampled_from(
    ["hi", "a b", "<|im_end|>", "</think>", "<tool_call>", "{}", " x", "\u202e", "é🙂", "\n\nok"]
)
texts = st.builds(lambda text: {"type": "text", "text": text}, words)
marks = st.sampled_from(
    [{}, {"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=6,
)
documents = st.builds(
    lambda data, enabled: {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": data},
        "citations": {"enabled": enabled},
    },
    words,
    st.booleans(),
)
calls = st.builds(
    lambda i, name, given: {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": given},
    st.integers(0, 3),
    st.sampled_from(["look", "other"]),
    st.dictionaries(words, values, max_size=2),
)
results = st.builds(
    lambda i, inner, failed: {
        "type": "tool_result",
        "tool_use_id": f"toolu_{i}",
        "content": inner,
        "is_error": failed,
    },
    st.integers(0, 3),
    words | st.lists(texts | documents | st.just({"type": "tool_reference", "tool_name": "late"}), max_size=2),
    st.booleans(),
)
reasoning = st.builds(
    lambda text, signature: {"type": "thinking", "thinking": text, "signature": signature},
    words,
    st.sampled_from(["", "foreign", "commonweight/v1/", "commonweight/v1/AAAA"]),
)
blocks = st.builds(lambda block, mark: {**block, **mark}, texts | documents | calls | results, marks) | reasoning
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": words | st.lists(blocks, max_size=3)}
)
SCHEMA = {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}
tools = st.sampled_from(
    [
        None,
        [],
        [{"name": "look", "input_schema": SCHEMA}],
        [
            {"name": "look", "input_schema": SCHEMA, "input_examples": [{"where": "there"}]},
            {"name": "late", "input_schema": {"type": "object"}, "defer_loading": True},
            {"type": "bash_20250124", "name": "bash"},
        ],
        [{"name": "look", "input_schema": {"type": "object", "properties": {"a": False}, "required": ["a"]}}],
    ]
)
choices = st.sampled_from(
    [None, {"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "look"}, {"type": "tool"}]
)
thinking = st.sampled_from(
    [None, {"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}, {"type": "between_tools"}]
)
requests = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "max_tokens": st.sampled_from([0, 1, 40, 2000]),
        "messages": st.lists(messages, min_size=1, max_size=5),
        "tools": tools,
        "tool_choice": choices,
        "thinking": thinking,
        "stream": st.booleans(),
        "system": st.none() | words | st.lists(texts, max_size=2),
        "stop_sequences": st.none() | st.lists(words, max_size=2),
        "cache_control": st.sampled_from([None, {"type": "ephemeral"}]),
        "output_config": st.sampled_from(
            [None, {"effort": "low"}, {"format": {"type": "json_schema", "schema": SCHEMA}}]
        ),
        "context_management": st.sampled_from(
            [
                None,
                {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                {
                    "edits": [
                        {"type": "clear_thinking_20251015"},
                        {
                            "type": "clear_tool_uses_20250919",
                            "trigger": {"type": "tool_uses", "value": 0},
                            "keep": {"type": "tool_uses", "value": 0},
                            "clear_tool_inputs": True,
                        },
                    ]
                },
            ]
        ),
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=requests)
def test_histories(served: Served, request: dict[str, Any]) -> None:
    body = {key: value for key, value in request.items() if value is not None}
    headers = {"x-api-key": served.key}
    answered = httpx.post(f"{served.url}/v1/messages", json=body, headers=headers)
    check(answered.status_code, answered.headers["content-type"], answered.text)
    counted = httpx.post(f"{served.url}/v1/messages/count_tokens", json=body, headers=headers)
    check(counted.status_code, counted.headers["content-type"], counted.text)
    if answered.status_code == 200 and not body["stream"]:
        usage = answered.json()["usage"]
        parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        assert counted.json()["input_tokens"] == sum(usage[part] for part in parts)


# Making up batches from their description takes schemathesis minutes.
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["m", "user", "hi"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["custom_id", "params", "requests", "model", "messages"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
items = st.fixed_dictionaries({"custom_id": st.sampled_from(["a", "b", "", "é", "x" * 65]) | junk, "params": junk})
batches = st.fixed_dictionaries({"requests": st.lists(items | junk, max_size=4)}) | junk


def test_batches(server: Server) -> None:
    client = httpx.Client(base_url=server.url, headers={"x-api-key": server.key})

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(body=batches, cut=st.integers(0, 60) | st.just(0))
    def fuzz(body: Any, cut: int) -> None:
        content = json.dumps(body).encode()
        response = client.post("/v1/messages/batches", content=content[: len(content) - cut])
        check(response.status_code, response.headers["content-type"], response.text)

    with client:
        fuzz()


def test_the_batches_of_the_fuzzing_end(server: Server) -> None:
    with httpx.Client(base_url=server.url, headers={"x-api-key": server.key}) as client:
        for batch in client.get("/v1/messages/batches?limit=1000").json()["data"]:
            client.post(f"/v1/messages/batches/{batch['id']}/cancel")
            while client.get(f"/v1/messages/batches/{batch['id']}").json()["processing_status"] != "ended":
                time.sleep(0.02)
