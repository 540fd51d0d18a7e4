"""What surrounds every answer: a request id, and the API's error shape for whatever goes wrong."""

import logging
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from commonweight.messages.errors import ApiError, InvalidRequestError, MethodNotAllowedError, NotFoundError
from commonweight.messages.response import new_id

log = logging.getLogger(__name__)


class Envelope:
    """The layer around all routes: nothing leaves without ``request-id``, no failure as a stack trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        has_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                message["headers"] = [*message.get("headers", []), (b"request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("the client of %s %s left (%s)", scope["method"], scope["path"], request_id)
            if not has_started:  # nobody reads it, but every request has an answer
                await Response(status_code=499)(scope, receive, send_with_id)
        except Exception:
            log.exception("%s %s failed (%s)", scope["method"], scope["path"], request_id)
            if has_started:
                raise
            response = error_response(ApiError("Internal server error"), request_id)
            await response(scope, receive, send_with_id)


def error_response(error: ApiError, request_id: str) -> JSONResponse:
    """An error as a whole answer."""
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.should_retry is not None:
        headers["x-should-retry"] = str(error.should_retry).lower()
    return JSONResponse(error.body(request_id), status_code=error.status, headers=headers)


async def on_api_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for :class:`ApiError`."""
    assert isinstance(error, ApiError)
    return error_response(error, request.state.request_id)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for what the router itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    api_error: ApiError = NotFoundError("Not found")
    if error.status_code == MethodNotAllowedError.status:
        api_error = MethodNotAllowedError(f"Method {request.method} is not allowed here")
    response = error_response(api_error, request.state.request_id)
    response.headers.update(error.headers or {})
    return response


async def on_bad_parameter(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for query parameters of the wrong type or range."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return error_response(InvalidRequestError(f"{first['loc'][-1]}: {first['msg']}"), request.state.request_id)


def handlers() -> dict[Any, Any]:
    """All exception handlers of the app."""
    return {
        ApiError: on_api_error,
        HTTPException: on_http_error,
        RequestValidationError: on_bad_parameter,
    }
