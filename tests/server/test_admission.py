"""Keys, scopes and limits as clients meet with them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from batching import Engine
from commonweight.access import Keyring, Ledger, Limiter, Limits, Principal, keyring
from commonweight.access.keyring import make_key
from commonweight.access.principal import Scope
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Tokenizer
from commonweight.server import create_app
from commonweight.signing import Purpose, Signer
from commonweight.store import Database
from commonweight.store.keys import add_key
from commonweight.store.schema import leases, usage
from commonweight.turn import Assistant, Origin, TurnListener
from databases import Clock

BODY: dict[str, Any] = {"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
NAMES = [
    f"anthropic-ratelimit-{kind}-{what}" for kind in ("requests", "tokens") for what in ("limit", "remaining")
]


@contextlib.contextmanager
def replaying(*listeners: TurnListener) -> Iterator[Assistant]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        tokenizer = Tokenizer(gguf)
        engine = Engine(tokenizer, lambda _: "One, two, three, four, five.")
        signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
        yield Assistant(ModelCard.from_gguf(gguf), tokenizer, engine, signer, listeners=listeners)


@contextlib.asynccontextmanager
async def served(database: Database, clock: Callable[[], float] = time.time) -> AsyncIterator[httpx.AsyncClient]:
    """One of the servers on a database."""
    limiter = Limiter(database, clock)
    async with Ledger.open(database) as ledger:
        with replaying(ledger.on_turn, limiter.on_turn) as assistant:
            async with client_of(assistant, database, limiter) as client:
                yield client


def client_of(assistant: Assistant, database: Database, limiter: Limiter) -> httpx.AsyncClient:
    app = create_app(assistant, Keyring(None, database), limiter=limiter)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one server."""
    async with served(database) as client:
        yield client


async def key(database: Database, *scopes: Scope, **limits: int) -> dict[str, str]:
    """The header of a new key."""
    made = make_key("k", "t", frozenset(scopes) or frozenset({"models"}), Limits(**limits))
    await add_key(database, made.record)
    return {"x-api-key": made.secret}


