"""Keys, at the level of headers; the server's tests show what clients see."""

import asyncio
import time

import pytest
from sqlalchemy import delete, text

from commonweight.access import SCOPES, Keyring, Limits, Principal, keyring
from commonweight.access.keyring import NewKey, make_key
from commonweight.messages.errors import AuthenticationError, PermissionDeniedError, UnavailableError
from commonweight.store import Database
from commonweight.store.keys import NameTakenError, add_key, find_key, list_keys, revoke_keys
from commonweight.store.schema import keys


async def created(database: Database, name: str = "one", lifetime: float | None = None) -> NewKey:
    key = make_key(name, f"tenant of {name}", frozenset({"models"}), Limits(5, 700, 2), lifetime)
    await add_key(database, key.record)
    return key


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered."""
    monkeypatch.setattr(keyring, "CACHE_SECONDS", 0)


async def test_either_header_shows_the_key() -> None:
    ring = Keyring("secret")
    await ring.authenticate({"x-api-key": "secret"})
    await ring.authenticate({"authorization": "Bearer secret"})
    await ring.authenticate({"authorization": "bearer  secret "})
    await ring.authenticate({"x-api-key": "secret", "authorization": "Bearer other"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": "secre"},
        {"x-api-key": "secretsecret"},
        {"x-api-key": "schlüssel"},
        {"authorization": "secret"},
        {"authorization": "Bearer"},
        {"x-api-key": "other", "authorization": "Bearer secret"},
    ],
)
async def test_anything_else_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(AuthenticationError):
        await Keyring("secret").authenticate(headers)


async def test_no_key_lets_everyone_in_but_an_empty_one_is_a_mistake() -> None:
    assert await Keyring(None).authenticate({}) == Principal("", None, SCOPES, Limits())
    with pytest.raises(ValueError, match="empty"):
        Keyring("")


async def test_a_key_says_whose_it_is_and_what_it_is_for(database: Database) -> None:
    key = await created(database)
    ring = Keyring(None, database)
    for headers in ({"x-api-key": key.secret}, {"authorization": f"Bearer {key.secret}"}):
        principal = await ring.authenticate(headers)
        assert principal == Principal("tenant of one", key.record.id, frozenset({"models"}), Limits(5, 700, 2))
    principal.require("models")
    with pytest.raises(PermissionDeniedError, match="batches"):
        principal.require("batches")


async def test_keys_are_not_kept_and_cannot_be_seen(database: Database) -> None:
    key = await created(database)
    [kept] = await list_keys(database)
    assert kept == key.record
    random = key.secret.removeprefix(key.record.hint)
    assert len(random) >= 36
    assert random not in repr(kept)
    assert random not in repr(key)


async def test_the_operators_key_is_good_beside_others(database: Database) -> None:
    key = await created(database)
    ring = Keyring("secret", database)
    assert (await ring.authenticate({"x-api-key": "secret"})) == Principal()
    assert (await ring.authenticate({"x-api-key": key.secret})).key_id == key.record.id


@pytest.mark.usefixtures("at_once")
async def test_once_a_key_was_created_everyone_needs_one(database: Database) -> None:
    ring = Keyring(None, database)
    assert await ring.authenticate({}) == Principal()
    assert await ring.authenticate({"x-api-key": "anything"}) == Principal()
    key = await created(database)
    for headers in ({}, {"x-api-key": "anything"}, {"x-api-key": "sk-cw-anything"}):
        with pytest.raises(AuthenticationError):
            await ring.authenticate(headers)
    await ring.authenticate({"x-api-key": key.secret})
    # Nothing opens the door again: neither that all are revoked, nor that the table is empty.
    await revoke_keys(database, "one", time.time())
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            await ring.authenticate({})
        async with database.write() as connection:
            await connection.execute(delete(keys))


async def test_a_running_server_notices_once_what_it_knows_is_old(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keyring.CACHE_SECONDS <= 5
    monkeypatch.setattr(keyring, "CACHE_SECONDS", 3600)
    ring = Keyring(None, database)
    await ring.authenticate({})
    key = await created(database)
    await ring.authenticate({})
    monkeypatch.setattr(keyring, "CACHE_SECONDS", 0)
    with pytest.raises(AuthenticationError):
        await ring.authenticate({})
    monkeypatch.setattr(keyring, "CACHE_SECONDS", 3600)
    await ring.authenticate({"x-api-key": key.secret})
    assert await revoke_keys(database, key.record.id, time.time()) != []
    await ring.authenticate({"x-api-key": key.secret})
    monkeypatch.setattr(keyring, "CACHE_SECONDS", 0)
    with pytest.raises(AuthenticationError):
        await ring.authenticate({"x-api-key": key.secret})


async def test_an_expired_key_is_refused_at_once(database: Database) -> None:
    now = time.time()
    key = await created(database, lifetime=60)
    ring = Keyring(None, database, lambda: now)
    await ring.authenticate({"x-api-key": key.secret})
    now += 61
    with pytest.raises(AuthenticationError):
        await ring.authenticate({"x-api-key": key.secret})


async def test_many_requests_ask_the_database_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await created(database)
    asked = 0

    async def counted(database: Database, digest: str) -> object:
        nonlocal asked
        asked += 1
        return await find_key(database, digest)

    monkeypatch.setattr(keyring, "find_key", counted)
    ring = Keyring(None, database)
    await asyncio.gather(*(ring.authenticate({"x-api-key": key.secret}) for _ in range(100)))
    await ring.authenticate({"x-api-key": key.secret})
    assert asked == 1
    for _ in range(2):  # what is not there may be created at any moment
        with pytest.raises(AuthenticationError):
            await ring.authenticate({"x-api-key": "sk-cw-unknown"})
    assert asked == 3
    with pytest.raises(AuthenticationError):  # it cannot be one of ours
        await ring.authenticate({"x-api-key": "unknown"})
    assert asked == 3


@pytest.mark.usefixtures("at_once")
async def test_without_the_database_nobody_is_let_in_but_the_operator(database: Database) -> None:
    key = await created(database)
    ring, own = Keyring(None, database), Keyring("secret", database)
    await ring.authenticate({"x-api-key": key.secret})
    async with database.write() as connection:
        await connection.execute(text("ALTER TABLE keys RENAME TO gone"))
    for one in (ring, own):
        with pytest.raises(UnavailableError) as refused:
            await one.authenticate({"x-api-key": key.secret})
        assert refused.value.retry_after
    assert await own.authenticate({"x-api-key": "secret"}) == Principal()


async def test_names_are_taken_until_they_are_revoked(database: Database) -> None:
    first = await created(database)
    with pytest.raises(NameTakenError):
        await created(database)
    assert [key.id for key in await revoke_keys(database, "one", 1.0)] == [first.record.id]
    assert await revoke_keys(database, "one", 2.0) == []
    second = await created(database)
    assert [key.id for key in await revoke_keys(database, second.record.id, 3.0)] == [second.record.id]
    assert [key.revoked_at for key in await list_keys(database)] == [1.0, 3.0]
    at_once = await asyncio.gather(*(created(database) for _ in range(8)), return_exceptions=True)
    assert [isinstance(one, NameTakenError) for one in at_once].count(False) == 1
