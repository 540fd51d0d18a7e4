"""Routes ``/v1/models``: the served model, under its id and aliases."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from commonweight.messages.errors import InvalidRequestError, NotFoundError
from commonweight.messages.models import (
    CapabilitySupport,
    ContextManagementCapability,
    EffortCapability,
    GuardInfo,
    ModelCapabilities,
    ModelInfo,
    ModelPage,
    SamplingInfo,
    ThinkingCapability,
    ThinkingTypes,
)
from commonweight.server.openapi import NOT_FOUND
from commonweight.turn import Assistant


def make_models_router(assistant: Assistant, aliases: Sequence[str], *, has_batches: bool = False) -> APIRouter:
    """Create the routes."""
    router = APIRouter(prefix="/v1/models")

    @router.get("")
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
            data=[_make_info(assistant, name, has_batches) for name in page],
            has_more=len(page) < last - first,
            first_id=page[0] if page else None,
            last_id=page[-1] if page else None,
        )

    @router.get("/{model_id:path}", responses=NOT_FOUND)
    async def get_model(model_id: str) -> ModelInfo:
        if model_id not in (assistant.card.id, *aliases):
            raise NotFoundError(f"model: {model_id}")
        return _make_info(assistant, model_id, has_batches)

    return router


def _make_info(assistant: Assistant, name: str, has_batches: bool) -> ModelInfo:
    window, defaults = assistant.engine.window, assistant.sampling_defaults
    can, cannot = CapabilitySupport(supported=True), CapabilitySupport()
    thinks = CapabilitySupport(supported=assistant.thinks)
    effort = CapabilitySupport(supported=assistant.thinks or assistant.has_effort)
    return ModelInfo(
        id=name,
        display_name=assistant.card.name,
        created_at=assistant.card.created_at,
        max_input_tokens=window,
        max_tokens=int(min(window, assistant.max_output)),
        capabilities=ModelCapabilities(
            batch=CapabilitySupport(supported=has_batches),
            citations=can,
            pdf_input=can,
            structured_outputs=can,
            context_management=ContextManagementCapability(
                supported=True, clear_thinking_20251015=thinks, clear_tool_uses_20250919=can
            ),
            effort=EffortCapability(
                supported=effort.supported, low=effort, medium=effort, high=effort, xhigh=cannot, max=cannot
            ),
            thinking=ThinkingCapability(
                supported=thinks.supported,
                types=ThinkingTypes(adaptive=thinks, between_tools=thinks, disabled=can, enabled=thinks),
            ),
        ),
        sampling=SamplingInfo(
            temperature=defaults.temperature,
            top_p=defaults.top_p,
            top_k=defaults.top_k,
            min_p=defaults.min_p,
            source=defaults.source,
        ),
        guard=_describe_guard(assistant),
    )


def _describe_guard(assistant: Assistant) -> GuardInfo | None:
    guard = assistant.guard
    if guard is None or guard.mode == "off":
        return None
    return GuardInfo(
        charter=guard.charter.id,
        version=guard.charter.version,
        sha256=guard.charter.sha256,
        mode=guard.mode,
        states=guard.reads_states,
        encoder=guard.scorer.has_encoder,
        judge=guard.judge is not None,
    )
