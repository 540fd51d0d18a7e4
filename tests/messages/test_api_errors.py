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
    PermissionDeniedError,
    RateLimitError,
    RequestTooLargeError,
    TimedOutError,
    UnavailableError,
)

KINDS = [
    (InvalidRequestError, 400, "invalid_request_error"),
    (AuthenticationError, 401, "authentication_error"),
    (PermissionDeniedError, 403, "permission_error"),
    (NotFoundError, 404, "not_found_error"),
    (MethodNotAllowedError, 405, "invalid_request_error"),
    (RequestTooLargeError, 413, "request_too_large"),
    (RateLimitError, 429, "rate_limit_error"),
    (ApiError, 500, "api_error"),
    (UnavailableError, 503, "api_error"),
    (TimedOutError, 504, "timeout_error"),
    (OverloadedError, 529, "overloaded_error"),
]


@pytest.mark.parametrize(("kind", "status", "name"), KINDS)
def test_status_and_body_are_the_apis(kind: type[ApiError], status: int, name: str) -> None:
    error = kind("what happened: é 中")
    assert error.status == status
    assert error.to_body("req_1") == {
        "type": "error",
        "error": {"type": name, "message": "what happened: é 中"},
        "request_id": "req_1",
    }
    assert json.loads(error.to_json("req_1")) == error.to_body("req_1")


def test_an_error_reads_as_its_message() -> None:
    assert str(OverloadedError("later", retry_after=3)) == "later"


def test_an_error_may_say_what_to_do() -> None:
    error = UnavailableError("soon", retry_after=3, should_retry=False)
    assert (error.retry_after, error.should_retry) == (3, False)
    assert (OverloadedError("later").retry_after, OverloadedError("later").should_retry) == (None, None)


def test_programs_can_tell_errors_of_one_kind_apart() -> None:
    assert NotFoundError("gone", details={"error_code": "file_expired"}).to_body("req_1")["error"] == {
        "type": "not_found_error",
        "message": "gone",
        "details": {"error_code": "file_expired"},
    }