def error(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["request_id"] == response.headers["request-id"]
    return response.status_code, body["error"]["type"]


async def test_everything_needs_a_key_but_signs_of_life(client: httpx.AsyncClient, database: Database) -> None:
    header = await key(database)
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        assert error(await client.post(path, json=BODY)) == (401, "authentication_error")
        assert (await client.post(path, json=BODY, headers=header)).status_code == 200
    for path in ("/v1/models", "/metrics"):
        assert error(await client.get(path)) == (401, "authentication_error")
    assert (await client.get("/v1/models", headers=header)).status_code == 200
    for path in ("/health", "/ready"):
        assert (await client.get(path)).status_code == 200


async def test_a_running_server_goes_by_any_name_once_there_is_a_key(
    client: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "CACHE_SECONDS", 0)
    name = {"host": "models.example"}
    assert error(await client.get("/v1/models", headers=name)) == (403, "permission_error")
    header = await key(database)
    assert (await client.get("/v1/models", headers=name | header)).status_code == 200
    assert error(await client.get("/v1/models", headers=name)) == (401, "authentication_error")


async def test_a_key_is_good_for_its_scopes_only(client: httpx.AsyncClient, database: Database) -> None:
    header = await key(database, "admin")
    assert (await client.get("/metrics", headers=header)).status_code == 200
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        assert error(await client.post(path, json=BODY, headers=header)) == (403, "permission_error")
    assert error(await client.get("/v1/models", headers=header)) == (403, "permission_error")


async def test_scopes_for_models_show_nobodys_figures(client: httpx.AsyncClient, database: Database) -> None:
    header = await key(database, "models", "batches", "files")
    assert error(await client.get("/metrics", headers=header)) == (403, "permission_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_limits_are_told_with_every_answer(
    client: httpx.AsyncClient, database: Database, stream: bool
) -> None:
    header = await key(database, requests_per_minute=2, tokens_per_minute=10_000)
    left = []
    for _ in range(2):
        answer = await client.post("/v1/messages", json=BODY | {"stream": stream}, headers=header)
        assert answer.status_code == 200
        left.append([int(answer.headers[name]) for name in NAMES])
        assert {f"anthropic-ratelimit-{kind}-reset" for kind in ("requests", "tokens")} <= answer.headers.keys()
    assert [(row[0], row[1], row[2]) for row in left] == [(2, 1, 10_000), (2, 0, 10_000)]
    assert left[0][3] < 10_000
    refused = await client.post("/v1/messages", json=BODY | {"stream": stream}, headers=header)
    assert error(refused) == (429, "rate_limit_error")
    assert 0 < int(refused.headers["retry-after"]) <= 30
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
    bad = await client.post("/v1/messages/count_tokens", json={}, headers=header)
    assert error(bad) == (400, "invalid_request_error")
    assert bad.headers["anthropic-ratelimit-requests-remaining"] == "1"


async def test_without_limits_nothing_is_told_of_them(client: httpx.AsyncClient, database: Database) -> None:
    for header in ({}, await key(database)):
        answer = await client.post("/v1/messages", json=BODY, headers=header)
        assert not [name for name in answer.headers if "ratelimit" in name]


async def test_two_servers_share_limits(database: Database, database_clock: Clock) -> None:
    header = await key(database, requests_per_minute=6, concurrency=50)
    async with served(database, database_clock) as one, served(database, database_clock) as other:
        answers = await asyncio.gather(
            *(client.post("/v1/messages", json=BODY, headers=header) for client in [one, other] * 15)
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [429] * 24


@pytest.mark.parametrize("stream", [False, True])
async def test_two_servers_share_places(database: Database, stream: bool) -> None:
    header = await key(database, concurrency=3)
    body = BODY | {"stream": stream}
    limiter = Limiter(database)
    with replaying(limiter.on_turn) as assistant:
        assert isinstance(assistant.engine, Engine)
        assistant.engine.gate.clear()
        async with client_of(assistant, database, limiter) as one, served(database) as other:
            held = [asyncio.create_task(one.post("/v1/messages", json=body, headers=header)) for _ in range(3)]
            while assistant.engine.running < 3:
                await asyncio.sleep(0.01)
            for client in (one, other):
                refused = await client.post("/v1/messages", json=body, headers=header)
                assert error(refused) == (429, "rate_limit_error")
                assert refused.headers["retry-after"] == "1"
            assert (await other.post("/v1/messages/count_tokens", json=BODY, headers=header)).status_code == 200
            assistant.engine.gate.set()
            assert {(await answer).status_code for answer in held} == {200}
            assert (await other.post("/v1/messages", json=body, headers=header)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_one_request_after_the_other_is_never_two_at_once(
    client: httpx.AsyncClient, database: Database, stream: bool
) -> None:
    header = await key(database, concurrency=1)
    for _ in range(10):
        answer = await client.post("/v1/messages", json=BODY | {"stream": stream}, headers=header)
        assert answer.status_code == 200
        assert not stream or answer.text.rstrip().endswith('{"type":"message_stop"}')
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(leases))).scalar_one() == 0


async def test_a_request_that_fails_gives_its_place_back(client: httpx.AsyncClient, database: Database) -> None:
    header = await key(database, concurrency=1)
    for body in ({}, BODY | {"max_tokens": -1}, BODY | {"messages": []}):
        assert error(await client.post("/v1/messages", json=body, headers=header))[0] == 400
    assert (await client.post("/v1/messages", json=BODY, headers=header)).status_code == 200


async def test_what_was_answered_is_in_the_books(database: Database) -> None:
    header = await key(database, tokens_per_minute=10_000)
    async with served(database) as client:
        whole = await client.post("/v1/messages", json=BODY, headers=header)
        streamed = await client.post("/v1/messages", json=BODY | {"stream": True}, headers=header)
        await client.post("/v1/messages", json={}, headers=header)
    async with database.read() as connection:
        rows = (await connection.execute(select(usage).order_by(usage.c.at))).all()
    assert [row.request_id for row in rows] == [whole.headers["request-id"], streamed.headers["request-id"]]
    told = whole.json()["usage"]
    assert [rows[0].input_tokens, rows[0].output_tokens] == [told["input_tokens"], told["output_tokens"]]
    assert {(row.tenant, row.stop_reason, row.error) for row in rows} == {("t", "max_tokens", None)}


async def test_a_client_that_leaves_pays_for_what_it_had(database: Database) -> None:
    made = make_key("k", "t", limits=Limits(tokens_per_minute=1000, concurrency=1)).record
    await add_key(database, made)
    principal = Principal("t", made.id, limits=Limits(tokens_per_minute=1000, concurrency=1))
    limiter = Limiter(database)
    with replaying(limiter.on_turn) as assistant:
        async with limiter.admit(principal, "req_1", {}) as admission:
            turn = await assistant.prepare(MessageRequest.model_validate(BODY), Origin("req_1"))
            prompt = len(turn.prompt.token_ids)
            await admission.charge(prompt)
            async with contextlib.aclosing(admission.answer(assistant.stream(turn))) as events:
                async for event in events:
                    if event.type == "content_block_delta":
                        break
            assert admission.used_tokens > prompt
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(leases))).scalar_one() == 0
