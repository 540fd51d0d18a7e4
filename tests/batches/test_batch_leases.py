"""Leases of batch items: what becomes of items whose servers stop, die or stand still."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from batching import Clock, Office, request, requests, states, until
from commonweight.batches import runner as runner_module
from commonweight.batches.runner import LEASE_SECONDS, MAX_CRASHES
from commonweight.engines.contract import Job
from commonweight.store import Database
from commonweight.store.batch_items import BatchItemStore
from commonweight.store.batches import BatchStore
from replay import Replaying


async def test_what_is_not_done_when_the_server_stops_is_done_by_the_next(
    office: Office, office_on: Callable[[Database], Office], database: Database
) -> None:
    batch = await office.create(requests(6))
    async with office.runner.run_in_background():
        office.engine.gate.clear()
        await until(lambda: office.engine.running == 4)
        assert (await states(database)).get("running") == 4
    assert await states(database) == {"waiting": 6}
    other = office_on(database)
    async with other.runner.run_in_background():
        assert (await other.ended(batch.id)).succeeded == 6


async def test_the_items_of_a_server_that_is_gone_are_run_again(
    office: Office,
    office_on: Callable[[Database], Office],
    database: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def cut_off() -> None:
        """It renews nothing."""

    monkeypatch.setattr(office.runner, "_maintain", cut_off)
    batch = await office.create(requests(4))
    async with office.runner.run_in_background():
        office.engine.gate.clear()
        await until(lambda: office.engine.running == 4)
        other = office_on(database)
        clock.now += LEASE_SECONDS + 1
        async with other.runner.run_in_background():
            assert (await other.ended(batch.id)).succeeded == 4
            # And when it comes back, it has nothing to say any more.
            before = await office.results(batch.id)
            office.engine.gate.set()
            await until(lambda: office.engine.running == 0)
            await asyncio.sleep(0.1)
            assert await office.results(batch.id) == before
    assert len(office.engine.jobs) == len(other.engine.jobs) == 4


async def test_an_item_that_servers_die_of_is_given_up_and_the_others_are_done(
    office_on: Callable[[Database], Office], database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    async def live(batch_id: str) -> bool:
        """A server's life; whether it saw the batch end. Until then one of its requests kills it."""
        office = office_on(database)
        is_dead = asyncio.Event()
        run = office.engine.run

        @contextlib.asynccontextmanager
        async def run_until_death(job: Job) -> AsyncIterator[Replaying]:
            text = office.engine.text(job.token_ids)
            started.append("killer" if "killer" in text else "harmless")
            if "killer" in text:
                is_dead.set()
                await asyncio.Event().wait()
            async with run(job) as generation:
                yield generation

        async def release_nothing() -> None:
            pass

        monkeypatch.setattr(office.engine, "run", run_until_death)
        monkeypatch.setattr(office.runner._items, "release_all", release_nothing)
        async with office.runner.run_in_background():
            ending, dying = asyncio.create_task(office.ended(batch_id)), asyncio.create_task(is_dead.wait())
            await asyncio.wait({ending, dying}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            dying.cancel()
        clock.now += LEASE_SECONDS + 1
        return not is_dead.is_set()

    office = office_on(database)
    batch = await office.create([request("k", text="killer"), *requests(9)])
    lives = 1
    while not await live(batch.id):
        lives += 1
    ended = await office.desk.get("", batch.id)
    assert (ended.succeeded, ended.errored, lives) == (9, 1, MAX_CRASHES + 1)
    assert started.count("killer") == MAX_CRASHES
    results = dict(await office.results(batch.id))
    assert results["k"]["error"]["error"]["type"] == "api_error"
    assert "given up" in results["k"]["error"]["error"]["message"]


async def test_a_server_that_stops_in_order_gives_no_item_a_bad_name(
    office_on: Callable[[Database], Office], database: Database
) -> None:
    batch = await office_on(database).create(requests(2))
    for _ in range(2 * MAX_CRASHES):
        office = office_on(database)
        office.engine.gate.clear()
        async with office.runner.run_in_background():
            await until(lambda office=office: office.engine.running == 2)  # type: ignore[misc]
    office = office_on(database)
    async with office.runner.run_in_background():
        assert (await office.ended(batch.id)).succeeded == 2


async def test_a_clock_that_is_put_back_keeps_no_item(
    office: Office,
    office_on: Callable[[Database], Office],
    database: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def killed() -> None:
        """It gives nothing back."""

    monkeypatch.setattr(BatchItemStore, "release_all", lambda _: killed())
    batch = await office.create(requests(4))
    async with office.runner.run_in_background():
        office.engine.gate.clear()
        await until(lambda: office.engine.running == 4)
    clock.now -= 24 * 60 * 60
    other = office_on(database)
    async with other.runner.run_in_background():
        assert (await other.ended(batch.id)).succeeded == 4


async def test_leases_are_renewed_while_a_large_batch_is_cleared_away(
    office: Office, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "ROWS_PER_TRANSACTION", 5)
    done: list[str] = []

    def noted(owner: type, name: str) -> None:
        real = getattr(owner, name)

        async def call(*what: Any) -> Any:
            done.append(name)
            return await real(*what)

        monkeypatch.setattr(owner, name, call)

    noted(BatchItemStore, "renew")
    noted(BatchItemStore, "settle")
    noted(BatchStore, "purge_deleted")
    batch = await office.create(requests(30))
    await office.desk.cancel("", batch.id)
    async with office.runner.run_in_background():
        assert (await office.ended(batch.id)).canceled == 30
        await office.desk.delete("", batch.id)
        while await states(database):
            await asyncio.sleep(0.01)
    for name in ("settle", "purge_deleted"):
        places = [place for place, one in enumerate(done) if one == name]
        assert len(places) >= 30 / 5
        assert all("renew" in done[first:then] for first, then in pairwise(places))
