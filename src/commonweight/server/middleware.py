"""Request middleware: request ids, access log, and errors in the API's shape."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from commonweight.messages.errors import (
    ApiError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    UnavailableError,
)
from commonweight.messages.response import make_id
from commonweight.server.lifecycle import Lifecycle
from commonweight.server.request_log import RequestListener, RequestRecord, record_error, set_current
from commonweight.store.failures import FAILURES, find_disk_fault, get_reason

log = logging.getLogger(__name__)


class RequestMiddleware:
    """ASGI middleware around all routes: every response has a ``request-id``, every failure the API's shape,
    and every request is counted.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, listeners: Sequence[RequestListener]) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = normalize_path(scope["path"])
        record = RequestRecord(make_id("req"), scope["method"], scope["path"])
        set_current(record)
        started = time.perf_counter()
        try:
            with self._lifecycle.track_request():
                await self._serve(record, scope, receive, send)
        finally:
            record.seconds = time.perf_counter() - started
            record.route = getattr(scope.get("route"), "path_format", None)
            if principal := scope.get("state", {}).get("principal"):
                record.key_id = principal.key_id
            for listener in self._listeners:
                listener(record)

    async def _serve(self, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = record.request_id
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = {"request-id": request_id, **state.get("limits", {})}
                more = [(name.encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            if not record.status:  # nobody reads it, but every request has an answer
                await Response(status_code=499)(scope, receive, send_with_id)
        except Exception:
            log.exception("%s failed", scope["method"])
            if record.status:
                raise
            response = make_error_response(ApiError("Internal server error"), request_id)
            await response(scope, receive, send_with_id)


def normalize_path(path: str) -> str:
    """The path without the slashes that base URLs leave: ``//v1/messages`` of one that ends with a slash."""
    path = "/" + path.lstrip("/")
    return path.rstrip("/") if path.startswith("/v1/") else path


def make_error_response(error: ApiError, request_id: str) -> JSONResponse:
    """Make an error response."""
    record_error(error.type)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.should_retry is not None:
        headers["x-should-retry"] = str(error.should_retry).lower()
    return JSONResponse(error.to_body(request_id), status_code=error.status, headers=headers)


async def on_api_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for :class:`ApiError`."""
    assert isinstance(error, ApiError)
    return make_error_response(error, request.state.request_id)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for unknown paths and methods."""
    assert isinstance(error, HTTPException)
    api_error: ApiError = NotFoundError("Not found")
    if error.status_code == MethodNotAllowedError.status:
        api_error = MethodNotAllowedError(f"Method {request.method} is not allowed here")
    response = make_error_response(api_error, request.state.request_id)
    response.headers.update(error.headers or {})
    return response


async def on_bad_parameter(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for query parameters of the wrong type or range."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return make_error_response(
        InvalidRequestError(f"{first['loc'][-1]}: {first['msg']}"), request.state.request_id
    )


async def on_store_failure(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's handler for a database or disk that is unavailable."""
    log.error("%s: %s: %s", request.state.request_id, type(error).__name__, get_reason(error))
    fault = find_disk_fault(error)
    message = f"{fault}: nothing can be stored" if fault else "The server cannot get at its data"
    unavailable = UnavailableError(f"{message} at the moment.", retry_after=5)
    return make_error_response(unavailable, request.state.request_id)


def make_exception_handlers() -> dict[Any, Any]:
    """Make all exception handlers of the app."""
    return {
        ApiError: on_api_error,
        HTTPException: on_http_error,
        RequestValidationError: on_bad_parameter,
        **dict.fromkeys(FAILURES, on_store_failure),
    }
