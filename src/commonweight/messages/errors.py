"""Errors of the API: one exception per kind, with its HTTP status, type and body."""

import json
import re
from typing import Any, ClassVar

from pydantic import ValidationError


class ApiError(Exception):
    """Base of the API's errors. ``message`` is sent to the client and must not contain internals."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"

    def __init__(
        self,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        """Machine-readable details: an ``error_code``, and its parameters."""
        self.retry_after = retry_after
        """Seconds after which trying again makes sense."""
        self.should_retry = should_retry
        """Overrides clients' rule for retries by status."""

    def to_body(self, request_id: str) -> dict[str, Any]:
        """The JSON body of the answer, and of an ``error`` event in a stream."""
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return {"type": "error", "error": error, "request_id": request_id}

    def to_json(self, request_id: str) -> bytes:
        """The body, encoded."""
        return json.dumps(self.to_body(request_id), ensure_ascii=False).encode()


class InvalidRequestError(ApiError):
    """The request is invalid."""

    status = 400
    type = "invalid_request_error"


class AuthenticationError(ApiError):
    """The API key is missing or wrong."""

    status = 401
    type = "authentication_error"


class PermissionDeniedError(ApiError):
    """The API key lacks a scope."""

    status = 403
    type = "permission_error"


class NotFoundError(ApiError):
    """No such path or object."""

    status = 404
    type = "not_found_error"


class MethodNotAllowedError(InvalidRequestError):
    """The path exists, but not for this method."""

    status = 405


class RequestTooLargeError(ApiError):
    """The body is larger than the endpoint takes."""

    status = 413
    type = "request_too_large"


class UnsupportedEncodingError(InvalidRequestError):
    """The body is encoded in a way that the server cannot decode."""

    status = 415


class HeadTooLargeError(InvalidRequestError):
    """The request line and header fields are too large."""

    status = 431


class RateLimitError(ApiError):
    """The API key's rate limit is exceeded."""

    status = 429
    type = "rate_limit_error"


class UnavailableError(ApiError):
    """The model or the database is temporarily unavailable."""

    status = 503


class TimedOutError(ApiError):
    """The request took longer than the server allows."""

    status = 504
    type = "timeout_error"


class SlowRequestError(TimedOutError):
    """The request did not arrive in time."""

    status = 408


class OverloadedError(ApiError):
    """The server is overloaded."""

    status = 529
    type = "overloaded_error"


# Agents find the definition that was refused by its place, which the API writes without the types on the way.
_DEFINITION = re.compile(r"\.tool_addition\.tool\.tool_definition\.definition(\.\w+)?")


def make_invalid_request_error(error: ValidationError, within: tuple[str | int, ...] = ()) -> InvalidRequestError:
    """The API's sentence for the first thing that is wrong: ``messages.0.role: Input should be ...``.

    ``within`` is the place of what was validated, if it is a part of the request.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    place, message = (*within, *first["loc"]), first["msg"]
    details = None
    if first["type"] == "refused":
        field, error_code = first["ctx"]["field"], first["ctx"]["error_code"]
        place = place if field is None else (*place, field)
        details = None if error_code is None else {"error_code": error_code}
    elif first["type"] in ("model_type", "model_attributes_type"):
        message = "Input should be an object"
    path = _DEFINITION.sub(".tool.definition", ".".join(str(part) for part in place))
    return InvalidRequestError(f"{path}: {message}" if path else message, details=details)
