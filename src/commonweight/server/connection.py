"""HTTP connections with timeouts and memory limits for slow clients.

Uvicorn bounds neither a request's head, nor the time in which a request arrives, nor that in which an answer is
read: whoever sends or reads a byte now and then could keep a connection, memory and the engine's work for as long
as they like, and a thousand of them the whole server. What is refused here, before there is a request, is told in
the API's shape, too.

That patience grows with what moves is the rule of Apache's ``mod_reqtimeout``.
"""

import asyncio
import logging
from enum import Enum, auto
from typing import Any

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from commonweight.messages.errors import (
    ApiError,
    HeadTooLargeError,
    InvalidRequestError,
    OverloadedError,
    SlowRequestError,
)
from commonweight.messages.response import make_id

log = logging.getLogger(__name__)

MAX_HEAD_BYTES, MAX_HEAD_FIELDS = 64 * 1024, 128
"""Bytes of a request's line and header fields, and their number. Agents were seen to send 2 KB and 25."""
MAX_CONNECTIONS = 1000
"""At the same time. For one more, that goes which has asked for nothing for longest; if all have, the new one."""
MIN_BYTES_PER_SECOND = 1024
"""Bytes that renew the patience with a body, or with a reader, by a second."""
CHECK_INTERVAL_SECONDS = 1.0
"""Seconds from one look at a connection to the next."""
KEEP_ALIVE_SECONDS = 75
"""Seconds that an idle connection stays open: longer than clients keep theirs, or they would meet a closed one."""


class Wait(Enum):
    """What a connection is waiting for, with its timeout."""

    SERVER = auto()
    """The server is at work; or the connection is idle, for which uvicorn has a clock."""
    HEAD = auto()
    """The client is to send a request's head."""
    BODY = auto()
    """The client is to go on with a body."""
    READER = auto()
    """The client is to read: the system takes no more of its answer."""
    REST = auto()
    """The client is to end what it was answered without. It may look for the answer only afterwards."""


WAIT_TIMEOUT_SECONDS = {Wait.HEAD: 20.0, Wait.BODY: 60.0, Wait.READER: 60.0, Wait.REST: 20.0}
"""Seconds."""


