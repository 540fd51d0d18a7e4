"""HTTP client of one upstream server, with a health state and a circuit breaker."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec

from commonweight.engines.remote.backend import (
    Backend,
    Chunk,
    RequestRejectedError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamError,
)

CONNECT_TIMEOUT_SECONDS = 5.0
"""Seconds until an upstream that accepts no connection counts as unreachable."""
MAX_LINE_BYTES = 1 << 20
"""Maximum of bytes in a line of a stream. Lines with a token or two have some hundred."""
KEEP_ALIVE_SECONDS = 3.0
"""Seconds that a connection is kept for the next request: fewer than the 5 after which vLLM closes it."""
MAX_CONSECUTIVE_FAILURES = 3
"""Failures in a row that open the circuit for a second, and for twice as long after each further one..."""
MAX_CIRCUIT_OPEN_SECONDS = 30.0
"""... but never for more seconds than this."""
_MAX_ERROR_BYTES = 500
_CONTROL_TIMEOUT = aiohttp.ClientTimeout(total=2 * CONNECT_TIMEOUT_SECONDS)


class Upstream:
    """Server at a URL. After some failures in a row its circuit opens: it gets no requests for a while."""

    def __init__(self, url: str, key: str | None, read_timeout: float) -> None:
        self.url = url.rstrip("/")
        self.backend: Backend | None = None
        """Adapter of its API; None: not discovered yet, or it does not match."""
        self.running = 0
        """Our jobs in progress there."""
        self._salts: set[str] = set()
        self.is_alive = True
        """Result of the last health check."""
        self.last_error = ""
        """Last logged reason for not using it."""
        self._read_timeout = read_timeout
        self._now = time.monotonic
        self._failures = 0
        self._out_until = 0.0
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._client = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=read_timeout
            ),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        )

    @property
    def is_available(self) -> bool:
        """Whether to send it jobs."""
        return self.backend is not None and self.is_alive and self._now() >= self._out_until

    def has_single_tenant(self, salt: str) -> bool:
        """Whether all jobs so far had this salt."""
        if len(self._salts) < 2:
            self._salts.add(salt)
        return self._salts == {salt}

    def record_failure(self) -> None:
        """Count a failure, and open the circuit after several in a row."""
        self._failures += 1
        if self._failures >= MAX_CONSECUTIVE_FAILURES:
            self._out_until = self._now() + min(
                2.0 ** (self._failures - MAX_CONSECUTIVE_FAILURES), MAX_CIRCUIT_OPEN_SECONDS
            )

    def mark_unreachable(self) -> None:
        """Mark unreachable; rediscover its API before using it again."""
        self.is_alive = False
        self.backend = None

    def record_success(self) -> None:
        """Reset the count of failures."""
        self._failures = 0

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """GET a JSON document.

        Raises:
            UpstreamError: the request failed, or the response is no JSON.
        """
        return await self._json("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """POST a JSON body; returns the JSON response.

        Raises:
            UpstreamError: the request failed, or the response is no JSON.
        """
        return await self._json("POST", path, body)

    async def check_health(self) -> bool:
        """Whether ``/health`` answers 200 in time."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._client.get(f"{self.url}/health", timeout=_CONTROL_TIMEOUT) as response:
                return response.status == HTTPStatus.OK
        return False

    async def stream_chunks(
        self, backend: Backend, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncGenerator[Chunk]:
        """POST a request and decode its response stream to the end. Closing the iterator ends the request.

        Raises:
            UpstreamError: as :meth:`open_response` does, or for an invalid line.
        """
        is_over = False
        async with self.open_response(backend.path, body, headers) as response:
            read = backend.make_reader()
            async for line in _read_lines(response):
                if line.startswith((b"data:", b"{")):  # events, or all at once
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        break
                    chunk = read(data)
                    is_over |= chunk.finish_reason is not None
                    yield chunk
                elif line.startswith(b"error:"):
                    raise UpstreamError(f"it reports {line[:_MAX_ERROR_BYTES]!r}")
        if not is_over:
            raise UpstreamError("it broke off")

    @contextlib.asynccontextmanager
    async def open_response(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """POST a request and read its response in the block. Leaving the block ends the request.

        Raises:
            UnreachableError: no connection.
            UpstreamBusyError: the upstream is full.
            RequestRejectedError: the upstream rejected the request.
            UpstreamError: it failed or timed out; also for a ``msgspec.MsgspecError`` in the block.
        """
        try:
            async with self._client.post(
                f"{self.url}{path}",
                data=msgspec.json.encode(body),
                headers={"content-type": "application/json", **headers},
                allow_redirects=False,
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise _make_error(response.status, await response.content.read(_MAX_ERROR_BYTES))
                yield response.content
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UnreachableError(_describe_error(error)) from error
        except TimeoutError as error:
            raise UpstreamError(f"it said nothing for {self._read_timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise UpstreamError(_describe_error(error)) from error
        except msgspec.MsgspecError as error:
            raise UpstreamError(f"it said what makes no sense: {error}") from error

    async def _json(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:  # noqa: ANN401 - JSON
        try:
            async with self._client.request(
                method, f"{self.url}{path}", json=body, timeout=_CONTROL_TIMEOUT, allow_redirects=False
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise _make_error(response.status, await response.content.read(_MAX_ERROR_BYTES))
                return msgspec.json.decode(await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UpstreamError(_describe_error(error)) from error
        except msgspec.MsgspecError as error:
            raise UpstreamError(f"{path} gives no JSON") from error


async def _read_lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of a stream of server-sent events; upstreams use no other part of that syntax."""
    rest = b""
    async for part in stream.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise UpstreamError(f"a line of more than {MAX_LINE_BYTES} bytes")
    yield rest


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _make_error(status: int, line_data: bytes) -> UpstreamError:
    """Exception for a response status other than 200."""
    text = f"{status} {line_data[:_MAX_ERROR_BYTES]!r}"
    if status in (429, 503):
        return UpstreamBusyError(text)
    return RequestRejectedError(text) if 400 <= status < 500 else UpstreamError(text)
