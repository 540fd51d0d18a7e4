"""OpenAPI document of the API. Bodies are declared here, as FastAPI does not read them."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from commonweight.messages.batches import BatchCreateRequest
from commonweight.messages.request import CountTokensRequest, MessageRequest

_REFERENCE = "#/components/schemas/{model}"

_ERROR = {
    "description": "What went wrong, in the API's shape.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "type": {"const": "error"},
                    "error": {
                        "type": "object",
                        "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                        "required": ["type", "message"],
                    },
                    "request_id": {"type": "string"},
                },
                "required": ["type", "error", "request_id"],
            }
        }
    },
}
ERRORS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 413, 429, 500, 503, 529), _ERROR)
"""What any endpoint that takes a body may answer."""


def describe_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a route's body."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def make_openapi(app: FastAPI) -> dict[str, Any]:
    """Make the document, once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        bodies = [(model, "validation") for model in (MessageRequest, CountTokensRequest, BatchCreateRequest)]
        _, schemas = models_json_schema(bodies, ref_template=_REFERENCE)  # type: ignore[arg-type]
        # They are read only when their turn comes, so the model does not say what they are.
        schemas["$defs"]["BatchRequest"]["properties"]["params"] = {
            "$ref": _REFERENCE.format(model="MessageRequest")
        }
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
        app.openapi_schema = document
    return app.openapi_schema
