"""The HTTP application: routes, and who composes what."""

import contextlib
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from commonweight import __version__
from commonweight.access import Keyring
from commonweight.messages.errors import InvalidRequestError, NotFoundError
from commonweight.messages.events import MessageFold
from commonweight.messages.models import (
    Capabilities,
    ContextManagement,
    EffortLevels,
    ModelInfo,
    ModelPage,
    Supported,
    ThinkingSupport,
    ThinkingTypes,
)
from commonweight.messages.request import CountTokensRequest, MessageRequest
from commonweight.messages.response import Message, TokenCount
from commonweight.server.body import BodyReader
from commonweight.server.envelope import Envelope, handlers
from commonweight.server.openapi import ERRORS, described, takes
from commonweight.server.sse import EventStream, unless_gone
from commonweight.turn import Assistant, Turn

API_VERSIONS = frozenset({"2023-06-01", "2026-10-21"})


def create_app(assistant: Assistant, keyring: Keyring, aliases: Sequence[str] = ()) -> FastAPI:
    """The API over one assistant. ``aliases`` are further names that the models endpoint lists it under."""
    app = FastAPI(
        title="Commonweight",
        version=__version__,
        exception_handlers=handlers(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Envelope)
    app.include_router(_api(assistant, keyring, aliases))

    @app.api_route("/health", methods=["GET", "HEAD"], include_in_schema=False)
    async def health() -> JSONResponse:
        is_ready = assistant.engine.is_ready
        return JSONResponse(
            {"status": "ok" if is_ready else "starting", "model": assistant.card.id},
            status_code=200 if is_ready else 503,
        )

    setattr(app, "openapi", lambda: described(app))  # noqa: B010 - FastAPI's documented way, which mypy refuses
    return app


def _api(assistant: Assistant, keyring: Keyring, aliases: Sequence[str]) -> APIRouter:
    bodies = BodyReader()

    async def authorised(request: Request) -> None:
        keyring.check(request.headers)

    async def known_version(request: Request) -> None:
        # curl users forget the header; they mean the version that every example shows.
        version = request.headers.get("anthropic-version", "2023-06-01")
        if version not in API_VERSIONS:
            raise InvalidRequestError(f'anthropic-version: "{version}" is not a valid version')

    router = APIRouter(prefix="/v1", dependencies=[Depends(authorised), Depends(known_version)])

    @router.post("/messages", response_model=Message, openapi_extra=takes(MessageRequest), responses=ERRORS)
    async def create_message(request: Request) -> Response:
        async with bodies.read(request, MessageRequest) as body:
            turn = await assistant.prepare(body)
        if body.stream:
            return EventStream(assistant.stream(turn), request.state.request_id)
        message = await unless_gone(request.receive, _whole(assistant, turn))
        return Response(message.model_dump_json(), media_type="application/json")

    @router.post("/messages/count_tokens", openapi_extra=takes(CountTokensRequest), responses=ERRORS)
    async def count_tokens(request: Request) -> TokenCount:
        async with bodies.read(request, CountTokensRequest) as body:
            return await assistant.count_tokens(body)

    @router.get("/models")
    async def list_models(
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        after_id: str | None = None,
        before_id: str | None = None,
    ) -> ModelPage:
        ids = [assistant.card.id, *aliases]
        for cursor in (after_id, before_id):
            if cursor is not None and cursor not in ids:
                raise InvalidRequestError(f"no model has the id {cursor!r}")
        first = 0 if after_id is None else ids.index(after_id) + 1
        last = len(ids) if before_id is None else ids.index(before_id)
        # A page before a cursor is the one that ends there.
        page = ids[first:last][-limit:] if before_id is not None else ids[first:last][:limit]
        return ModelPage(
            data=[_info(assistant, name) for name in page],
            has_more=len(page) < last - first,
            first_id=page[0] if page else None,
            last_id=page[-1] if page else None,
        )

    @router.get("/models/{model_id:path}")
    async def get_model(model_id: str) -> ModelInfo:
        if model_id not in (assistant.card.id, *aliases):
            raise NotFoundError(f"model: {model_id}")
        return _info(assistant, model_id)

    return router


async def _whole(assistant: Assistant, turn: Turn) -> Message:
    """The JSON answer is the folded stream."""
    fold = MessageFold()
    async with contextlib.aclosing(assistant.stream(turn)) as events:
        async for event in events:
            fold.add(event)
    return fold.message()


def _info(assistant: Assistant, name: str) -> ModelInfo:
    window = assistant.engine.window
    can, cannot = Supported(supported=True), Supported()
    thinks = Supported(supported=assistant.thinks)
    effort = Supported(supported=assistant.thinks or assistant.has_effort)
    return ModelInfo(
        id=name,
        display_name=assistant.card.name,
        created_at=assistant.card.created_at,
        max_input_tokens=window,
        max_tokens=int(min(window, assistant.max_output)),
        capabilities=Capabilities(
            citations=can,
            pdf_input=can,
            structured_outputs=can,
            context_management=ContextManagement(
                supported=True, clear_thinking_20251015=thinks, clear_tool_uses_20250919=can
            ),
            effort=EffortLevels(
                supported=effort.supported, low=effort, medium=effort, high=effort, xhigh=cannot, max=cannot
            ),
            thinking=ThinkingSupport(
                supported=thinks.supported,
                types=ThinkingTypes(adaptive=thinks, between_tools=thinks, disabled=can, enabled=thinks),
            ),
        ),
    )
