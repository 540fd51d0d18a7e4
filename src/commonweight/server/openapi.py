"""OpenAPI document of the API. Bodies are declared here, as FastAPI does not read them."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from commonweight.messages.batches import BatchCreateRequest, BatchResult
from commonweight.messages.request import CountTokensRequest, MessageRequest

Responses = dict[int | str, dict[str, Any]]

_REFERENCE = "#/components/schemas/{model}"
_ERROR_SCHEMA = {
    "title": "Error",
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object", "properties": {"error_code": {"type": "string"}}},
            },
            "required": ["type", "message"],
        },
        "request_id": {"type": "string"},
    },
    "required": ["type", "error", "request_id"],
}
_PROBLEMS = {
    400: "The request is invalid.",
    401: "The API key is missing or wrong.",
    403: "The API key lacks a scope, or the web page may not use this server.",
    404: "There is no such object.",
    408: "The request took too long to arrive.",
    413: "The body is too large.",
    415: "The body has an encoding that is not supported.",
    429: "A rate limit of the API key is exceeded.",
    431: "The request's head is too large.",
    500: "The server has failed.",
    503: "The server is shutting down, or its database is unavailable.",
    529: "The server is overloaded.",
}


def describe_errors(*statuses: int) -> Responses:
    """Describe responses with these statuses, in the API's shape."""
    content = {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in statuses}


ERRORS = describe_errors(400, 401, 403, 408, 431, 500, 503, 529)
"""What any endpoint may answer."""
BODY_ERRORS = describe_errors(413, 415, 429)
"""What one that reads a body may answer, too."""
NOT_FOUND = describe_errors(404)


def describe_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a route's body."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def make_openapi(app: FastAPI) -> dict[str, Any]:
    """Make the document, once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(_make_schemas())
        # FastAPI describes an answer of its own to bad parameters, in place of which ours is 400.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = document
    return app.openapi_schema


def _make_schemas() -> dict[str, Any]:
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (MessageRequest, "validation"),
        (CountTokensRequest, "validation"),
        (BatchCreateRequest, "validation"),
        (BatchResult, "serialization"),
    ]
    _, made = models_json_schema(models, ref_template=_REFERENCE)
    schemas: dict[str, Any] = made["$defs"]
    # They are read only when their turn comes, so the model does not say what they are.
    schemas["BatchRequest"]["properties"]["params"] = {"$ref": _REFERENCE.format(model="MessageRequest")}
    return {**schemas, "Error": _ERROR_SCHEMA}
