"""Upload forms (``multipart/form-data``, RFC 7578), parsed as a stream; the file is written to disk."""

import asyncio
import logging
from typing import Annotated

import python_multipart
from fastapi import Request
from pydantic import Field, TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from commonweight.files import MAX_FILE_BYTES, Upload, make_too_large_error
from commonweight.files.types import UNKNOWN
from commonweight.messages.errors import InvalidRequestError, RequestTooLargeError, make_invalid_request_error
from commonweight.server.body_stream import BodyStream

WRITE_CHUNK_BYTES = 2**20
"""Bytes that are parsed and written in one go, in a thread."""
MAX_FORM_OVERHEAD_BYTES = 64 * 1024
"""Bytes that a form may have beside its file."""
MAX_FIELD_BYTES = 32

LIFETIME_FIELD = "expires_in_seconds"
Lifetime = Annotated[int, Field(ge=3600, le=7_776_000)]
_lifetime: TypeAdapter[int] = TypeAdapter(Lifetime)

# What it warns of is the client's to know, not the operator's.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


async def read_form(request: Request, upload: Upload) -> int | None:
    """Read a request's form into ``upload``; returns the lifetime in seconds that the client asks for.

    Nothing is waited for once it is clear that the upload must be refused.

    Raises:
        RequestTooLargeError, InvalidRequestError: in the API's words.
        ApiError: the disk is full.
    """
    stream = BodyStream(request, MAX_FILE_BYTES + MAX_FORM_OVERHEAD_BYTES)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_FILE_BYTES + MAX_FORM_OVERHEAD_BYTES:
        raise make_too_large_error()
    form = UploadForm(request.headers.get("content-type", ""), upload)
    pending: list[bytes] = []
    waiting = 0
    try:
        async for chunk in stream:
            pending.append(chunk)
            waiting += len(chunk)
            if waiting >= WRITE_CHUNK_BYTES:
                await asyncio.to_thread(form.feed, b"".join(pending))
                pending.clear()
                waiting = 0
    except RequestTooLargeError as error:
        raise make_too_large_error() from error
    await asyncio.to_thread(form.feed, b"".join(pending))
    return form.get_lifetime()


class UploadForm:
    """Parser of a form. It accepts only documented fields, each of them once."""

    def __init__(self, content_type: str, upload: Upload) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidRequestError("content-type: a file is uploaded as multipart/form-data with a boundary")
        self._upload = upload
        self._fields: dict[str, bytes] = {}
        self._field = ""
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._is_whole = False
        try:
            self._parser = python_multipart.MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_part,
                    "on_part_data": self._on_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidRequestError(f"content-type: {error}") from error

    def feed(self, data: bytes) -> None:
        """Parse more of the body. Blocks while the file is written."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequestError(f"The request body is not valid multipart/form-data: {error}") from error

    def get_lifetime(self) -> int | None:
        """The file's lifetime in seconds, once the whole body was fed.

        Raises:
            InvalidRequestError: something is missing, or no such number.
        """
        if not self._is_whole:
            raise InvalidRequestError("The request body is not valid multipart/form-data: it ends too early")
        if "file" not in self._fields:
            raise InvalidRequestError("file: Field required")
        given = self._fields.get(LIFETIME_FIELD)
        if given is None:
            return None
        try:
            return _lifetime.validate_python(given.decode(errors="replace"))
        except ValidationError as error:
            raise make_invalid_request_error(error, (LIFETIME_FIELD,)) from error

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        try:
            name = options.get(b"name", b"").decode()
            filename = options.get(b"filename", b"").decode()
        except UnicodeDecodeError as error:
            raise InvalidRequestError("file: names of fields and files must be UTF-8") from error
        if name not in ("file", LIFETIME_FIELD):
            raise InvalidRequestError(f"{name[:80]}: Extra inputs are not permitted")
        if name in self._fields:
            raise InvalidRequestError(f"{name}: it is there more than once")
        self._field = name
        self._fields[name] = b""
        if name == "file":
            declared = self._headers.get(b"content-type", UNKNOWN.encode()).decode("latin-1")
            self._upload.describe(filename, declared)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == "file":
            self._upload.write(data[start:end])
        elif len(self._fields[self._field]) + end - start > MAX_FIELD_BYTES:
            raise InvalidRequestError(f"{self._field}: it is too long")
        else:
            self._fields[self._field] += data[start:end]

    def _on_end(self) -> None:
        self._is_whole = True
