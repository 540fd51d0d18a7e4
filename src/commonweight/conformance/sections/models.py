"""`GET /v1/models`: sections 2 and 11."""

from datetime import datetime

from commonweight.conformance.checks import check
from commonweight.conformance.conversation import Json
from commonweight.conformance.shapes import check_error
from commonweight.conformance.target import Target, check_accepted

FLAT = ("batch", "citations", "code_execution", "image_input", "pdf_input", "structured_outputs")
"""Capabilities that are a yes or no."""
NESTED = {
    "context_management": ("clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112"),
    "effort": ("low", "medium", "high", "xhigh", "max"),
    "server_tools": ("web_search", "code_execution"),
    "thinking.types": ("adaptive", "between_tools", "disabled", "enabled"),
}


@check()
async def the_shape_of_a_page(target: Target) -> None:
    """A page has `data`, `has_more`, `first_id` and `last_id` (§2)."""
    page = check_accepted(await target.get("/v1/models"))
    ids = [entry["id"] for entry in page["data"]]
    assert ids, "no model is listed"
    assert page.get("has_more") in (True, False), f"has_more is {page.get('has_more')!r}"
    assert (page.get("first_id"), page.get("last_id")) == (ids[0], ids[-1]), "first_id and last_id are not those"


@check()
async def the_sdk_lists_models(target: Target) -> None:
    """The official SDK lists models and finds each by its id (§2)."""
    listed = [info async for info in target.sdk.models.list(limit=5)]
    assert listed, "no model is listed"
    found = await target.sdk.models.retrieve(listed[0].id)
    assert found.model_dump() == listed[0].model_dump(), "a model is listed otherwise than it is found"


@check()
async def the_shape_of_a_model(target: Target) -> None:
    """A model has all its fields, its dates as RFC 3339 (§11)."""
    for info in await listed_models(target):
        assert info.get("type") == "model", f"type is {info.get('type')!r}"
        assert info.get("display_name"), f"display_name is {info.get('display_name')!r}"
        assert info.get("lifecycle") in ("active", "deprecated", "retired"), (
            f"lifecycle is {info.get('lifecycle')!r}"
        )
        created = datetime.fromisoformat(info["created_at"])
        assert created.tzinfo, f"created_at has no time zone: {info['created_at']}"
        missing = {"line", "max_input_tokens", "max_tokens", "deprecated_at", "retires_at"} - info.keys()
        assert not missing, f"missing: {sorted(missing)}"


@check()
async def every_capability_is_declared(target: Target) -> None:
    """`capabilities` has every key, and each says whether it is supported (§11)."""
    silent = [
        name for name in (*FLAT, "thinking", *(n for n in NESTED if "." not in n)) if target.declares(name) is None
    ]
    silent += [
        f"{n}.{part}" for n, parts in NESTED.items() for part in parts if target.declares(f"{n}.{part}") is None
    ]
    assert not silent, f"nothing is said about {', '.join(silent)}"


@check()
async def the_model_by_its_name(target: Target) -> None:
    """`GET /v1/models/{id}` finds every listed name, aliases as well (§2)."""
    for info in await listed_models(target):
        found = check_accepted(await target.get(f"/v1/models/{info['id']}"))
        assert found == info, f"{info['id']} is listed otherwise than it is found"


@check()
async def an_unknown_model(target: Target) -> None:
    """A name that is not listed is 404 (§2)."""
    check_error(await target.get("/v1/models/no-such-model"), 404, "not_found_error")


@check()
async def pages(target: Target) -> None:
    """`limit`, `after_id` and `before_id` cut pages, forwards and back (§2)."""
    ids = [info["id"] for info in await listed_models(target)]
    first = check_accepted(await target.get("/v1/models", limit=1))
    assert [info["id"] for info in first["data"]] == ids[:1], "limit=1 does not give the first"
    assert first["has_more"] == (len(ids) > 1), f"has_more is {first['has_more']} after one of {len(ids)}"
    after = check_accepted(await target.get("/v1/models", after_id=ids[0]))
    assert [info["id"] for info in after["data"]] == ids[1:], "after_id does not give those after"
    before = check_accepted(await target.get("/v1/models", before_id=ids[-1]))
    assert [info["id"] for info in before["data"]] == ids[:-1], "before_id does not give those before"


@check()
async def limits_of_a_page(target: Target) -> None:
    """A `limit` is 1 to 1000; an agent's discovery asks for 1000 (§2)."""
    check_accepted(await target.get("/v1/models", limit=1000))
    for limit in (0, 1001, "many"):
        check_error(await target.get("/v1/models", limit=limit), 400, "invalid_request_error")


async def listed_models(target: Target) -> list[Json]:
    """All models, or the first thousand."""
    data: list[Json] = check_accepted(await target.get("/v1/models", limit=1000))["data"]
    assert data, "no model is listed"
    return data