class Connection(HttpToolsProtocol):
    """One HTTP connection, checked for progress at intervals."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._wait = Wait.SERVER
        self._left = 0.0
        """Seconds of patience."""
        self._arrived = self._unsent = 0
        """Bytes that came since the last look; that waited to be sent then."""
        self._part = Wait.SERVER
        """Where in a request its client is: HEAD, BODY, or SERVER between two."""
        self._unused = 0
        """Bytes that came since the last that were of use: what the parser may be holding."""
        self._head_size = 0
        self._problem: ApiError | None = None
        self._answering: RequestResponseCycle | None = None
        """Of several requests at once, which uvicorn queues, the one whose turn it is."""
        self._is_refused = False
        self._at_rest_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the checks, unless there are too many connections."""
        super().connection_made(transport)
        self._at_rest_since = self.loop.time()
        self._clock = self.loop.call_later(CHECK_INTERVAL_SECONDS, self._check_progress)
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the checks."""
        self._clock.cancel()
        super().connection_lost(exc)
        self._notify_disconnect()

    def data_received(self, data: bytes) -> None:
        """Parse data, within the limits."""
        if self._is_refused:
            return
        self._arrived += len(data)
        self._unused += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self._refuse(self._problem or InvalidRequestError("The request is not valid HTTP"))
        except HttpParserUpgrade:
            pass  # it was asked for, and is answered as if it had not been
        else:
            if self._unused > MAX_HEAD_BYTES:
                self._refuse(_make_too_large_error())

    def on_message_begin(self) -> None:
        """Note the start of a request."""
        super().on_message_begin()
        self._part = Wait.HEAD
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        """Add to the path."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers of chunked bodies are dropped, as they could forge headers."""
        self._grow(len(name) + len(value))
        if self._part is Wait.HEAD:
            super().on_header(name, value)
            if len(self.headers) > MAX_HEAD_FIELDS:
                self._stop_parser(_make_too_large_error())

    def on_headers_complete(self) -> None:
        """Note the end of the headers."""
        if self.parser.should_upgrade() and any(name in _BODIES for name, _ in self.headers):
            # The parser would take the body for the next request.
            self._stop_parser(InvalidRequestError("upgrade: is not supported; use plain HTTP/1.1"))
        if sum(name == b"host" for name, _ in self.headers) > 1:
            self._stop_parser(InvalidRequestError("host: the request names more than one (RFC 9112, section 3.2)"))
        self._part = Wait.BODY
        self._unused = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Add to the body."""
        self._unused = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of the request."""
        self._part = Wait.SERVER
        self._unused = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's own
        self._answering = cycle
        is_old = cycle.scope["http_version"] == "1.0"
        super()._start_asgi_task(cycle, _end_by_closing(app, cycle) if is_old else app)

    def on_response_complete(self) -> None:
        """Note the end of the response."""
        self._at_rest_since = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close at shutdown, connections that were refused, too."""
        super().shutdown()
        if self._is_refused:
            self.transport.close()

    def _grow(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD_BYTES:
            self._stop_parser(_make_too_large_error())

    def _stop_parser(self, problem: ApiError) -> None:
        """Stop the parser, by making it raise its own error."""
        self._problem = problem
        raise problem

    def _waits_for(self) -> Wait:
        if self._is_refused:
            return Wait.REST
        if self.flow.write_paused or self.transport.is_closing():
            return Wait.READER
        if self._is_at_rest:
            if self._part is Wait.BODY:
                return Wait.REST
            is_idle = self._part is Wait.SERVER and self.timeout_keep_alive_task is not None
            return Wait.SERVER if is_idle else Wait.HEAD
        return Wait.SERVER if self.flow.read_paused or self._part is Wait.HEAD else self._part

    @property
    def _is_at_rest(self) -> bool:
        """Whether every request has its response."""
        return self._answering is None or self._answering.response_complete

    def _notify_disconnect(self) -> None:
        """Notify the running request of the disconnect. Uvicorn notifies only the newest."""
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _check_progress(self) -> None:
        self._clock = self.loop.call_later(CHECK_INTERVAL_SECONDS, self._check_progress)
        unsent = self.transport.get_write_buffer_size()
        wait = self._waits_for()
        moved = {Wait.BODY: self._arrived, Wait.READER: self._unsent - unsent}.get(wait, 0)
        self._arrived, self._unsent = 0, unsent
        if wait is Wait.SERVER or wait is not self._wait:
            self._wait = wait
            self._left = WAIT_TIMEOUT_SECONDS.get(wait, 0)
            return
        self._left = min(
            self._left - CHECK_INTERVAL_SECONDS + max(moved, 0) / MIN_BYTES_PER_SECOND, WAIT_TIMEOUT_SECONDS[wait]
        )
        if self._left <= 0:
            self._give_up()

    def _give_up(self) -> None:
        if self._wait in (Wait.HEAD, Wait.BODY) and self._part is not Wait.SERVER:
            self._refuse(SlowRequestError("The request took too long to arrive"))
        else:
            self.transport.abort()

    def _refuse(self, error: ApiError) -> None:
        """Respond with an error to a malformed or incomplete request, and stop reading."""
        self._is_refused = True
        self._unset_keepalive_if_required()
        cycle = self._answering
        if cycle is not None and not cycle.response_complete:
            self._notify_disconnect()
            if cycle.response_started or not cycle.more_body:  # the error would seem the answer, or a part of it
                self.transport.abort()
                return
        request_id = make_id("req")
        log.info("refused before it was a request: %s", error.message, extra={"request_id": request_id})
        body = error.to_json(request_id)
        fields = {"content-type": "application/json", "content-length": len(body), "request-id": request_id}
        if error.retry_after is not None:
            fields["retry-after"] = error.retry_after
        head = "".join(f"{name}: {value}\r\n" for name, value in {**fields, "connection": "close"}.items())
        self.transport.write(STATUS_LINE[error.status] + head.encode() + b"\r\n" + body)
        if self.transport.can_write_eof():
            # Not closed, or a client that still sends would be reset before it reads this.
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _make_room(self) -> None:
        others = (one for one in self.connections if isinstance(one, Connection) and one is not self)
        at_rest = (one for one in others if one._is_at_rest)
        longest = min(at_rest, key=lambda one: one._at_rest_since, default=None)
        if longest is not None:
            longest.transport.abort()
        else:
            self._refuse(OverloadedError("The server has as many connections as it takes", retry_after=1))


def _end_by_closing(app: Any, cycle: RequestResponseCycle) -> Any:  # noqa: ANN401 - uvicorn's own
    """Make an application answer without chunks, which HTTP/1.0 has not: the connection's end ends the body.

    Uvicorn sends chunks wherever no length is given, and holds a body that is not chunked to its length.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        has_length = False

        async def send_plain(message: Message) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
                cycle.chunked_encoding = None if has_length else False
            elif not has_length:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plain)

    return answer


_BODIES = (b"content-length", b"transfer-encoding")


def _make_too_large_error() -> HeadTooLargeError:
    return HeadTooLargeError(
        f"the request's head is larger than {MAX_HEAD_BYTES} bytes or {MAX_HEAD_FIELDS} fields"
    )


def make_uvicorn_config(app: ASGIApp, **options: Any) -> uvicorn.Config:  # noqa: ANN401 - uvicorn's own
    """Make uvicorn's configuration to serve an application on such connections."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        **options,
    )
