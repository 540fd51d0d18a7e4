"""Logging to standard error, as text or JSON lines, with the id of the request that a line is about.

No line holds what was said in a request or an answer. Texts of exceptions might: where they are neither our own
nor the operating system's they are left out, and only the traces kept.
"""

import logging
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from commonweight.server.request_log import get_current_request

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_Failure = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure_logging(form: LogFormat, level: LogLevel) -> None:
    """Configure our own loggers at ``level``. For other libraries, the root logger's level holds."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLinesFormatter() if form == "json" else _TextFormatter())
    handler.addFilter(_add_request_id)
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger("commonweight").setLevel(level.upper())


def _add_request_id(record: logging.LogRecord) -> bool:
    request = get_current_request()
    if request is not None and not hasattr(record, "request_id"):
        record.request_id = request.request_id
    return True


class _ContentFreeFormatter(logging.Formatter):
    """Formats tracebacks without the messages of exceptions that could hold content."""

    def formatException(self, ei: _Failure) -> str:  # noqa: N802 - logging's own name
        """Format the traceback, with causes."""
        return "" if ei[1] is None else "".join(_format_chain(ei[1]))


def _format_chain(error: BaseException) -> Iterator[str]:
    if before := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        yield from _format_chain(before)
        yield "\n\nwhich led to:\n\n"
    yield from traceback.format_tb(error.__traceback__)
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    is_known = isinstance(error, OSError) or name.startswith("commonweight.")
    yield f"{name}: {error}" if is_known else f"{name} (its text is withheld: it might hold content)"


class _TextFormatter(_ContentFreeFormatter):
    """Formats as ``time LEVEL message name=value ...``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Format the line, with extra fields."""
        facts = (f" {name}={value}" for name, value in vars(record).items() if name not in _KNOWN)
        return super().formatMessage(record) + "".join(facts)


_KNOWN = frozenset(RESERVED_ATTRS) | {"message", "asctime", "method", "route", "status"}
"""Attributes that every record has, and those of access lines that the message shows already."""


class _JsonLinesFormatter(_ContentFreeFormatter, JsonFormatter):
    """Formats as one JSON object for each line."""

    def __init__(self) -> None:
        JsonFormatter.__init__(
            self,
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "trace"},
            timestamp="time",
        )
