"""Bodies take bounded memory, however many come at once."""

import asyncio
import json
from typing import Any

import pytest
from fastapi import Request

from commonweight.messages.errors import InvalidRequestError, OverloadedError, RequestTooLargeError
from commonweight.messages.request import CountTokensRequest
from commonweight.server import body as bodies
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

    async def read(self, reader: BodyReader) -> CountTokensRequest:
        request = Request({"type": "http", "method": "POST", "headers": []}, self._receive)
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
