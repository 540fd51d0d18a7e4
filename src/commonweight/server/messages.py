"""Routes ``/v1/messages``: create messages, streamed or whole, and count tokens."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from commonweight.access import Admission, Limiter, Principal
from commonweight.messages.events import fold_stream
from commonweight.messages.request import CountTokensRequest, MessageRequest
from commonweight.messages.response import Message, TokenCount
from commonweight.server.admission import admit_request
from commonweight.server.body import BodyReader
from commonweight.server.openapi import BODY_ERRORS, NOT_FOUND, Responses, describe_body
from commonweight.server.sse import EventSourceResponse, cancel_on_disconnect
from commonweight.turn import Assistant, Origin

_STREAM = {
    "description": "The message, or the events of its stream.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_ANSWERS: Responses = {200: _STREAM, **BODY_ERRORS, **NOT_FOUND}


def make_messages_router(assistant: Assistant, limiter: Limiter) -> APIRouter:
    """Create the routes."""
    bodies = BodyReader()
    router = APIRouter(prefix="/v1/messages")

    @router.post("", response_model=Message, openapi_extra=describe_body(MessageRequest), responses=_ANSWERS)
    async def create_message(
        request: Request, admission: Annotated[Admission, Depends(admit_request(limiter))]
    ) -> Response:
        principal: Principal = request.state.principal
        origin = Origin(
            request.state.request_id,
            principal.tenant,
            principal.key_id,
            waived=principal.waived,
            session=_get_session(request),
        )
        async with bodies.read(request, MessageRequest) as body:
            turn = await assistant.prepare(body, origin)
        await admission.charge(len(turn.prompt.token_ids))
        events = admission.answer(assistant.stream(turn))
        if body.stream:
            return EventSourceResponse(events, request.state.request_id)
        message = await cancel_on_disconnect(request.receive, fold_stream(events))
        return Response(message.model_dump_json(), media_type="application/json")

    @router.post(
        "/count_tokens",
        openapi_extra=describe_body(CountTokensRequest),
        responses=BODY_ERRORS | NOT_FOUND,
        dependencies=[Depends(admit_request(limiter, "counts"))],
    )
    async def count_tokens(request: Request) -> TokenCount:
        principal: Principal = request.state.principal
        async with bodies.read(request, CountTokensRequest) as body:
            return await assistant.count_tokens(body, principal.tenant)

    return router


def _get_session(request: Request) -> str:
    """Get the session id that a coding agent sends; sub-agents have their own."""
    names = (request.headers.get(f"x-claude-code-{what}-id", "") for what in ("session", "agent"))
    return "/".join(name[:200] for name in names if name)
