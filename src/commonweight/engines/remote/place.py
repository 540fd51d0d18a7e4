"""One server: asking it, and remembering how it has been doing."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import httpx
import msgspec

from commonweight.engines.remote.backend import Backend, BusyError, Chunk, GoneError, PlaceError, RefusedError

CONNECT = 5.0
"""Seconds until a server that does not even take a connection counts as gone."""
LONGEST_LINE = 1 << 20
"""Bytes. Lines with a token or two have some hundred."""
FAILURES = 3
"""In a row, after which a server is left alone for a second, and for twice as long after each further one..."""
LONGEST_OUT = 30.0
"""... but never longer than so many seconds."""
_ENOUGH_SAID = 500


class Place:
    """A server at a URL. After some failures in a row its circuit opens: nothing is asked of it for a while."""

    def __init__(self, url: str, key: str | None, silence: float) -> None:
        self.url = url.rstrip("/")
        self.backend: Backend | None = None
        """How it is to be asked; None: nobody has found out, or it is not what it should be."""
        self.running = 0
        """Jobs of ours that it works on."""
        self._salts: set[str] = set()
        self.is_alive = True
        """What it said when its health was last looked at."""
        self.complaint = ""
        """Why it is not used, as far as that was told."""
        self._silence = silence
        self._now = time.monotonic
        self._failures = 0
        self._out_until = 0.0
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        timeout = httpx.Timeout(silence, connect=CONNECT, pool=None)
        self._client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout, limits=limits)

    @property
    def is_well(self) -> bool:
        """Whether to give it work."""
        return self.backend is not None and self.is_alive and self._now() >= self._out_until

    def is_alone(self, salt: str) -> bool:
        """Whether no job ever came with another salt than this one."""
        if len(self._salts) < 2:
            self._salts.add(salt)
        return self._salts == {salt}

    def failed(self) -> None:
        """It did not do its part."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._out_until = self._now() + min(2.0 ** (self._failures - FAILURES), LONGEST_OUT)

    def gone(self) -> None:
        """It is not there. Who comes back may be another one, which nobody knows how to ask."""
        self.is_alive = False
        self.backend = None

    def worked(self) -> None:
        """It did."""
        self._failures = 0

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()

    async def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Ask for JSON.

        Raises:
            PlaceError: there is none.
        """
        return await self._json("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Ask for JSON with JSON.

        Raises:
            PlaceError: there is none.
        """
        return await self._json("POST", path, body)

    async def is_healthy(self) -> bool:
        """Whether it says so, within the time to connect."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self._client.get("/health", timeout=CONNECT)).is_success
        return False

    async def chunks(
        self, backend: Backend, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncGenerator[Chunk]:
        """What it answers, until the stream says that it is over. Closing the iterator ends the request.

        Raises:
            GoneError: it cannot be reached.
            BusyError: it has no room now.
            RefusedError: it takes the request for wrong.
            PlaceError: it failed, fell silent, or said what makes no sense.
        """
        is_over = False
        try:
            async with self._asked(backend.path, body, headers) as response:
                read = backend.reader()
                async for line in _lines(response):
                    if line.startswith((b"data:", b"{")):  # events, or all at once
                        data = line.removeprefix(b"data:").strip()
                        if data == b"[DONE]":
                            break
                        chunk = read(data)
                        is_over |= chunk.ending is not None
                        yield chunk
                    elif line.startswith(b"error:"):
                        raise PlaceError(f"it reports {line[:_ENOUGH_SAID]!r}")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise GoneError(f"{type(error).__name__}: {error}") from error
        except httpx.TimeoutException as error:
            raise PlaceError(f"{type(error).__name__} after {self._silence:g} s") from error
        except httpx.HTTPError as error:
            raise PlaceError(f"{type(error).__name__}: {error}") from error
        except msgspec.MsgspecError as error:
            raise PlaceError(f"it said what makes no sense: {error}") from error
        if not is_over:
            raise PlaceError("it broke off")

    @contextlib.asynccontextmanager
    async def _asked(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        async with self._client.stream(
            "POST",
            path,
            content=msgspec.json.encode(body),
            headers={"content-type": "application/json", **headers},
        ) as response:
            if not response.is_success:
                said = b""
                async for part in response.aiter_bytes():
                    said += part
                    if len(said) > _ENOUGH_SAID:
                        break
                raise _failure(response.status_code, said)
            yield response

    async def _json(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:  # noqa: ANN401 - JSON
        try:
            response = await self._client.request(method, path, json=body, timeout=CONNECT * 2)
            if not response.is_success:
                raise _failure(response.status_code, response.content)
            return response.json()
        except httpx.HTTPError as error:
            raise PlaceError(f"{type(error).__name__}: {error}") from error
        except ValueError as error:
            raise PlaceError(f"{path} gives no JSON") from error


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Lines of a stream of server-sent events: of its syntax, servers of tokens use nothing else."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > LONGEST_LINE:
            raise PlaceError(f"a line of more than {LONGEST_LINE} bytes")
    yield rest


def _failure(status: int, said: bytes) -> PlaceError:
    """What an answer means that is none."""
    text = f"{status} {said[:_ENOUGH_SAID]!r}"
    if status in (429, 503):
        return BusyError(text)
    return RefusedError(text) if 400 <= status < 500 else PlaceError(text)
