"""A corpus of what no client should send, over raw sockets: never a 500, and the next request is answered."""

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from replay import KEY, Served, replaying

BODY = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
POST = b"POST /v1/messages HTTP/1.1\r\n"
FIELDS = b"host: 127.0.0.1\r\nx-api-key: %s\r\nconnection: close\r\n" % KEY.encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with replaying(lambda _: "Fine.") as served:
        yield served


def said(served: Served, data: bytes) -> bytes:
    """All that the server says to it, until it ends the connection."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def answers(received: bytes) -> list[tuple[int, Any]]:
    """Status and body of each answer. All are framed as HTTP/1.1 has it, and errors have the API's shape."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status = int(re.match(rb"HTTP/1\.1 (\d{3}) ", head)[1])  # type: ignore[index]
        if status == 100:
            continue
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"content-length"])
        body, received = json.loads(received[:size]), received[size:]
        if status != 200:
            assert body["type"] == "error"
            assert body["request_id"].lower().encode() == fields[b"request-id"]
            assert body["error"]["message"]
        found.append((status, body))
    return found


def asked(served: Served, data: bytes) -> list[int]:
    """The statuses of its answers. Afterwards the server answers a good request."""
    statuses = [status for status, _ in answers(said(served, data))]
    [(status, message)] = answers(said(served, POST + FIELDS + LENGTH + b"\r\n" + BODY))
    assert (status, message["content"][0]["text"]) == (200, "Fine.")
    return statuses


