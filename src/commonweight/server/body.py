"""Request bodies: limited in size, parsed and validated against the message models."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

import pydantic_core
from fastapi import Request
from pydantic import ValidationError

from commonweight.messages.errors import (
    InvalidRequestError,
    OverloadedError,
    RequestTooLargeError,
    make_invalid_request_error,
)
from commonweight.messages.wire import WireModel
from commonweight.server.body_stream import BodyStream

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Bytes of a request to ``/v1/messages`` and ``/v1/messages/count_tokens``."""
MAX_DRAINED_BYTES = 3 * MAX_BODY_BYTES
"""Bytes read and thrown away, so that a client that is still sending gets to see why it was refused."""
MAX_HELD_BYTES = 16 * MAX_BODY_BYTES
"""Bytes of bodies in memory, all together: those that still come, and those that wait for their turn."""
LARGE_BODY_BYTES = 256 * 1024
"""Bytes from which a body counts as large, and is parsed off the event loop."""

WireModelT = TypeVar("WireModelT", bound=WireModel)


class BodyReader:
    """Reads bodies as models, and parses large ones one at a time: small requests must not wait for seconds."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(1)
        self._held = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request, model: type[WireModelT]) -> AsyncIterator[tuple[WireModelT, int]]:
        """The request's body as ``model``, and its size in bytes, which count as held until the block ends.

        Raises:
            RequestTooLargeError, InvalidRequestError: in the API's words.
            OverloadedError: there are too many large ones.
        """
        stream = BodyStream(request, MAX_BODY_BYTES)
        body = bytearray()
        try:
            await self._fill(body, stream)
            if len(body) < LARGE_BODY_BYTES:
                parsed = _parse(body, model)
            else:
                async with self._large:
                    parsed = await asyncio.to_thread(_parse, body, model)
            yield parsed, len(body)
        finally:
            self._held -= len(body)

    async def _fill(self, body: bytearray, stream: BodyStream) -> None:
        try:
            async for chunk in stream:
                if self._held + len(chunk) > MAX_HELD_BYTES:
                    raise OverloadedError("The server is reading too many large requests", retry_after=5)
                self._held += len(chunk)
                body += chunk
        except RequestTooLargeError:
            self._held -= len(body)
            body.clear()
            await stream.drain(MAX_DRAINED_BYTES)
            raise


def _parse(body: bytearray, model: type[WireModelT]) -> WireModelT:
    try:
        data = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"The request body is not valid JSON: {error}") from error
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise make_invalid_request_error(error) from error
