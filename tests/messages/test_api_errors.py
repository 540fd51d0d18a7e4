"""Each error has the API's status, type and body."""

import json

import pytest

from commonweight.messages.errors import (
    ApiError,
    AuthenticationError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    OverloadedError,
    RequestTooLargeError,
)

KINDS = [
    (InvalidRequestError, 400, "invalid_request_error"),
    (AuthenticationError, 401, "authentication_error"),
    (NotFoundError, 404, "not_found_error"),
    (MethodNotAllowedError, 405, "invalid_request_error"),
    (RequestTooLargeError, 413, "request_too_large"),
    (ApiError, 500, "api_error"),
    (OverloadedError, 529, "overloaded_error"),
]


@pytest.mark.parametrize(("kind", "status", "name"), KINDS)
def test_status_and_body_are_the_apis(kind: type[ApiError], status: int, name: str) -> None:
    error = kind("what happened: é 中")
    assert error.status == status
    assert error.body("req_1") == {
        "type": "error",
        "error": {"type": name, "message": "what happened: é 中"},
        "request_id": "req_1",
    }
    assert json.loads(error.json("req_1")) == error.body("req_1")


def test_an_error_reads_as_its_message() -> None:
    assert str(OverloadedError("later", retry_after=3)) == "later"
    assert OverloadedError("later", retry_after=3).retry_after == 3
    assert OverloadedError("later").retry_after is None
