"""Wire models of Message Batches: ``/v1/messages/batches``."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from commonweight.messages.response import Message
from commonweight.messages.wire import WireModel, make_validation_error

MAX_REQUESTS = 100_000
"""Requests of one batch."""


def _check_params(params: object) -> object:
    """Refuse what makes the whole batch invalid; other errors become the result of their request."""
    if not isinstance(params, dict):
        raise make_validation_error("Input should be an object")
    if params.get("stream"):
        raise make_validation_error("streaming is not supported in a batch", field="stream")
    max_tokens = params.get("max_tokens")
    if max_tokens == 0 and not isinstance(max_tokens, bool):
        raise make_validation_error("Input should be greater than or equal to 1 in a batch", field="max_tokens")
    return params


class BatchRequest(WireModel):
    """One request of a batch."""

    custom_id: str = Field(pattern="^[a-zA-Z0-9_-]{1,64}$")
    """Names its result; unique in the batch."""
    params: Annotated[dict[str, Any], BeforeValidator(_check_params)]
    """As the body of ``POST /v1/messages``."""


class BatchCreateRequest(WireModel):
    """``POST /v1/messages/batches``."""

    requests: list[BatchRequest] = Field(min_length=1, max_length=MAX_REQUESTS)


class RequestCounts(BaseModel):
    """Requests by outcome. Until the whole batch has ended, all of them are processing."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class MessageBatch(BaseModel):
    """A batch. ``results_url`` is set from its end until its results are archived."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: RequestCounts
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    cancel_initiated_at: datetime | None = None
    archived_at: datetime | None = None
    results_url: str | None = None


class MessageBatchPage(BaseModel):
    """A page of ``GET /v1/messages/batches``."""

    data: list[MessageBatch]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


class DeletedMessageBatch(BaseModel):
    """Response to the deletion of a batch."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


class SucceededResult(BaseModel):
    """Result of a request that was answered."""

    type: Literal["succeeded"] = "succeeded"
    message: Message


class ErroredResult(BaseModel):
    """Result of a request that failed; ``error`` is the same body as outside of a batch."""

    type: Literal["errored"] = "errored"
    error: dict[str, Any]


class CanceledResult(BaseModel):
    """Result of a request that was canceled with its batch."""

    type: Literal["canceled"] = "canceled"


class ExpiredResult(BaseModel):
    """Result of a request that expired with its batch."""

    type: Literal["expired"] = "expired"


class BatchResult(BaseModel):
    """Line of a batch's results."""

    custom_id: str
    result: Annotated[
        SucceededResult | ErroredResult | CanceledResult | ExpiredResult, Field(discriminator="type")
    ]
