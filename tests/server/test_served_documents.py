"""Documents sent to a served model: what breaks their parser costs one request."""

import base64
import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from conftest import Server
from pdf_files import MEMORY_BOMBS, pdf, slow_pdf

PATHS = ["/v1/messages", "/v1/messages/count_tokens"]
BOMB = MEMORY_BOMBS["a form that lists itself"]


def body(data: bytes, within_result: bool = False, **fields: Any) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(data).decode()}
    content: list[dict[str, Any]] = [{"type": "document", "source": source}]
    messages = [{"role": "user", "content": content}]
    if within_result:
        call = {"type": "tool_use", "id": "a", "name": "read", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "a", "content": content}
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "Read."}]},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
    return {"model": "m", "messages": messages, **fields}


def post(server: Server, body: dict[str, Any], path: str = PATHS[1]) -> httpx.Response:
    return httpx.post(server.url + path, json=body, headers={"x-api-key": server.key}, timeout=100)


def count_parsers(server: Server) -> int:
    count = 0
    for child in psutil.Process(server.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            count += any("documents/worker.py" in part for part in child.cmdline())
    return count


@pytest.mark.parametrize("within_result", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_lists_itself_is_a_400(server: Server, path: str, within_result: bool) -> None:
    fields = {"max_tokens": 1, "stream": True} if path == PATHS[0] else {}
    response = post(server, body(BOMB, within_result, **fields), path)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert "The PDF specified was not valid: reading it takes too much memory" in error["message"]


def test_the_servers_memory_stays_as_it_was(server: Server) -> None:
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda data: post(server, body(data)).status_code, MEMORY_BOMBS.values()))
    assert set(answers) <= {200, 400}
    assert process.memory_info().rss < before + 200 * 2**20
    assert count_parsers(server) == 0


def test_a_document_does_not_wait_for_those_that_take_long(server: Server) -> None:
    finished: list[str] = []

    def send(name: str, data: bytes) -> None:
        assert post(server, body(data)).status_code in (200, 400)
        finished.append(name)

    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(send, "slow", slow_pdf(40)) for _ in range(2)]
        while count_parsers(server) < 2 and not finished:
            time.sleep(0.01)
        pool.submit(send, "plain", pdf("Hello.")).result()
        for each in slow:
            each.result()
    assert finished == ["plain", "slow", "slow"]


def test_a_parser_ends_with_its_client(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    content = json.dumps(body(slow_pdf(600))).encode()
    head = f"POST {PATHS[1]} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {server.key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + content)
        while count_parsers(server) == 0:
            time.sleep(0.01)
    while count_parsers(server):
        time.sleep(0.01)
