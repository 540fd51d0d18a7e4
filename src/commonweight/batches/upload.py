"""Streaming JSON parser of batch uploads, which may be larger than memory.

Parsers that tell of every bracket can be made to take any amount of memory by text that is nested deeply enough;
this one lets the standard library parse one request after the other out of a window on the text.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from commonweight.messages.batches import MAX_REQUESTS, BatchRequest
from commonweight.messages.errors import InvalidRequestError, RequestTooLargeError, make_invalid_request_error

MAX_VALUE_CHARACTERS = 32 * 1024 * 1024
"""Characters of one request: as many as bytes may be sent to ``/v1/messages``."""
READ_CHUNK_BYTES = 1024 * 1024
"""Bytes read at once, at least."""
_SPACE = re.compile(r"[ \t\n\r]*")


def read_requests(upload: BinaryIO) -> Iterator[BatchRequest]:
    """Yield the requests of a batch in order.

    Raises:
        InvalidRequestError, RequestTooLargeError: in the API's words.
    """
    text = _JsonText(upload)
    if not text.skip("{"):
        text.read_value()
        text.end()
        raise InvalidRequestError("Input should be an object")
    are_read = False
    for name in _read_members(text):
        if name != "requests":
            text.read_value()
        elif are_read:
            raise InvalidRequestError("requests: given more than once")
        else:
            are_read = True
            yield from _read_items(text)
    text.end()
    if not are_read:
        raise InvalidRequestError("requests: Field required")


def _read_members(text: "_JsonText") -> Iterator[str]:
    """The names of an object's members; the values are for the caller to read."""
    if text.skip("}"):
        return
    while True:
        if text.peek() != '"':
            text.fail("expected a name")
        name = text.read_value()
        text.expect(":")
        yield name
        if text.skip("}"):
            return
        text.expect(",")


def _read_items(text: "_JsonText") -> Iterator[BatchRequest]:
    if not text.skip("["):
        text.read_value()
        raise InvalidRequestError("requests: Input should be a valid list")
    if text.skip("]"):
        raise InvalidRequestError("requests: List should have at least 1 item after validation, not 0")
    seen: set[str] = set()
    for number in range(MAX_REQUESTS):
        request = _read_item(text, number)
        if request.custom_id in seen:
            raise InvalidRequestError(f"requests.{number}.custom_id: Must be unique within the batch")
        seen.add(request.custom_id)
        yield request
        if text.skip("]"):
            return
        text.expect(",")
    raise InvalidRequestError(
        f"requests: List should have at most {MAX_REQUESTS} items after validation, not {MAX_REQUESTS + 1}"
    )


def _read_item(text: "_JsonText", number: int) -> BatchRequest:
    try:
        return BatchRequest.model_validate(text.read_value())
    except ValidationError as error:
        raise make_invalid_request_error(error, within=("requests", number)) from error
    except RequestTooLargeError as error:
        raise RequestTooLargeError(f"requests.{number}: {error.message}") from error


class _JsonText:
    """JSON text of any length, read through a sliding window that holds the current value."""

    def __init__(self, upload: BinaryIO) -> None:
        self._upload = upload
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder(parse_constant=_refuse)
        self._window = ""
        self._at = 0
        self._passed = 0
        """Characters before the window."""
        self._has_more = True

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            space = _SPACE.match(self._window, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._window) or not self._has_more:
                return self._window[self._at : self._at + 1]
            self._read()

    def skip(self, sign: str) -> bool:
        """Go past a sign if it comes next."""
        is_there = self.peek() == sign
        self._at += is_there
        return is_there

    def expect(self, sign: str) -> None:
        """Go past a sign."""
        if not self.skip(sign):
            self.fail(f"expected '{sign}'")

    def end(self) -> None:
        """Nothing may come any more."""
        if self.peek():
            self.fail("expected the end")

    def read_value(self) -> Any:  # noqa: ANN401 - it is JSON
        """The next value.

        Raises:
            InvalidRequestError: it is no JSON.
            RequestTooLargeError: it is longer than one request may be.
        """
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._window, self._at)
            except json.JSONDecodeError as error:
                # What is cut off at the end of the window looks like a mistake, too.
                if not self._has_more:
                    self._at = error.pos
                    self.fail(error.msg)
            except ValueError as error:
                self.fail(str(error))
            except RecursionError:
                self.fail("nested too deeply")
            else:
                if end < len(self._window) or not self._has_more:
                    self._at = end
                    return value
            if len(self._window) - self._at > MAX_VALUE_CHARACTERS:
                raise RequestTooLargeError("Request exceeds the maximum size")
            self._read()

    def fail(self, problem: str) -> NoReturn:
        """Raise :class:`InvalidRequestError` for invalid JSON at the current character."""
        where = self._passed + self._at
        raise InvalidRequestError(f"The request body is not valid JSON: {problem} at character {where}")

    def _read(self) -> None:
        """Move the window on. It doubles where a value is long, so that none is tried more often than needed."""
        rest = self._window[self._at :]
        data = self._upload.read(max(READ_CHUNK_BYTES, min(len(rest), MAX_VALUE_CHARACTERS - len(rest))))
        self._passed += self._at
        self._has_more = bool(data)
        try:
            self._window = rest + self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"The request body is not valid JSON: {error.reason} in UTF-8") from error
        self._at = 0


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")
