"""Routes ``/v1/messages/batches``: create, list, retrieve, cancel and delete batches, and read their results."""

import asyncio
import tempfile
from datetime import UTC, datetime
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from commonweight.access import Limiter
from commonweight.access.principal import Principal
from commonweight.batches import MAX_UPLOAD_BYTES, BatchService
from commonweight.messages.batches import (
    BatchCreateRequest,
    DeletedMessageBatch,
    MessageBatch,
    MessageBatchPage,
    RequestCounts,
)
from commonweight.messages.errors import RequestTooLargeError
from commonweight.server.admission import admit_request
from commonweight.server.body_stream import BodyStream
from commonweight.server.openapi import BODY_ERRORS, NOT_FOUND, Responses, describe_body
from commonweight.store.batches import Batch

MAX_DRAINED_BYTES = MAX_UPLOAD_BYTES
"""Bytes read and thrown away, so that a client that is still sending gets to see why it was refused."""
_RESULTS: Responses = {
    200: {
        "description": "A line of JSON (`BatchResult`) for every request, in any order.",
        "content": {"application/x-jsonl": {"schema": {"type": "string"}}},
    }
}


def make_batches_router(desk: BatchService, limiter: Limiter) -> APIRouter:
    """Create the routes."""
    router = APIRouter(prefix="/v1/messages/batches")

    # To hand in a batch is one request; what is in it waits for room, whatever the limits of the key.
    @router.post(
        "",
        response_model=MessageBatch,
        openapi_extra=describe_body(BatchCreateRequest),
        responses=BODY_ERRORS,
        dependencies=[Depends(admit_request(limiter))],
    )
    async def create_batch(request: Request) -> MessageBatch:
        principal: Principal = request.state.principal
        with tempfile.TemporaryFile(dir=desk.folder) as upload:
            await _write_body(request, upload)
            return _make_batch(await desk.create(upload, principal.tenant, principal.key_id), request)

    @router.get("")
    async def list_batches(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        after_id: str | None = None,
        before_id: str | None = None,
    ) -> MessageBatchPage:
        batches, has_more = await desk.list_page(request.state.principal.tenant, limit, after_id, before_id)
        return MessageBatchPage(
            data=[_make_batch(batch, request) for batch in batches],
            has_more=has_more,
            first_id=batches[0].id if batches else None,
            last_id=batches[-1].id if batches else None,
        )

    @router.get("/{batch_id}", responses=NOT_FOUND)
    async def get_batch(request: Request, batch_id: str) -> MessageBatch:
        return _make_batch(await desk.get(request.state.principal.tenant, batch_id), request)

    @router.post("/{batch_id}/cancel", responses=NOT_FOUND)
    async def cancel_batch(request: Request, batch_id: str) -> MessageBatch:
        return _make_batch(await desk.cancel(request.state.principal.tenant, batch_id), request)

    @router.delete("/{batch_id}", responses=NOT_FOUND)
    async def delete_batch(request: Request, batch_id: str) -> DeletedMessageBatch:
        await desk.delete(request.state.principal.tenant, batch_id)
        return DeletedMessageBatch(id=batch_id)

    @router.get("/{batch_id}/results", response_class=Response, responses=_RESULTS | NOT_FOUND)
    async def get_results(request: Request, batch_id: str) -> Response:
        lines = await desk.read_results(request.state.principal.tenant, batch_id)
        return StreamingResponse(lines, media_type="application/x-jsonl")

    return router


async def _write_body(request: Request, upload: BinaryIO) -> None:
    """Write the request's body to disk."""
    stream = BodyStream(request, MAX_UPLOAD_BYTES)
    try:
        async for chunk in stream:
            await asyncio.to_thread(upload.write, chunk)
    except RequestTooLargeError:
        await stream.drain(MAX_DRAINED_BYTES)
        raise
    await asyncio.to_thread(upload.seek, 0)


def _make_batch(batch: Batch, request: Request) -> MessageBatch:
    has_ended = batch.status == "ended"
    # Where the client reached us is where it will look for the results, and send its key.
    url = f"{request.base_url}v1/messages/batches/{batch.id}/results"
    return MessageBatch(
        id=batch.id,
        processing_status=batch.status,  # type: ignore[arg-type] # the ones that are seen are the API's
        request_counts=RequestCounts(
            processing=0 if has_ended else batch.total,
            succeeded=batch.succeeded,
            errored=batch.errored,
            canceled=batch.canceled,
            expired=batch.expired,
        ),
        created_at=datetime.fromtimestamp(batch.created_at, UTC),
        expires_at=datetime.fromtimestamp(batch.expires_at, UTC),
        ended_at=_make_datetime(batch.ended_at),
        cancel_initiated_at=_make_datetime(batch.cancel_initiated_at),
        archived_at=_make_datetime(batch.archived_at),
        results_url=url if has_ended and batch.archived_at is None else None,
    )


def _make_datetime(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
