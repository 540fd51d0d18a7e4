"""Limits: exactly the allowed number passes, however many ask at once and through however many servers."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select, text

from commonweight.access import Admission, Limiter, Limits, Principal, leases
from commonweight.access.keyring import make_key
from commonweight.messages.errors import ApiError, OverloadedError, RateLimitError, UnavailableError
from commonweight.messages.events import MessageStop, Ping, StreamEvent
from commonweight.messages.response import Usage
from commonweight.store import Database
from commonweight.store.keys import add_key
from commonweight.store.limits import LEASE_SECONDS
from commonweight.store.schema import leases as lease_table
from commonweight.turn import Origin, TurnRecord
from commonweight.turn.record import Stopwatch
from databases import Clock

names = itertools.count()


@pytest.fixture
def clock(database_clock: Clock) -> Clock:
    return database_clock


async def owner(database: Database, **limits: int) -> Principal:
    key = make_key(f"key {next(names)}", "t", limits=Limits(**limits)).record
    await add_key(database, key)
    return Principal("t", key.id, limits=Limits(**limits))


async def tried(limiter: Limiter, principal: Principal, tokens: int = 0, **more: Any) -> dict[str, str]:
    """A request from beginning to end; its headers."""
    headers: dict[str, str] = {}
    async with limiter.admit(principal, f"req_{next(names)}", headers, **more) as admission:
        await admission.charge(tokens)
        admission.used_tokens = tokens
    return headers


async def refusal(limiter: Limiter, principal: Principal, tokens: int = 0) -> int:
    """After how many seconds a request that is refused may come again."""
    with pytest.raises(RateLimitError) as refused:
        await tried(limiter, principal, tokens)
    assert refused.value.retry_after is not None
    return refused.value.retry_after


async def test_exactly_the_allowed_number_passes_through_two_servers(database: Database, clock: Clock) -> None:
    limit = 30
    principal = await owner(database, requests_per_minute=limit, concurrency=1000)
    servers = [Limiter(database, clock), Limiter(database, clock)]

    async def try_one(server: Limiter) -> int:
        try:
            await tried(server, principal)
        except RateLimitError as error:
            assert error.retry_after and error.retry_after >= 1
            return 0
        return 1

    passed = sum(await asyncio.gather(*(try_one(servers[i % 2]) for i in range(200))))
    assert passed == limit


async def test_exactly_the_allowed_number_runs_at_once(database: Database, clock: Clock) -> None:
    limit = 7
    principal = await owner(database, concurrency=limit)
    servers = [Limiter(database, clock), Limiter(database, clock)]
    may_end = asyncio.Event()
    refused = running = most = 0

    async def try_one(server: Limiter) -> None:
        nonlocal refused, running, most
        try:
            async with server.admit(principal, f"req_{next(names)}", {}):
                running += 1
                most = max(most, running)
                await may_end.wait()
                running -= 1
        except RateLimitError as error:
            assert error.retry_after == 1
            refused += 1
            if refused == 93:
                may_end.set()

    await asyncio.gather(*(try_one(servers[i % 2]) for i in range(100)))
    assert (refused, most) == (93, limit)
    async with database.read() as connection:
        assert (await connection.execute(select(lease_table))).all() == []
    await tried(servers[0], principal)


async def test_a_refused_request_passes_after_the_time_it_was_told_and_not_before(
    database: Database, clock: Clock
) -> None:
    limiter = Limiter(database, clock)
    principal = await owner(database, requests_per_minute=4, tokens_per_minute=600)
    for left in (3, 2, 1, 0):
        headers = await tried(limiter, principal)
        assert headers["anthropic-ratelimit-requests-limit"] == "4"
        assert headers["anthropic-ratelimit-requests-remaining"] == str(left)
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"]).timestamp()
        assert 0 < reset - clock() <= 60 + 2
        assert headers["anthropic-ratelimit-tokens-remaining"] == "600"
    wait = await refusal(limiter, principal)
    assert wait == 15
    await clock.forward(wait - 2)
    assert await refusal(limiter, principal) <= 2
    await clock.forward(2)
    await tried(limiter, principal)
    await refusal(limiter, principal)


async def test_a_refused_request_costs_nothing(database: Database, clock: Clock) -> None:
    limiter = Limiter(database, clock)
    principal = await owner(database, requests_per_minute=3, tokens_per_minute=100, concurrency=1)
    await tried(limiter, principal, 95)
    for _ in range(5):  # for its tokens
        assert await refusal(limiter, principal, 50) in (26, 27)
    await clock.forward(27)
    async with limiter.admit(principal, "req_long", {}) as admission:
        await admission.charge(50)
        for _ in range(5):  # for want of a place
            assert await refusal(limiter, principal) == 1
    await tried(limiter, principal, 50)
    await refusal(limiter, principal, 50)


async def test_tokens_are_settled_with_what_was_used(database: Database, clock: Clock) -> None:
    limiter = Limiter(database, clock)
    principal = await owner(database, tokens_per_minute=600)

    async def answered(prompt: int, usage: Usage) -> int:
        headers: dict[str, str] = {}
        request_id = f"req_{next(names)}"
        async with limiter.admit(principal, request_id, headers) as admission:
            await admission.charge(prompt)
            limiter.on_turn(record(request_id, usage))
        return int(headers["anthropic-ratelimit-tokens-remaining"])

    assert await answered(100, Usage(input_tokens=40, cache_read_input_tokens=60, output_tokens=10)) == 500
    assert await answered(100, Usage(input_tokens=0, output_tokens=0)) == 450  # it was never read
    assert await answered(50, Usage(input_tokens=50, output_tokens=1000)) == 500
    # In debt: 500 - 1000.
    assert 50 <= await refusal(limiter, principal, 1) <= 51
    await clock.forward(51)
    await tried(limiter, principal, 1)
    # What is more than a minute's worth is let in once all of it is there.
    assert 58 <= await refusal(limiter, principal, 100_000) <= 60
    await clock.forward(60)
    await tried(limiter, principal, 100_000)
    assert await refusal(limiter, principal, 1) > 9000


async def test_what_was_used_counts_from_when_it_is_settled(database: Database, clock: Clock) -> None:
    limiter = Limiter(database, clock)
    principal = await owner(database, tokens_per_minute=600)
    async with limiter.admit(principal, "req_slow", {}) as admission:
        await admission.charge(10)
        await clock.forward(60)  # full again, and no more than full
        admission.used_tokens = 610
    assert await refusal(limiter, principal, 10) >= 1


async def test_counting_has_an_allowance_of_its_own(database: Database, clock: Clock) -> None:
    limiter = Limiter(database, clock)
    principal = await owner(database, requests_per_minute=1, concurrency=1)
    async with limiter.admit(principal, "req_one", {}):
        assert (await tried(limiter, principal, kind="counts"))["anthropic-ratelimit-requests-remaining"] == "0"
        with pytest.raises(RateLimitError):
            await tried(limiter, principal, kind="counts")


@pytest.mark.parametrize("jump", [-1e6, 1e6])
async def test_clocks_that_jump(database: Database, clock: Clock, jump: float) -> None:
    limiter = Limiter(database, clock)
    principal = await owner(database, requests_per_minute=2, concurrency=1)
    async with limiter.admit(principal, "req_one", {}):
        pass
    await tried(limiter, principal)
    lost = Limiter(database, clock)  # a server that dies
    await lost.leases.acquire(str(principal.key_id), 1)
    await clock.forward(jump)
    if jump > 0:  # full, and no more
        await tried(limiter, principal)
        await tried(limiter, principal)
        await refusal(limiter, principal)
        await clock.forward(-jump)
    await refusal(limiter, principal)
    await clock.forward(30)
    await tried(limiter, principal)


async def test_places_of_a_server_that_died_become_free(database: Database, clock: Clock) -> None:
    limiter, lost = Limiter(database, clock), Limiter(database, clock)
    principal = await owner(database, concurrency=1)
    assert await lost.leases.acquire(str(principal.key_id), 1)
    await clock.forward(LEASE_SECONDS - 5)
    assert await refusal(limiter, principal) == 1
    await clock.forward(6)
    await tried(limiter, principal)


async def test_places_of_long_requests_are_renewed(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_INTERVAL_SECONDS", 0.01)
    limiter = Limiter(database, clock)
    principal = await owner(database, concurrency=1)

    async def expiry() -> float:
        async with database.read() as connection:
            return float((await connection.execute(select(lease_table.c.expires_at))).scalar_one())

    async with limiter.admit(principal, "req_long", {}):
        for _ in range(3):
            before = await expiry()
            await clock.forward(LEASE_SECONDS - 10)
            while await expiry() <= before:
                await asyncio.sleep(0.01)
        assert await refusal(limiter, principal) == 1
    await asyncio.sleep(0.05)
    await tried(limiter, principal)


async def test_keys_without_limits_never_ask_the_database(database: Database) -> None:
    limiter = Limiter(database)
    principal = await owner(database)
    async with database.write() as connection:
        for table in ("allowances", "leases"):
            await connection.execute(text(f"ALTER TABLE {table} RENAME TO no_{table}"))
    for unlimited in (principal, Principal()):
        assert await tried(limiter, unlimited, 10**9) == {}
    limited = await owner(database, requests_per_minute=1)
    with pytest.raises(UnavailableError) as failed:
        await tried(limiter, limited)
    assert failed.value.retry_after


async def test_a_database_that_fails_at_the_end_changes_no_answer(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = Limiter(database)
    principal = await owner(database, tokens_per_minute=5, concurrency=1)
    async with limiter.admit(principal, "req_one", {}) as admission:
        await admission.charge(5)
        async with database.write() as connection:
            await connection.execute(text("ALTER TABLE allowances RENAME TO no_allowances"))
    assert "could not settle" in caplog.text


def record(request_id: str, usage: Usage) -> TurnRecord:
    return TurnRecord(
        origin=Origin(request_id),
        model="m",
        served_by="m",
        usage=usage,
        stop_reason="end_turn",
        error=None,
        times=Stopwatch().read_times(),
        request=None,  # type: ignore[arg-type] # nobody looks at it
        message=lambda: None,
    )


async def engine(goes_on: asyncio.Event, room: Iterator[int]) -> AsyncGenerator[StreamEvent]:
    """A turn that waits; the engine's queue has only so much room."""
    if next(room, None) is None:
        raise OverloadedError("full", retry_after=1)
    await goes_on.wait()
    yield Ping()
    yield MessageStop()


