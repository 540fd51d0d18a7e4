"""What is uploaded as a batch: the requests in it, or what is wrong with them, however it is cut into pieces."""

import io
import json
import resource
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import params, request, requests
from commonweight.batches import upload
from commonweight.batches.upload import read_requests
from commonweight.messages.batches import MAX_REQUESTS
from commonweight.messages.errors import ApiError, InvalidRequestError, RequestTooLargeError


def read(body: object) -> list[tuple[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [(one.custom_id, one.params) for one in read_requests(io.BytesIO(data))]


def problem(body: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        read(body)
    return caught.value.message


def test_requests_are_read_as_they_are() -> None:
    assert [custom_id for custom_id, _ in read({"requests": requests(3)})] == ["r-0", "r-1", "r-2"]
    assert (
        len(read(b' \n{ "x" : [1, {}] ,\t"requests" : [ ' + json.dumps(request("a")).encode() + b" ] }\r\n")) == 1
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The request body is not valid JSON: Expecting value at character 0"),
        (b"nonsense", "The request body is not valid JSON"),
        ([], "Input should be an object"),
        ({}, "requests: Field required"),
        ({"requests": {}}, "requests: Input should be a valid list"),
        ({"requests": []}, "requests: List should have at least 1 item"),
        ({"requests": [1]}, "requests.0: Input should be an object"),
        ({"requests": [{"params": {}}]}, "requests.0.custom_id: Field required"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0.params: Field required"),
        ({"requests": [request("a b")]}, "requests.0.custom_id: String should match pattern"),
        ({"requests": [request("a" * 65)]}, "requests.0.custom_id: String should"),
        ({"requests": [request("a"), request("a")]}, "requests.1.custom_id: Must be unique within the batch"),
        ({"requests": [request("a", stream=True)]}, "requests.0.params.stream: streaming is not supported"),
        ({"requests": [request("a", max_tokens=0)]}, "requests.0.params.max_tokens: Input should be greater than"),
        (b'{"requests": [', "The request body is not valid JSON"),
        (b'{"requests": [{}', "requests.0.custom_id: Field required"),
        (b'{"requests": 1, "requests": 2}', "requests: Input should be a valid list"),
        (b'{"a": 1', "The request body is not valid JSON: expected ','"),
        (b'{"a": 1} x', "expected the end at character 9"),
        (b"{1: 2}", "expected a name"),
        (b'{"a": NaN}', "NaN is not allowed"),
        (b'{"a": "\xff"}', "in UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "The request body is not valid JSON: Exceeds the limit"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"requests": [' + b'{"a":' * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(body: object, words: str) -> None:
    assert words in problem(body)


def test_the_list_is_given_once() -> None:
    body = json.dumps({"requests": requests(1)}).encode()
    assert problem(body[:-1] + b', "requests": []}') == "requests: given more than once"


def test_one_request_may_be_as_long_as_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_VALUE_CHARACTERS", 3000)
    monkeypatch.setattr(upload, "READ_CHUNK_BYTES", 100)
    assert len(read({"requests": [request(str(i), text="x" * 2000) for i in range(5)]})) == 5
    with pytest.raises(RequestTooLargeError, match=r"requests\.2: Request exceeds the maximum size"):
        read({"requests": [*requests(2), request("long", text="x" * 4000)]})


class Pieces(io.RawIOBase):
    """Gives what it has in pieces of given sizes, whatever is asked for."""

    def __init__(self, data: bytes, sizes: Iterator[int]) -> None:
        self._data, self._sizes = io.BytesIO(data), sizes

    def read(self, size: int = -1) -> bytes:
        return self._data.read(next(self._sizes, size))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(st.integers(1, 40), max_size=40), st.booleans())
def test_how_it_is_cut_does_not_matter(values: list[Any], sizes: list[int], ascii_only: bool) -> None:
    wanted = [(f"id-{i}", params(metadata=value)) for i, value in enumerate(values)]
    body = {"more": values, "requests": [{"custom_id": name, "params": inner} for name, inner in wanted]}
    data = json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = read_requests(Pieces(data, iter(sizes)))  # type: ignore[arg-type]
    assert [(one.custom_id, one.params) for one in found] == wanted


@settings(max_examples=300)
@given(st.data())
def test_no_bytes_do_more_than_be_wrong(data: st.DataObject) -> None:
    body = bytearray(json.dumps({"a": [1.5, None], "requests": requests(2)}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        list(read_requests(Pieces(bytes(body), iter(data.draw(st.lists(st.integers(1, 20), max_size=9))))))  # type: ignore[arg-type]
    except ApiError as error:
        assert error.status == 400


class Many(io.RawIOBase):
    """The body of a batch with very many requests, made while it is read."""

    def __init__(self, number: int) -> None:
        self._parts = self._made(number)

    def _made(self, number: int) -> Iterator[bytes]:
        yield b'{"requests":['
        for i in range(number):
            yield (b"," if i else b"") + json.dumps(request(f"id-{i}")).encode()
        yield b"]}"

    def read(self, size: int = -1) -> bytes:
        data = b""
        while len(data) < 100_000 and (part := next(self._parts, b"")):
            data += part
        return data


def test_as_many_as_may_be_take_little_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len([1 for _ in read_requests(Many(MAX_REQUESTS))]) == MAX_REQUESTS  # type: ignore[arg-type]
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 60e6
    with pytest.raises(InvalidRequestError, match="at most 100000 items after validation, not 100001"):
        list(read_requests(Many(MAX_REQUESTS + 1)))  # type: ignore[arg-type]
