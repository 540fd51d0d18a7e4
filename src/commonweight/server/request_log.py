"""Record of one HTTP request, for its access log line and metrics."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from commonweight.turn import TurnRecord


@dataclass
class RequestRecord:
    """Facts on a request, filled in as it is processed."""

    request_id: str
    method: str
    path: str
    route: str | None = None
    """The path as the application knows it, such as ``/v1/models/{model_id}``. None: it does not."""
    status: int = 0
    error: str | None = None
    """The type of the error that the client was told, also within a stream."""
    key_id: str | None = None
    turn: TurnRecord | None = None
    """Of a request for a message, once that is over."""
    seconds: float = 0.0
    """From the head of the request to the end of the answer."""


RequestListener = Callable[[RequestRecord], None]
"""Takes every exchange when it is over, in the event loop."""

_current: ContextVar[RequestRecord | None] = ContextVar("exchange", default=None)


def get_current_request() -> RequestRecord | None:
    """Get the record of the request that this task, or the one that started it, serves."""
    return _current.get()


def set_current(exchange: RequestRecord) -> None:
    """Set the current record."""
    _current.set(exchange)


def record_error(error_type: str) -> None:
    """Record an error that is sent to the current client."""
    if exchange := get_current_request():
        exchange.error = error_type


def record_turn(record: TurnRecord) -> None:
    """A listener of turns: record a turn with its HTTP request."""
    if exchange := get_current_request():
        exchange.turn = record
