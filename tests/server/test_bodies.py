"""Bodies take bounded memory, however many come at once."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from fastapi import Request

from commonweight.messages.errors import (
    InvalidRequestError,
    OverloadedError,
    RequestTooLargeError,
    UnsupportedEncodingError,
)
from commonweight.messages.request import CountTokensRequest
from commonweight.server import body as bodies
from commonweight.server import body_stream
from commonweight.server.body import BodyReader

GOOD = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi " * 1000}]}).encode()


class Upload:
    """A request whose body comes when the test says."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()

    async def _receive(self) -> dict[str, Any]:
        piece, more = await self._pieces.get()
        return {"type": "http.request", "body": piece, "more_body": more}

    def send(self, piece: bytes, *, is_last: bool = False) -> None:
        self._pieces.put_nowait((piece, not is_last))

    async def read(self, reader: BodyReader, encoding: str = "identity") -> CountTokensRequest:
        headers = [(b"content-encoding", encoding.encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, self._receive)
        async with reader.read(request, CountTokensRequest) as (model, _):
            return model


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> BodyReader:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 10_000)
    monkeypatch.setattr(bodies, "MAX_DRAINED_BYTES", 40_000)
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 20_000)
    return BodyReader()


async def begun(reader: BodyReader, size: int) -> tuple[Upload, asyncio.Task[CountTokensRequest]]:
    """One whose first bytes were read."""
    upload = Upload()
    task = asyncio.create_task(upload.read(reader))
    held = reader._held
    upload.send(GOOD[:size])
    while reader._held < held + size:
        await asyncio.sleep(0)
    return upload, task


async def test_more_than_all_may_have_together_is_refused_until_there_is_room(reader: BodyReader) -> None:
    size = len(GOOD) - 1
    uploads = [await begun(reader, size) for _ in range(20_000 // size)]
    one_more = Upload()
    one_more.send(GOOD, is_last=True)
    with pytest.raises(OverloadedError) as refused:
        await one_more.read(reader)
    assert refused.value.retry_after
    for upload, task in uploads:
        upload.send(GOOD[size:], is_last=True)
        assert (await task).model == "m"
    assert reader._held == 0
    one_more.send(GOOD, is_last=True)
    assert (await one_more.read(reader)).model == "m"


async def test_whatever_becomes_of_a_body_its_room_is_given_back(reader: BodyReader) -> None:
    _, left = await begun(reader, 100)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    upload, task = await begun(reader, 100)
    upload.send(b"not json", is_last=True)
    with pytest.raises(InvalidRequestError):
        await task
    upload, task = await begun(reader, 100)
    for _ in range(12):
        upload.send(bytes(1000))
    upload.send(b"", is_last=True)
    with pytest.raises(RequestTooLargeError):
        await task
    assert reader._held == 0


# Bodies that are compressed


async def unpacked(
    reader: BodyReader, data: bytes, step: int = 100_000, encoding: str = "gzip"
) -> CountTokensRequest:
    upload = Upload()
    for start in range(0, len(data), step):
        upload.send(data[start : start + step])
    upload.send(b"", is_last=True)
    return await upload.read(reader, encoding)


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("chunk", [1, 64, len(GOOD), 2**20])
async def test_gzip_is_read(reader: BodyReader, monkeypatch: pytest.MonkeyPatch, step: int, chunk: int) -> None:
    monkeypatch.setattr(body_stream, "MAX_CHUNK_BYTES", chunk)
    read = await unpacked(reader, gzip.compress(GOOD), step)
    assert read == CountTokensRequest.model_validate_json(GOOD)
    assert reader._held == 0


@pytest.mark.parametrize("encoding", ["x-gzip", "GZIP", "identity, gzip"])
async def test_gzip_by_other_names(reader: BodyReader, encoding: str) -> None:
    assert (await unpacked(reader, gzip.compress(GOOD), encoding=encoding)).model == "m"


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "compress", "gzip, gzip", "gzip, br"])
async def test_other_encodings_are_refused(reader: BodyReader, encoding: str) -> None:
    with pytest.raises(UnsupportedEncodingError) as refused:
        await unpacked(reader, GOOD, encoding=encoding)
    assert refused.value.status == 415
    assert encoding in refused.value.message
    assert refused.value.details == {"error_code": "request_body_encoding_unsupported"}


@pytest.mark.parametrize("size", [10_001, 100_000, 5_000_000])
async def test_what_is_too_large_once_it_is_decompressed_is_refused(reader: BodyReader, size: int) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(min(2**20, size - start))) for start in range(0, size, 2**20))
    with pytest.raises(RequestTooLargeError) as refused:
        await unpacked(reader, bomb + packer.flush())
    assert refused.value.details == {"error_code": "request_body_too_large_after_decoding"}
    assert reader._held == 0


async def test_compressed_bodies_are_limited_as_they_are_sent_too(reader: BodyReader) -> None:
    nothing = b"\0\0\0\xff\xff"  # a block of no bytes
    head = gzip.compress(b"")[:10]
    with pytest.raises(RequestTooLargeError):
        await unpacked(reader, head + nothing * 3000, step=1000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD,
        gzip.compress(GOOD)[:-1],
        gzip.compress(GOOD)[:40],
        gzip.compress(GOOD)[:-8] + bytes(8),
        gzip.compress(GOOD) + b"x",
        gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]),
        zlib.compress(GOOD),
    ],
)
async def test_what_is_no_gzip_is_refused(reader: BodyReader, data: bytes) -> None:
    for step in (1, 100_000):
        with pytest.raises(InvalidRequestError) as refused:
            await unpacked(reader, data, step)
        assert refused.value.details == {"error_code": "request_body_encoding_invalid"}
    assert reader._held == 0
