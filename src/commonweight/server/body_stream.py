"""Bodies of requests as they arrive: counted, and decompressed where they are encoded with gzip."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from fastapi import Request

from commonweight.messages.errors import InvalidRequestError, RequestTooLargeError, UnsupportedEncodingError

MAX_CHUNK_BYTES = 2**20
"""Bytes that are decompressed in one go, in a thread."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class BodyStream:
    """The chunks of one body, decompressed; no more than ``max_bytes``, as sent and decompressed.

    Iterating raises:
        RequestTooLargeError, InvalidRequestError: in the API's words.
    """

    def __init__(self, request: Request, max_bytes: int) -> None:
        """Raises :class:`UnsupportedEncodingError`."""
        self._is_gzip = _is_gzip(request)
        self._max_bytes = max_bytes
        self._received = request.stream()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = self._decompress() if self._is_gzip else self._count()
        async for chunk in chunks:
            yield chunk

    async def drain(self, max_bytes: int) -> None:
        """Read and drop the rest, up to that many bytes, so that a client that still sends sees its answer."""
        async for chunk in self._received:
            max_bytes -= len(chunk)
            if max_bytes < 0:
                return

    async def _count(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._received:
            size += len(chunk)
            if size > self._max_bytes:
                raise RequestTooLargeError("Request exceeds the maximum size")
            yield chunk

    async def _decompress(self) -> AsyncIterator[bytes]:
        decoder = zlib.decompressobj(_GZIP_WINDOW)
        size = 0
        async for chunk in self._count():
            rest, piece = chunk, b""
            # A piece of full size need not be all that was read.
            while not decoder.eof and (rest or len(piece) == MAX_CHUNK_BYTES):
                try:
                    piece = await asyncio.to_thread(decoder.decompress, rest, MAX_CHUNK_BYTES)
                except zlib.error as error:
                    raise _make_invalid_error("it is not valid gzip") from error
                rest = decoder.unconsumed_tail or decoder.unused_data
                size += len(piece)
                if size > self._max_bytes:
                    raise RequestTooLargeError(
                        "Request exceeds the maximum size once it is decompressed",
                        details={"error_code": "request_body_too_large_after_decoding"},
                    )
                yield piece
            if rest:
                raise _make_invalid_error("there is more after its end")
        if not decoder.eof:
            raise _make_invalid_error("it ends too early")


def _is_gzip(request: Request) -> bool:
    named = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    encodings = [name.strip() for name in named if name.strip() not in ("", "identity")]
    if encodings and encodings not in (["gzip"], ["x-gzip"]):
        raise UnsupportedEncodingError(
            f"content-encoding: {', '.join(encodings)} is not supported; send the body as it is, or as gzip",
            details={"error_code": "request_body_encoding_unsupported"},
        )
    return bool(encodings)


def _make_invalid_error(problem: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"content-encoding: the request body cannot be decompressed: {problem}",
        details={"error_code": "request_body_encoding_invalid"},
    )
