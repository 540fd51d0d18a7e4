"""Server-sent events: frames, pings, errors within the stream, cancellation on disconnect."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from commonweight.messages.errors import ApiError
from commonweight.messages.events import Ping, StreamEvent
from commonweight.server.request_log import record_error

log = logging.getLogger(__name__)

PING_INTERVAL_SECONDS = 10.0
"""Seconds of silence before a ping. Clients give up on streams that are silent for minutes."""
FIRST_PING_SECONDS = 0.5
"""Seconds before the first ping if nothing else came: without headers, clients and proxies see no answer."""

ResultT = TypeVar("ResultT")


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Await ``work``, and cancel it if the client disconnects first.

    Raises:
        ClientDisconnect: it did.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def format_event(event: StreamEvent) -> bytes:
    """Format an event: its name and one line of JSON."""
    return f"event: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


class EventSourceResponse(Response):
    """Streams events, and closes their iterator in the end.

    Frames that are ready together travel together: every write wakes the client, often on the very cores that
    compute the next token. The status line waits for the first event or the first ping, so that a failure before
    either is still an ordinary error answer, which clients know how to retry.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[StreamEvent], request_id: str) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._request_id = request_id
        self._is_started = False
        self._frames: list[bytes] = []
        self._news = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop when the client goes away."""
        with contextlib.suppress(ClientDisconnect):
            await cancel_on_disconnect(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        reading = asyncio.ensure_future(self._read())
        reading.add_done_callback(lambda _: self._news.set())
        try:
            while not reading.done() or self._frames:
                await self._send(send, await self._read_frames())
            await reading
        except Exception as error:
            if not self._is_started:
                raise
            await self._send(send, self._make_error_frame(error))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read(self) -> None:
        async with contextlib.aclosing(self._events) as events:
            async for event in events:
                self._frames.append(format_event(event))
                self._news.set()

    async def _read_frames(self) -> bytes:
        """Read the frames that are ready; a ping after a long silence; nothing at the end."""
        silence = PING_INTERVAL_SECONDS if self._is_started else FIRST_PING_SECONDS
        try:
            async with asyncio.timeout(silence):
                await self._news.wait()
        except TimeoutError:
            return format_event(Ping())
        self._news.clear()
        frames, self._frames = b"".join(self._frames), []
        return frames

    async def _send(self, send: Send, data: bytes) -> None:
        if not data:
            return
        if not self._is_started:
            self._is_started = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def _make_error_frame(self, error: Exception) -> bytes:
        if not isinstance(error, ApiError):
            log.error("a stream failed", exc_info=error)
            error = ApiError("Internal server error")
        record_error(error.type)
        return b"event: error\ndata: " + error.to_json(self._request_id) + b"\n\n"
