"""The OpenAPI document is valid, and describes what the server answers."""

from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from conftest import Server


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return httpx.get(f"{server.url}/openapi.json").json()


def find_references(part: Any) -> set[str]:
    match part:
        case dict():
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*(find_references(value) for value in part.values()))
        case list():
            return set().union(*(find_references(value) for value in part))
        case _:
            return set()


def test_the_document_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_every_reference_resolves_and_every_schema_is_used(document: Any) -> None:
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    references = find_references(document)
    assert references <= schemas
    assert schemas - references == {"#/components/schemas/BatchResult"}  # a line of a body, which is text


@pytest.mark.parametrize(
    ("method", "path", "template", "options", "status"),
    [
        ("POST", "/v1/messages", "/v1/messages", {"content": b"{}"}, 400),
        ("POST", "/v1/messages", "/v1/messages", {"headers": {"x-api-key": "wrong"}}, 401),
        ("POST", "/v1/messages", "/v1/messages", {"headers": {"content-encoding": "br"}}, 415),
        ("POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens", {"content": b" " * (2**25 + 1)}, 413),
        ("GET", "/v1/models?limit=x", "/v1/models", {}, 400),
        ("GET", "/v1/models/none", "/v1/models/{model_id}", {}, 404),
        ("GET", "/v1/messages/batches?after_id=none", "/v1/messages/batches", {}, 400),
        ("GET", "/v1/messages/batches/none/results", "/v1/messages/batches/{batch_id}/results", {}, 404),
        ("POST", "/v1/files", "/v1/files", {"headers": {"content-encoding": "zstd"}}, 415),
        ("GET", "/v1/files/none/content", "/v1/files/{file_id}/content", {}, 404),
    ],
)
def test_errors_are_described(
    server: Server, document: Any, method: str, path: str, template: str, options: dict[str, Any], status: int
) -> None:
    headers = {"x-api-key": server.key} | options.pop("headers", {})
    response = httpx.request(method, server.url + path, headers=headers, **options)
    assert response.status_code == status
    described = document["paths"][template][method.lower()]["responses"]
    assert list(described[str(status)]["content"]) == [response.headers["content-type"]]
    assert "422" not in described


def test_a_string_is_described_wherever_it_stands_for_blocks(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for model, field in (
        ("MessageParam", "content"),
        ("ToolResultBlock", "content"),
        ("ContentSource", "content"),
        ("MessageRequest", "system"),
    ):
        forms = schemas[model]["properties"][field]["anyOf"]
        kinds = [form.get("type") for form in forms for form in form.get("anyOf", [form])]
        assert kinds[:2] == ["string", "array"]


def test_contents_of_files_are_described_by_their_own_type(server: Server, document: Any) -> None:
    headers = {"x-api-key": server.key}
    upload = {"file": ("a.txt", b"hello", "text/plain")}
    made = httpx.post(f"{server.url}/v1/files", files=upload, headers=headers).json()
    content = httpx.get(f"{server.url}/v1/files/{made['id']}/content", headers=headers)
    httpx.delete(f"{server.url}/v1/files/{made['id']}", headers=headers)
    assert content.headers["content-type"].startswith("text/plain")
    described = document["paths"]["/v1/files/{file_id}/content"]["get"]["responses"]["200"]["content"]
    assert list(described) == ["*/*"]