async def outcome(limiter: Limiter, principal: Principal, events: AsyncGenerator[StreamEvent]) -> str:
    try:
        async with limiter.admit(principal, f"req_{next(names)}", {}) as admission:
            return " ".join([event.type async for event in admission.answer(events)])
    except ApiError as error:
        assert error.retry_after == 1
        return f"{error.status}"


async def test_a_full_queue_is_told_to_who_fills_it(database: Database, clock: Clock) -> None:
    limiter = Limiter(database, clock)
    greedy, modest = await owner(database, requests_per_minute=60), await owner(database)
    goes_on, room = asyncio.Event(), iter(range(10))
    queue = [greedy] * 9 + [modest]
    waiting = [asyncio.create_task(outcome(limiter, who, engine(goes_on, room))) for who in queue]
    while limiter.waiting.total() < 10:
        await asyncio.sleep(0.01)
    assert await outcome(limiter, modest, engine(goes_on, room)) == "529"
    assert await outcome(limiter, greedy, engine(goes_on, room)) == "429"
    goes_on.set()
    assert set(await asyncio.gather(*waiting)) == {"ping message_stop"}
    assert not limiter.waiting
    # Those that were turned away cost nothing.
    assert (await tried(limiter, greedy))["anthropic-ratelimit-requests-remaining"] == "50"


async def test_who_is_alone_learns_that_the_server_is_full() -> None:
    limiter = Limiter()
    assert await outcome(limiter, Principal(), engine(asyncio.Event(), iter([]))) == "529"


async def test_the_place_is_free_before_the_end_is_told(database: Database, clock: Clock) -> None:
    limiter = Limiter(database, clock)
    principal = await owner(database, concurrency=1, tokens_per_minute=100)
    goes_on = asyncio.Event()
    goes_on.set()
    async with AsyncExitStack() as stack:
        first: Admission = await stack.enter_async_context(limiter.admit(principal, "req_1", {}))
        await first.charge(10)
        async for event in first.answer(engine(goes_on, iter([1]))):
            if event.type == "message_stop":
                break
            assert await refusal(limiter, principal) == 1
        await tried(limiter, principal)
