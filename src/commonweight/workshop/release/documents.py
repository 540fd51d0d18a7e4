"""Reading and writing a release's documents: strict JSON within bounds, and the texts that they must not hold."""

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from commonweight.lineage.errors import WorkshopError

MAX_DOCUMENT_BYTES = 16 << 20
MAX_LINES_BYTES = 64 << 20
"""Of a file of JSON lines: the lineage, the scores of samples."""
MAX_DEPTH = 40
MAX_TEXT_CHARACTERS = 160
"""Longest string in the logs of an evaluation; longer ones are prompts or answers."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
MAX_WORDS = 8


Model = TypeVar("Model", bound=BaseModel)


class ReleaseError(WorkshopError):
    """A release, or what it is made of, is not as it should be; the message is one sentence."""


def quote(text: object) -> str:
    """A text out of a release for a terminal: short, and without control characters or look-alike letters."""
    shown = ascii(str(text)[:80])[1:-1]
    return shown + ("..." if len(str(text)) > 80 else "")


def read_file(path: Path, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """The bytes of a file of a bounded size.

    Raises:
        ReleaseError: it is missing or larger.
    """
    try:
        # Opening a pipe blocks until it has a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ReleaseError(f"{quote(path.name)} is not a regular file.")
            data = file.read(limit + 1)
    except OSError as error:
        raise ReleaseError(f"{quote(path.name)} cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise ReleaseError(f"{quote(path.name)} is larger than {limit >> 20} MiB.")
    return data


def decode_json(data: bytes, name: str) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value, without duplicate keys, numbers that JSON lacks, or deep nesting.

    Raises:
        ReleaseError: it is none.
    """
    depth = deepest = 0
    for byte in _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise ReleaseError(f"{name} is nested more than {MAX_DEPTH} deep.")
    try:
        return json.loads(
            data, object_pairs_hook=_make_object, parse_constant=_refuse_constant, parse_float=_parse_float
        )
    except (ValueError, RecursionError) as error:
        reason = f": {error}" if isinstance(error, _JsonError) else ""
        raise ReleaseError(f"{name} is not valid JSON{reason}.") from error


def encode_document(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The one form of a document: sorted keys, one space of indentation, UTF-8."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def decode_model(model: type[Model], data: bytes, name: str) -> Model:
    """A document as a model.

    Raises:
        ReleaseError: it does not fit.
    """
    return validate_model(model, decode_json(data, name), name)


def validate_model(model: type[Model], value: object, name: str) -> Model:
    """A JSON value as a model, without conversions: the text ``yes`` is no truth value.

    Raises:
        ReleaseError: it does not fit; says where.
    """
    try:
        text = json.dumps(value, default=str)  # YAML has dates
    except (TypeError, ValueError, RecursionError) as error:
        raise ReleaseError(f"{name} is not as it should be: it has keys or values that JSON lacks.") from error
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the whole"
        raise ReleaseError(f"{name} is not as it should be: {quote(place)}: {quote(problem['msg'])}.") from error


def refuse_texts(
    value: object, name: str, characters: int = MAX_TEXT_CHARACTERS, words: int | None = MAX_WORDS
) -> None:
    """Refuse a JSON value that holds a text: a string with line breaks, many words or many characters.

    Names, digests and settings of samplers pass. The message never repeats the string.

    Args:
        words: most words of a string on one line; None: only characters count.

    Raises:
        ReleaseError: says where the text is.
    """
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, dict):
            pending += [(f"{place}.{_name_key(key)}", content) for key, content in item.items()]
            pending += [(f"{place} (a key)", key) for key in item]
        elif isinstance(item, list | tuple):
            pending += [(f"{place}[]", content) for content in item]
        elif isinstance(item, str) and (
            len(item) > characters or (words is not None and _has_many_words(item, words))
        ):
            place = place.lstrip(".") or "the whole"
            raise ReleaseError(f"{name} holds a text in {place}; releases hold ids, digests and scores.")


def _has_many_words(text: str, words: int) -> bool:
    return len(text.splitlines()) > 1 or len(text.split()) > words


def _name_key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", text) else "?"


class _JsonError(ValueError):
    pass


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _JsonError("a key is there twice")
    return content


def _refuse_constant(name: str) -> float:
    raise _JsonError(f"{name} is not a number")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _JsonError("a number is too large")
    return number