REQUESTS: dict[str, tuple[bytes, list[int]]] = {
    "no request line": (b"\0\1\2\3\r\n\r\n", [400]),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), [400]),
    "one word": (b"NONSENSE\r\n\r\n", [400]),
    "an unknown method": (b"FETCH /v1/models HTTP/1.1\r\n" + FIELDS + b"\r\n", [400]),
    "an unusual method": (b"TRACE /v1/models HTTP/1.1\r\n" + FIELDS + b"\r\n", [405]),
    "a tunnel": (b"CONNECT evil.example:80 HTTP/1.1\r\n" + FIELDS + b"\r\n", [400]),
    "everything": (b"OPTIONS * HTTP/1.1\r\n" + FIELDS + b"\r\n", [404]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "HTTP/9": (POST.replace(b"1.1", b"9.9") + FIELDS + LENGTH + b"\r\n" + BODY, [400]),
    "HTTP/1.0": (POST.replace(b"1.1", b"1.0") + FIELDS + LENGTH + b"\r\n" + BODY, [200]),
    "a whole URL": (b"GET http://evil.example/v1/models HTTP/1.1\r\n" + FIELDS + b"\r\n", [200]),
    "bytes in the path": (b"GET /v1/models/\xff\xfe HTTP/1.1\r\n" + FIELDS + b"\r\n", [400]),
    "quoted bytes in the path": (b"GET /v1/models/%ff%fe%00 HTTP/1.1\r\n" + FIELDS + b"\r\n", [404]),
    "a surrogate in the path": (b"GET /v1/models/%ed%a0%80 HTTP/1.1\r\n" + FIELDS + b"\r\n", [404]),
    "a way up": (b"GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1\r\n" + FIELDS + b"\r\n", [404]),
    "bytes in the query": (b"GET /v1/models?limit=%ff HTTP/1.1\r\n" + FIELDS + b"\r\n", [400]),
    "NUL in the query": (b"GET /v1/models?after_id=%00 HTTP/1.1\r\n" + FIELDS + b"\r\n", [400]),
    "two hosts": (b"GET /v1/models HTTP/1.1\r\nhost: a\r\n" + FIELDS + b"\r\n", [400]),
    "a host twice": (b"GET /v1/models HTTP/1.1\r\nHOST: 127.0.0.1\r\n" + FIELDS + b"\r\n", [400]),
    "a host that is none": (
        b"GET /v1/models HTTP/1.1\r\n" + FIELDS.replace(b"127.0.0.1", b"[::1") + b"\r\n",
        [200],
    ),
    "NUL in a field": (POST + FIELDS + b"a: b\0c\r\n" + LENGTH + b"\r\n" + BODY, [400]),
    "bytes in a field": (POST + FIELDS + b"a: \xff\xfe\r\n" + LENGTH + b"\r\n" + BODY, [200]),
    "bytes in a version": (POST + FIELDS + b"anthropic-version: \xff\r\n" + LENGTH + b"\r\n" + BODY, [400]),
    "bytes in a key": (
        POST + b"host: a\r\nconnection: close\r\nx-api-key: \xff\r\n" + LENGTH + b"\r\n" + BODY,
        [401],
    ),
    "a folded field": (POST + FIELDS + b"a: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY, [400]),
    "a space before a colon": (POST + FIELDS + LENGTH.replace(b":", b" :") + b"\r\n" + BODY, [400]),
    "lines without returns": ((POST + FIELDS + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY, [400]),
    "no length": (POST + FIELDS + b"\r\n", [400]),
    "a negative length": (POST + FIELDS + b"content-length: -1\r\n\r\n" + BODY, [400]),
    "a signed length": (POST + FIELDS + b"content-length: +%d\r\n\r\n" % len(BODY) + BODY, [400]),
    "a length beyond 64 bits": (POST + FIELDS + b"content-length: " + b"9" * 40 + b"\r\n\r\n", [400]),
    "two lengths": (POST + FIELDS + LENGTH + b"content-length: 3\r\n\r\n" + BODY, [400]),
    "a length and chunks": (POST + FIELDS + LENGTH + CHUNKED + b"\r\n0\r\n\r\n", [400]),
    "chunks and a length": (POST + FIELDS + CHUNKED + LENGTH + b"\r\n0\r\n\r\n", [400]),
    "another encoding": (POST + FIELDS + b"transfer-encoding: gzip\r\n\r\n" + BODY, [400]),
    "chunks inside another encoding": (
        POST + FIELDS + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        [400],
    ),
    "good chunks": (POST + FIELDS + CHUNKED + b"\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), [200]),
    "a chunk without a size": (POST + FIELDS + CHUNKED + b"\r\nzz\r\n" + BODY, [400]),
    "a chunk of a negative size": (POST + FIELDS + CHUNKED + b"\r\n-5\r\n" + BODY, [400]),
    "a chunk beyond 64 bits": (POST + FIELDS + CHUNKED + b"\r\n" + b"f" * 17 + b"\r\n" + BODY, [400]),
    "a chunk longer than its size": (POST + FIELDS + CHUNKED + b"\r\n3\r\n" + BODY, [400]),
    "a key behind the body": (
        POST
        + b"host: a\r\nconnection: close\r\n"
        + CHUNKED
        + b"\r\n%x\r\n%s\r\n0\r\nx-api-key: %s\r\n\r\n" % (len(BODY), BODY, KEY.encode()),
        [401],
    ),
    "an upgrade with a body": (
        POST + FIELDS.replace(b"close", b"upgrade") + b"upgrade: h2c\r\n" + LENGTH + b"\r\n" + BODY,
        [400],
    ),
    "a request inside a body": (
        POST
        + FIELDS.replace(b"close", b"upgrade")
        + b"upgrade: h2c\r\ncontent-length: 999\r\n\r\n"
        + b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n",
        [400],
    ),
    "three at once": (
        (POST + FIELDS.replace(b"close", b"x") + LENGTH + b"\r\n" + BODY) * 2
        + POST
        + FIELDS
        + LENGTH
        + b"\r\n"
        + BODY,
        [200, 200, 200],
    ),
    "a good one and nonsense": (b"GET /health HTTP/1.1\r\n\r\nNONSENSE\r\n\r\n", []),
    "a question before the body": (POST + FIELDS + b"expect: 100-continue\r\n" + LENGTH + b"\r\n" + BODY, [200]),
    "gzip": (POST + FIELDS + b"content-encoding: gzip\r\n" + LENGTH + b"\r\n" + BODY, [400]),
    "several encodings": (POST + FIELDS + b"content-encoding: identity, br\r\n" + LENGTH + b"\r\n" + BODY, [415]),
    "another type": (POST + FIELDS + b"content-type: text/xml\r\n" + LENGTH + b"\r\n" + BODY, [200]),
    "a type that is none": (POST + FIELDS + b"content-type: \xff;=;\r\n" + LENGTH + b"\r\n" + BODY, [200]),
    "a form without a boundary": (
        POST.replace(b"messages", b"files")
        + FIELDS
        + b"content-type: multipart/form-data\r\n"
        + LENGTH
        + b"\r\n"
        + BODY,
        [404],  # this server has no files
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(served: Served, name: str) -> None:
    data, statuses = REQUESTS[name]
    assert asked(served, data) == statuses


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "NaN": (BODY.replace(b"9", b"NaN"), 400),
    "infinity": (BODY.replace(b"9", b"Infinity"), 400),
    "beyond doubles": (BODY.replace(b"9", b"1e999"), 400),
    "thousands of digits": (BODY.replace(b"9", b"9" * 5000), 400),
    "hundreds of digits": (BODY.replace(b"9", b"9" * 300), 400),
    "64 bits": (BODY.replace(b"9", b"%d" % 2**63), 400),
    "63 bits": (BODY.replace(b"9", b"%d" % (2**63 - 1)), 200),
    "a whole number with a point": (BODY.replace(b"9", b"9.0"), 200),
    "a whole number with an exponent": (BODY.replace(b"9", b"1e1"), 200),
    "a fraction": (BODY.replace(b"9", b"9.5"), 400),
    "minus zero": (BODY.replace(b"9", b"-0.0"), 200),
    "a key twice": (BODY.replace(b"9", b'9,"max_tokens":1'), 200),
    "a lone surrogate": (BODY.replace(b"hi", b"\\ud800"), 400),
    "a pair of surrogates": (BODY.replace(b"hi", b"\\ud83d\\ude00"), 200),
    "surrogates as UTF-8": (BODY.replace(b"hi", b"\xed\xa0\x80"), 400),
    "bytes that are no UTF-8": (BODY.replace(b"hi", b"\xff"), 400),
    "UTF-8 that is too long": (BODY.replace(b"hi", b"\xc0\x80"), 400),
    "NUL, escaped": (BODY.replace(b"hi", b"\\u0000"), 200),
    "NUL": (BODY.replace(b"hi", b"\0"), 400),
    "a noncharacter": (BODY.replace(b"hi", b"\\uffff\\ufdd0"), 200),
    "a mark of byte order": (b"\xef\xbb\xbf" + BODY, 400),
    "UTF-16": (BODY.decode().encode("utf-16"), 400),
    "much after it": (BODY + b"{}", 400),
    "a comma too many": (BODY[:-1] + b",}", 400),
    "a comment": (BODY[:-1] + b"/**/}", 400),
    "deep lists": (BODY[:-1] + b',"metadata":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    "deep objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
    "a deep schema": (
        BODY[:-1]
        + b',"tools":[{"name":"t","input_schema":{"type":"object","properties":'
        + b'{"a":{"properties":' * 90
        + b"{}"
        + b"}}" * 90
        + b"}}]}",
        200,
    ),
    "a large schema": (
        BODY[:-1]
        + b',"tools":[{"name":"t","input_schema":{"type":"object","description":"%s"}}]}' % (b"x" * 300_000),
        400,
    ),
}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"x-api-key": KEY}, timeout=60) as client:
        yield client


@pytest.mark.parametrize("name", BODIES)
def test_bodies(client: httpx.Client, name: str) -> None:
    body, status = BODIES[name]
    answer = client.post("/v1/messages", content=body)
    assert answer.status_code == status, answer.text
    if status == 400:
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert client.get("/health").status_code == 200


# HTTP/1.0, which knows no chunks

STREAM = BODY[:-1] + b',"stream":true}'
OLD_POST = b"POST /v1/messages HTTP/1.0\r\n" + FIELDS + b"content-length: %d\r\n\r\n"


def test_a_stream_to_a_client_of_http_1_0_ends_with_its_connection(served: Served) -> None:
    answer = said(served, OLD_POST % len(STREAM) + STREAM)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body.startswith((b"event: message_start\ndata: {", b"event: ping\ndata: {"))
    assert body.endswith(b'data: {"type":"message_stop"}\n\n')
    assert body.count(b"\n\n") == body.count(b"event: ")


def test_answers_with_a_length_have_it_in_http_1_0_too(served: Served) -> None:
    [(status, message)] = answers(said(served, OLD_POST % len(BODY) + BODY))
    assert (status, message["content"][0]["text"]) == (200, "Fine.")
    [(status, _)] = answers(said(served, OLD_POST % 2 + b"{}"))
    assert status == 400


def test_http_1_1_has_chunks(served: Served) -> None:
    answer = said(served, (OLD_POST % len(STREAM) + STREAM).replace(b"HTTP/1.0", b"HTTP/1.1"))
    assert b"transfer-encoding: chunked" in answer


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"//v1/messages", 200),
        (b"///v1/messages", 200),
        (b"/v1/messages/", 200),
        (b"//v1/messages//?beta=true", 200),
        (b"//v1/messages/count_tokens/", 200),
        (b"/v1//messages", 404),
        (b"//", 404),
        (b"/v1/", 404),
    ],
)
def test_slashes_of_base_urls(served: Served, path: bytes, status: int) -> None:
    post = POST.replace(b"/v1/messages", path) + FIELDS + LENGTH + b"\r\n" + BODY
    assert asked(served, post) == [status]
