"""Errors: one exception a kind, each with the API's status, type and exact body."""

import json
from typing import Any, ClassVar

from pydantic import ValidationError


class ApiError(Exception):
    """An error as the API states it. ``message`` is shown to the client; never put internals into it."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        """Seconds after which trying again makes sense."""

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body of the answer, and of an ``error`` event in a stream."""
        return {
            "type": "error",
            "error": {"type": self.type, "message": self.message},
            "request_id": request_id,
        }

    def json(self, request_id: str) -> bytes:
        """The body, encoded."""
        return json.dumps(self.body(request_id), ensure_ascii=False).encode()


class InvalidRequestError(ApiError):
    """The request can never work as it is."""

    status = 400
    type = "invalid_request_error"


class AuthenticationError(ApiError):
    """No key, or a wrong one."""

    status = 401
    type = "authentication_error"


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


class OverloadedError(ApiError):
    """The server is full; later it may not be."""

    status = 529
    type = "overloaded_error"


def invalid_request(error: ValidationError) -> InvalidRequestError:
    """The API's sentence for the first thing that is wrong: ``messages.0.role: Input should be ...``."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = first["loc"]
    if first["type"] == "missing_field":  # found by a check of the whole object
        place = (*place, first["ctx"]["field"])
    path = ".".join(str(part) for part in place)
    message = first["msg"]
    if first["type"] in ("model_type", "model_attributes_type"):
        message = "Input should be an object"
    return InvalidRequestError(f"{path}: {message}" if path else message)
