"""Batches over HTTP: who may do what, what is answered, and what is refused."""

import contextlib
import gzip
import json
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from batching import Clock, Office, request, requests
from commonweight.access import Keyring, Limiter, Limits
from commonweight.access.keyring import make_key
from commonweight.access.principal import Scope
from commonweight.batches import service as desk
from commonweight.batches.upload import read_requests
from commonweight.messages.batches import MessageBatch, MessageBatchPage
from commonweight.server import batches as route
from commonweight.server import create_app
from commonweight.store import Database
from commonweight.store.keys import add_key

PATH = "/v1/messages/batches"


@pytest.fixture
async def client(office: Office, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server whose batches wait until a test runs them."""
    limiter = Limiter(database)
    app = create_app(office.assistant, Keyring("master", database), limiter=limiter, batches=office.desk)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test", headers={"x-api-key": "master"}
    ) as client:
        yield client


async def key(database: Database, tenant: str, *scopes: Scope, **limits: int) -> dict[str, str]:
    """The header of a new key."""
    made = make_key(tenant, tenant, frozenset(scopes) or frozenset({"models", "batches"}), Limits(**limits))
    await add_key(database, made.record)
    return {"x-api-key": made.secret}


def error(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"]
    return response.status_code, body["error"]["type"], body["error"]["message"]


async def created(client: httpx.AsyncClient, number: int = 2, **more: Any) -> str:
    response = await client.post(PATH, json={"requests": requests(number)}, **more)
    assert response.status_code == 200, response.text
    batch_id: str = response.json()["id"]
    return batch_id


async def test_its_whole_life(client: httpx.AsyncClient, office: Office) -> None:
    made = (await client.post(PATH, json={"requests": [*requests(2), {"custom_id": "bad", "params": {}}]})).json()
    MessageBatch.model_validate(made)
    assert (made["type"], made["processing_status"], made["results_url"]) == ("message_batch", "in_progress", None)
    assert made["request_counts"] == {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    one = f"{PATH}/{made['id']}"
    assert (await client.get(one)).json() == made
    assert error(await client.get(f"{one}/results"))[:2] == (404, "not_found_error")
    status, kind, message = error(await client.delete(one))
    assert (status, kind) == (400, "invalid_request_error")
    assert "cancel it first" in message
    async with office.runner.run_in_background():
        await office.ended(made["id"])
    ended = (await client.get(one)).json()
    assert ended["processing_status"] == "ended"
    assert ended["ended_at"] is not None
    assert ended["request_counts"] == {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0}
    results = await client.get(ended["results_url"])
    assert results.headers["content-type"].startswith("application/x-jsonl")
    lines = {line["custom_id"]: line["result"] for line in map(json.loads, results.text.splitlines())}
    assert {name: result["type"] for name, result in lines.items()} == {
        "r-0": "succeeded",
        "r-1": "succeeded",
        "bad": "errored",
    }
    assert lines["bad"]["error"]["error"]["type"] == "invalid_request_error"
    assert error(await client.post(f"{one}/cancel"))[0] == 400
    assert (await client.delete(one)).json() == {"id": made["id"], "type": "message_batch_deleted"}
    assert error(await client.get(one))[:2] == (404, "not_found_error")


@pytest.mark.parametrize("name", ["msgbatch_none", "%00", "msgbatch_%00", "%F0%9F%98%80", "'; --", "x" * 5000])
async def test_names_of_no_batch(client: httpx.AsyncClient, name: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/results")):
        response = await client.request(method, f"{PATH}/{name}{path}")
        assert error(response)[:2] == (404, "not_found_error")
    for parameter in ("after_id", "before_id"):
        response = await client.get(f"{PATH}?{parameter}={name}")
        assert error(response)[:2] == (400, "invalid_request_error")


async def test_cancelling(client: httpx.AsyncClient, office: Office) -> None:
    batch_id = await created(client)
    canceling = (await client.post(f"{PATH}/{batch_id}/cancel")).json()
    assert canceling["processing_status"] == "canceling"
    assert canceling["cancel_initiated_at"] is not None
    async with office.runner.run_in_background():
        await office.ended(batch_id)
    results = await client.get(f"{PATH}/{batch_id}/results")
    assert [json.loads(line)["result"] for line in results.text.splitlines()] == [{"type": "canceled"}] * 2


async def test_results_are_where_the_client_reached_us(client: httpx.AsyncClient, office: Office) -> None:
    batch_id = await created(client)
    async with office.runner.run_in_background():
        await office.ended(batch_id)
    headers = {"host": "models.example:8443", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    batch = (await client.get(f"{PATH}/{batch_id}", headers=headers)).json()
    assert batch["results_url"] == f"http://models.example:8443{PATH}/{batch_id}/results"


async def test_pages(client: httpx.AsyncClient, clock: Clock) -> None:
    ids: list[str] = []
    for _ in range(5):
        clock.now += 1
        ids.insert(0, await created(client))

    async def page(**query: object) -> tuple[list[str], bool]:
        response = await client.get(PATH, params={name: str(value) for name, value in query.items()})
        found = MessageBatchPage.model_validate(response.json())
        names = [batch.id for batch in found.data]
        assert (found.first_id, found.last_id) == ((names[0], names[-1]) if names else (None, None))
        return names, found.has_more

    assert await page() == (ids, False)
    assert await page(limit=2) == (ids[:2], True)
    assert await page(limit=2, after_id=ids[1]) == (ids[2:4], True)
    assert await page(limit=2, after_id=ids[3]) == (ids[4:], False)
    assert await page(limit=2, before_id=ids[3]) == (ids[1:3], True)
    assert await page(after_id=ids[4]) == ([], False)
    for query in ("limit=0", "limit=1001", "limit=x", "after_id=msgbatch_none"):
        assert error(await client.get(f"{PATH}?{query}"))[:2] == (400, "invalid_request_error")


async def test_what_is_no_batch_leaves_nothing(
    client: httpx.AsyncClient, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {"requests": [*requests(600), request("r-0")]}
    for content, words in (
        (b"", "not valid JSON"),
        (b"{}", "requests: Field required"),
        (json.dumps(many).encode(), "requests.600.custom_id: Must be unique"),
    ):
        status, kind, message = error(await client.post(PATH, content=content))
        assert (status, kind) == (400, "invalid_request_error")
        assert words in message
    encoded = await client.post(PATH, content=b"x", headers={"content-encoding": "gzip"})
    assert error(encoded)[:2] == (400, "invalid_request_error")
    monkeypatch.setattr(route, "MAX_UPLOAD_BYTES", 500)
    body = json.dumps({"requests": requests(10)}).encode()
    for large, encoding in ((body, "identity"), (gzip.compress(body), "gzip")):
        refused = await client.post(PATH, content=large, headers={"content-encoding": encoding})
        assert error(refused)[:2] == (413, "request_too_large")
    assert (await client.get(PATH)).json()["data"] == []
    assert list(office.desk.folder.glob("tmp*")) == []


async def test_a_compressed_batch_is_a_batch(client: httpx.AsyncClient) -> None:
    body = gzip.compress(json.dumps({"requests": requests(3)}).encode())
    made = await client.post(PATH, content=body, headers={"content-encoding": "gzip"})
    assert made.json()["request_counts"]["processing"] == 3


async def test_a_tenant_sees_its_own(client: httpx.AsyncClient, database: Database) -> None:
    alice, bob = await key(database, "alice"), await key(database, "bob")
    batch_id = await created(client, headers=alice)
    assert [batch["id"] for batch in (await client.get(PATH, headers=alice)).json()["data"]] == [batch_id]
    for headers in (bob, {}):
        assert (await client.get(PATH, headers=headers)).json()["data"] == []
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/results")):
            response = await client.request(method, f"{PATH}/{batch_id}{path}", headers=headers)
            assert error(response)[:2] == (404, "not_found_error")
        assert error(await client.get(f"{PATH}?after_id={batch_id}", headers=headers))[0] == 400
    assert (await client.get(f"{PATH}/{batch_id}", headers=alice)).json()["processing_status"] == "in_progress"


async def test_a_key_has_to_be_for_batches(client: httpx.AsyncClient, database: Database) -> None:
    header = await key(database, "t", "models", "files")
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/x"), ("GET", "/x/results"), ("POST", "/x/cancel")):
        response = await client.request(method, PATH + path, headers=header)
        assert error(response)[:2] == (403, "permission_error")
    assert error(await client.get(PATH, headers={"x-api-key": "none"}))[0] == 401


async def test_handing_in_is_one_request(client: httpx.AsyncClient, database: Database) -> None:
    header = await key(database, "t", "batches", requests_per_minute=2)
    for _ in range(2):
        await created(client, 5, headers=header)
    refused = await client.post(PATH, json={"requests": requests(1)}, headers=header)
    assert error(refused)[:2] == (429, "rate_limit_error")
    assert int(refused.headers["retry-after"]) > 0
    assert (await client.get(PATH, headers=header)).status_code == 200


async def test_a_database_that_is_away_is_an_error_to_come_back_after(
    client: httpx.AsyncClient, office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextlib.asynccontextmanager
    async def away(self: Database) -> AsyncIterator[None]:
        raise OperationalError("SELECT secret", {"key": "value"}, OSError("nobody answers"), hide_parameters=True)
        yield

    batch_id = await created(client)
    with monkeypatch.context() as broken:
        broken.setattr(Database, "read", away)
        broken.setattr(Database, "write", away)
        for response in (
            await client.get(PATH),
            await client.get(f"{PATH}/{batch_id}"),
            await client.post(PATH, json={"requests": requests(1)}),
        ):
            assert error(response)[:2] == (503, "api_error")
            assert int(response.headers["retry-after"]) > 0
            assert "secret" not in response.text
            assert "nobody" not in response.text
    assert "nobody answers" in caplog.text
    assert "value" not in caplog.text
    assert (await client.get(f"{PATH}/{batch_id}")).status_code == 200


@pytest.mark.parametrize("at", [0, 1, 700])
async def test_a_disk_that_fails_leaves_no_part_of_a_batch(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    read: Callable[..., Any] = read_requests

    def reading(upload: Any) -> Any:
        for number, one in enumerate(read(upload)):
            if number == at:
                raise OSError(5, "Input/output error")
            yield one

    with monkeypatch.context() as full:
        full.setattr(desk, "read_requests", reading)
        response = await client.post(PATH, json={"requests": requests(800)})
    assert error(response)[:2] == (503, "api_error")
    assert (await client.get(PATH)).json()["data"] == []


@contextlib.contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_named_and_nothing_is_left_of_the_batch(client: httpx.AsyncClient) -> None:
    with no_more_than(0):
        refused = await client.post(PATH, json={"requests": requests(2)})
    assert error(refused) == (
        503,
        "api_error",
        "The server's disk is full: nothing can be stored at the moment.",
    )
    assert (await client.get(PATH)).json()["data"] == []
    await created(client)


async def test_a_folder_that_cannot_be_written_to_is_said_without_its_path(
    client: httpx.AsyncClient, office: Office
) -> None:
    office.desk.folder /= "gone"
    refused = await client.post(PATH, json={"requests": requests(2)})
    assert error(refused) == (
        503,
        "api_error",
        "The server's disk cannot be written to: nothing can be stored at the moment.",
    )
