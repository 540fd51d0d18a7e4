"""Routes ``/v1/messages``: create messages, streamed or whole, and count tokens."""

from collections.abc import Sequence
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

UNHELD_HEADER = "x-schema-unheld"
"""Names the keywords of the request's schemas that the answer was not held to."""
_MAX_LISTED = 16
_MAX_LISTED_CHARACTERS = 120
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
"""One event of a stream: what documents before OpenAPI 3.2 describe of it."""
_STREAM = {
    "description": "The message, or the events of its stream.",
    "content": {"text/event-stream": {"schema": _EVENT}},
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
        async with bodies.read(request, MessageRequest) as (body, size):
            turn = await cancel_on_disconnect(request.receive, assistant.prepare(body, origin, size))
        await admission.charge(len(turn.prompt.token_ids))
        events = admission.answer(assistant.stream(turn))
        response: Response
        if body.stream:
            response = EventSourceResponse(events, request.state.request_id)
        else:
            message = await cancel_on_disconnect(request.receive, fold_stream(events))
            response = Response(message.model_dump_json(), media_type="application/json")
        if turn.prompt.unheld:
            response.headers[UNHELD_HEADER] = _list_unheld(turn.prompt.unheld)
        return response

    @router.post(
        "/count_tokens",
        openapi_extra=describe_body(CountTokensRequest),
        responses=BODY_ERRORS | NOT_FOUND,
        dependencies=[Depends(admit_request(limiter, "counts"))],
    )
    async def count_tokens(request: Request) -> TokenCount:
        principal: Principal = request.state.principal
        async with bodies.read(request, CountTokensRequest) as (body, size):
            counting = assistant.count_tokens(body, principal.tenant, size, principal.waived)
            return await cancel_on_disconnect(request.receive, counting)

    return router


def _list_unheld(keywords: Sequence[str]) -> str:
    """A header's text: the first keywords, each cut if it is long, and how many more there are."""
    listed = [
        keyword if len(keyword) <= _MAX_LISTED_CHARACTERS else f"{keyword[:_MAX_LISTED_CHARACTERS]}..."
        for keyword in keywords[:_MAX_LISTED]
    ]
    rest = len(keywords) - len(listed)
    return ", ".join([*listed, f"{rest} more"] if rest else listed)


def _get_session(request: Request) -> str:
    """Get the session id that a coding agent sends; sub-agents have their own."""
    names = (request.headers.get(f"x-claude-code-{what}-id", "") for what in ("session", "agent"))
    return "/".join(name[:200] for name in names if name)
