"""Nothing that a client says makes the server connect to anywhere."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from huggingface_hub import constants

from replay import KEY, Served, replaying


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with replaying(lambda _: "Fine.") as served:
        yield served


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """Who would be connected to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def requests(url: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Each names the URL somewhere; and the status that it is answered with."""
    for kind in ("image", "document"):
        block = {"type": kind, "source": {"type": "url", "url": url}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [block]}
        call = {"type": "tool_use", "id": "toolu_1", "name": "t", "input": {}}
        yield {"messages": [{"role": "user", "content": [block]}]}, 400
        yield (
            {
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": [call]},
                    {"role": "user", "content": [result]},
                ]
            },
            400,
        )
    yield {"mcp_servers": [{"type": "url", "url": url, "name": "far"}]}, 400
    for tool in ("web_fetch_20250910", "web_search_20250305"):
        yield {"tools": [{"type": tool, "name": tool.rpartition("_")[0]}]}, 400
    # Text, whatever it looks like.
    found = {"type": "search_result", "source": url, "title": url, "content": [{"type": "text", "text": url}]}
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": url},
        "title": url,
    }
    yield {"messages": [{"role": "user", "content": [found, document, {"type": "text", "text": url}]}]}, 200
    schema = {"type": "object", "$schema": url, "properties": {"a": {"type": "string", "format": "uri"}}}
    yield {"tools": [{"name": "t", "input_schema": schema}]}, 200
    # Names of models are only read on the command line.
    yield {"model": "hf:org/repo/file.gguf"}, 200
    yield {"model": "hf:org/repo:Q4_K_M"}, 200
    yield {"model": url}, 200


def test_urls_are_not_followed(served: Served, elsewhere: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/x"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    for change, status in requests(url):
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]} | change
            answer = httpx.post(served.url + path, json=body, headers={"x-api-key": KEY})
            assert answer.status_code == status, (change, answer.text)
    with contextlib.suppress(BlockingIOError):
        elsewhere.accept()
        pytest.fail("somebody connected")


def test_schemas_are_not_fetched(served: Served, elsewhere: socket.socket) -> None:
    url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/schema.json"
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        "output_config": {"format": {"type": "json_schema", "schema": {"$ref": url}}},
    }
    answer = httpx.post(f"{served.url}/v1/messages", json=body, headers={"x-api-key": KEY})
    assert answer.status_code == 400
    with contextlib.suppress(BlockingIOError):
        elsewhere.accept()
        pytest.fail("somebody connected")
