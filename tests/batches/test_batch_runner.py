"""Whatever happens to those who run a batch, every item of it ends once, and once only."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from batching import DIED, FULL, Clock, Office, params, request, requests, states, until, upload
from commonweight.batches import runner as runner_module
from commonweight.batches.runner import LEASE_SECONDS, MAX_CRASHES, RESULT_RETENTION_SECONDS
from commonweight.batches.service import BATCH_LIFETIME_SECONDS
from commonweight.engines.contract import EngineError
from commonweight.messages.batches import BatchResult
from commonweight.messages.errors import InvalidRequestError, NotFoundError
from commonweight.store import Database
from commonweight.store.batch_items import BatchItemStore
from commonweight.store.keys import ApiKey, add_key
from commonweight.store.schema import batch_items, batches


async def test_every_request_gets_its_answer(office: Office) -> None:
    batch = await office.create(requests(10))
    assert (batch.status, batch.total, batch.expires_at - batch.created_at) == (
        "in_progress",
        10,
        BATCH_LIFETIME_SECONDS,
    )
    async with office.runner.run_in_background():
        ended = await office.ended(batch.id)
    assert (ended.succeeded, ended.errored, ended.canceled, ended.expired) == (10, 0, 0, 0)
    results = await office.results(batch.id)
    assert sorted(custom_id for custom_id, _ in results) == sorted(f"r-{i}" for i in range(10))
    for custom_id, result in results:
        BatchResult.model_validate({"custom_id": custom_id, "result": result})
        assert list(result) == ["type", "message"]
        assert result["message"]["content"] == [{"type": "text", "text": "Fine."}]
    assert all(job.priority == "batch" for job in office.engine.jobs)


async def test_the_request_is_what_was_uploaded(office: Office) -> None:
    text = '\u0000 🙂 é \u202e \\ " 1e400'
    batch = await office.create([request("a", text=text, temperature=0.1, top_k=2**63 - 1)])
    async with office.runner.run_in_background():
        await office.ended(batch.id)
    assert text in office.engine.prompts[0]
    [(_, result)] = await office.results(batch.id)
    assert result["type"] == "succeeded"


async def test_what_is_wrong_with_a_request_is_its_own_result(office: Office) -> None:
    wrong = [
        {"custom_id": "no-messages", "params": {"model": "m", "max_tokens": 5}},
        {"custom_id": "nothing", "params": {}},
        request("too-long", text="word " * 300_000),
        request("fine"),
        request("deep", metadata=deep(500)),
    ]
    batch = await office.create(wrong)
    async with office.runner.run_in_background():
        ended = await office.ended(batch.id)
    assert (ended.succeeded, ended.errored) == (1, 4)
    results = dict(await office.results(batch.id))
    assert results["fine"]["type"] == "succeeded"
    for custom_id, words in {
        "no-messages": "messages: Field required",
        "nothing": "model: Field required",
        "too-long": "prompt is too long: ",
        "deep": "The request is not valid JSON: recursion limit exceeded",
    }.items():
        result = results[custom_id]
        assert list(result) == ["type", "error"]
        assert result["type"] == "errored"
        error = result["error"]
        assert list(error) == ["type", "error", "request_id"]
        assert error["request_id"].startswith("req_")
        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["message"].startswith(words)


def deep(levels: int) -> object:
    value: object = {}
    for _ in range(levels):
        value = {"a": value}
    return value


async def test_an_engine_that_is_full_or_dies_is_no_error_of_the_request(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "MAX_RETRY_DELAY_SECONDS", 0.01)
    engine = office.engine
    engine.fails_with = [FULL] * 20
    batch = await office.create(requests(3))
    async with office.runner.run_in_background():
        await office.ended(batch.id)
        engine.deaths = 2
        second = await office.create(requests(2))
        assert (await office.ended(second.id)).succeeded == 2
    assert engine.deaths == 0
    assert (await office.desk.get("", batch.id)).succeeded == 3


async def test_a_request_that_the_engine_dies_of_again_and_again_is_given_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "MAX_RETRY_DELAY_SECONDS", 0.01)
    office.engine.deaths = MAX_CRASHES
    batch = await office.create(requests(1))
    async with office.runner.run_in_background():
        assert (await office.ended(batch.id)).errored == 1
    assert office.engine.deaths == 0
    [(_, result)] = await office.results(batch.id)
    assert result["error"]["error"] == {"type": "api_error", "message": str(DIED)}


async def test_an_answer_that_cannot_be_made_is_an_error_at_once(office: Office) -> None:
    office.engine.fails_with = [EngineError("the answer could not be held to its grammar")]
    batch = await office.create(requests(1))
    async with office.runner.run_in_background():
        assert (await office.ended(batch.id)).errored == 1


async def test_servers_share_the_work(office_on: Callable[[Database], Office], database_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        offices = [office_on(await stack.enter_async_context(Database.open(database_url))) for _ in range(3)]
        batch = await offices[0].create(requests(90))
        for each in offices:
            await stack.enter_async_context(each.runner.run_in_background())
        assert (await offices[1].ended(batch.id)).succeeded == 90
        done = [len(each.engine.jobs) for each in offices]
        assert sum(done) == 90
        assert min(done) > 0
        results = await offices[2].results(batch.id)
        assert sorted(custom_id for custom_id, _ in results) == sorted(f"r-{i}" for i in range(90))


async def test_a_small_batch_waits_for_no_large_one(office: Office) -> None:
    large = await office.create(requests(60, "large"))
    small = await office.create(requests(5, "small"))
    theirs = await office.create(requests(5, "theirs"), tenant="t")
    async with office.runner.run_in_background():
        for batch, tenant in ((small, ""), (theirs, "t")):
            await office.ended(batch.id, tenant)
        assert (await office.desk.get("", large.id)).status == "in_progress"
        await office.ended(large.id)
    order = [next(name for name in ("large", "small", "theirs") if f"{name} " in p) for p in office.engine.prompts]
    # Tenants in turns, and the batches of each in turns.
    assert order[:12].count("theirs") == 5
    assert max(i for i, name in enumerate(order) if name == "small") < 24
    assert {job.tenant for job in office.engine.jobs} == {"", "t"}


async def test_cancelling_stops_what_runs_and_begins_nothing_more(office: Office) -> None:
    office.engine.gate.clear()
    batch = await office.create(requests(30))
    async with office.runner.run_in_background():
        await until(lambda: office.engine.running == 4)
        canceling = await office.desk.cancel("", batch.id)
        assert canceling.status == "canceling"
        assert canceling.cancel_initiated_at is not None
        ended = await office.ended(batch.id)
        assert (office.engine.cancelled, office.engine.most_running) == (4, 4)
    assert (ended.canceled, ended.total) == (30, 30)
    assert {result["type"] for _, result in await office.results(batch.id)} == {"canceled"}
    with pytest.raises(InvalidRequestError, match="has ended and can no longer be canceled"):
        await office.desk.cancel("", batch.id)


async def test_what_was_answered_before_the_cancelling_stays(office: Office) -> None:
    batch = await office.create(requests(8))
    async with office.runner.run_in_background():
        await until(lambda: len(office.engine.jobs) >= 2)
        office.engine.gate.clear()
        await until(lambda: office.engine.running == 4 or len(office.engine.jobs) == 8)
        await office.desk.cancel("", batch.id)
        ended = await office.ended(batch.id)
    assert ended.succeeded + ended.canceled == 8
    assert ended.succeeded >= 2
    counted = [result["type"] for _, result in await office.results(batch.id)]
    assert counted.count("succeeded") == ended.succeeded


async def test_a_batch_that_nobody_runs_can_be_cancelled(office: Office) -> None:
    batch = await office.create(requests(3))
    assert (await office.desk.cancel("", batch.id)).status == "canceling"
    assert (await office.desk.cancel("", batch.id)).status == "canceling"
    async with office.runner.run_in_background():
        assert (await office.ended(batch.id)).canceled == 3
    assert office.engine.jobs == []


async def test_what_is_not_answered_in_a_day_expires(office: Office, clock: Clock) -> None:
    batch = await office.create(requests(8))
    async with office.runner.run_in_background():
        await until(lambda: len(office.engine.jobs) >= 1)
        office.engine.gate.clear()
        await until(lambda: office.engine.running == 4 or len(office.engine.jobs) == 8)
        clock.now += BATCH_LIFETIME_SECONDS - LEASE_SECONDS / 2
        office.runner.wake()
        await asyncio.sleep(0.1)
        assert (await office.desk.get("", batch.id)).status == "in_progress"
        clock.now += LEASE_SECONDS / 2
        office.runner.wake()
        ended = await office.ended(batch.id)
    assert ended.succeeded + ended.expired == 8
    assert ended.expired >= 1
    assert ended.ended_at == clock.now
    kinds = {result["type"] for _, result in await office.results(batch.id)}
    assert kinds <= {"succeeded", "expired"}


async def test_an_item_of_an_expired_batch_is_not_begun(office: Office, clock: Clock) -> None:
    batch = await office.create(requests(3))
    clock.now += BATCH_LIFETIME_SECONDS
    async with office.runner.run_in_background():
        assert (await office.ended(batch.id)).expired == 3
    assert office.engine.jobs == []


async def test_results_go_after_29_days_and_the_batch_stays(
    office: Office, clock: Clock, database: Database
) -> None:
    batch = await office.create(requests(3))
    async with office.runner.run_in_background():
        await office.ended(batch.id)
        clock.now += RESULT_RETENTION_SECONDS - 1
        office.runner.wake()
        await asyncio.sleep(0.1)
        assert len(await office.results(batch.id)) == 3
        clock.now += 2
        office.runner.wake()
        while await states(database):
            await asyncio.sleep(0.01)
    archived = await office.desk.get("", batch.id)
    assert (archived.archived_at, archived.succeeded) == (clock.now, 3)
    with pytest.raises(NotFoundError, match="no longer available"):
        await office.desk.read_results("", batch.id)


async def test_a_batch_is_deleted_with_all_its_items_and_only_once_it_has_ended(
    office: Office, database: Database
) -> None:
    batch = await office.create(requests(3))
    with pytest.raises(InvalidRequestError, match="cannot be deleted while it is processing; cancel it first"):
        await office.desk.delete("", batch.id)
    async with office.runner.run_in_background():
        await office.ended(batch.id)
        await office.desk.delete("", batch.id)
        with pytest.raises(NotFoundError):
            await office.desk.get("", batch.id)
        while await states(database):
            await asyncio.sleep(0.01)
        async with database.read() as connection:
            while (await connection.execute(select(batches))).first() is not None:
                await connection.rollback()
                await asyncio.sleep(0.01)


async def test_results_that_go_while_they_are_read_are_not_taken_for_all(
    office: Office, database: Database
) -> None:
    batch = await office.create(requests(150))
    async with office.runner.run_in_background():
        await office.ended(batch.id)
    lines = await office.desk.read_results("", batch.id)
    await anext(lines)
    async with database.write() as connection:
        await connection.execute(batch_items.delete())
    with pytest.raises(RuntimeError, match="went while they were read"):
        await anext(lines)


async def test_what_was_received_in_part_is_never_run_and_cleaned_up(
    office: Office, clock: Clock, database: Database
) -> None:
    batch = await office.create(requests(3))
    async with database.write() as connection:  # as a server that was killed then leaves it
        await connection.execute(update(batches).values(status="receiving", expires_at=clock.now + 60))
    with pytest.raises(NotFoundError):
        await office.desk.get("", batch.id)
    assert await office.desk.list_page("", 20, None, None) == ([], False)
    async with office.runner.run_in_background():
        await asyncio.sleep(0.1)
        assert await states(database) == {"waiting": 3}
        clock.now += 61
        office.runner.wake()
        while await states(database):
            await asyncio.sleep(0.01)
    assert office.engine.jobs == []


async def test_it_goes_on_when_the_database_is_away_for_a_while(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "MAX_RETRY_DELAY_SECONDS", 0.01)
    real, luck = Database.write, random.Random(0)

    def flaky(self: Database) -> contextlib.AbstractAsyncContextManager[object]:
        if luck.random() < 0.3:
            raise OSError("connection refused")
        return real(self)

    batch = await office.create(requests(10))
    async with office.runner.run_in_background():
        monkeypatch.setattr(Database, "write", flaky)
        assert (await office.ended(batch.id)).succeeded == 10
        monkeypatch.undo()
    assert len(office.engine.jobs) == 10


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_what_the_database_did_before_it_went_away_strands_no_item(
    office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    monkeypatch.setattr(runner_module, "MAX_RETRY_DELAY_SECONDS", 0.01)
    real, luck = Database.write, random.Random(0)

    @contextlib.asynccontextmanager
    async def cut_off(self: Database) -> AsyncIterator[AsyncConnection]:
        async with real(self) as connection:
            yield connection
        if luck.random() < 0.4:
            raise OSError("connection reset")

    batch = await office.create(requests(20))
    async with office.runner.run_in_background():
        if is_cancelled:
            office.engine.gate.clear()
            await until(lambda: office.engine.running == 4)
            await office.desk.cancel("", batch.id)
        with monkeypatch.context() as failing:
            failing.setattr(Database, "write", cut_off)
            while (ended := await office.desk.get("", batch.id)).status != "ended":
                await asyncio.sleep(0.02)
                clock.now += LEASE_SECONDS / 2
                office.runner.wake()
    assert (ended.canceled if is_cancelled else ended.succeeded) == 20


async def test_a_batch_is_cancelled_even_if_the_database_fails_in_between(
    office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "MAX_RETRY_DELAY_SECONDS", 0.01)
    real, failures = BatchItemStore.record, iter([True] * 3)

    async def failing(self: BatchItemStore, *what: Any) -> bool:
        if next(failures, False):
            raise OSError("connection refused")
        return await real(self, *what)

    office.engine.gate.clear()
    batch = await office.create(requests(4))
    async with office.runner.run_in_background():
        await until(lambda: office.engine.running == 4)
        monkeypatch.setattr(BatchItemStore, "record", failing)
        await office.desk.cancel("", batch.id)
        await until(lambda: office.engine.cancelled == 4)
        while (ended := await office.desk.get("", batch.id)).status != "ended":
            await asyncio.sleep(0.02)
            clock.now += LEASE_SECONDS / 2
            office.runner.wake()
    assert ended.canceled == 4


async def test_records_are_kept_as_of_any_turn(office: Office) -> None:
    batch = await office.create([request("a"), {"custom_id": "b", "params": params(max_tokens=1)}], tenant="t")
    async with office.runner.run_in_background():
        await office.ended(batch.id, "t")
    assert {(r.origin.tenant, r.origin.priority, r.outcome) for r in office.records} == {
        ("t", "batch", "end_turn"),
        ("t", "batch", "max_tokens"),
    }
    assert len({r.origin.request_id for r in office.records}) == 2


async def test_what_a_key_sets_aside_it_sets_aside_for_its_batches(office: Office) -> None:
    key = ApiKey("key_1", "k", "", "0" * 64, "", "messages", None, None, None, 0.0, waived="hate fraud")
    await add_key(office.database, key)
    for key_id in ("key_1", None):
        batch = await office.desk.create(upload({"requests": [request("a")]}), "", key_id)
        async with office.runner.run_in_background():
            await office.ended(batch.id)
    assert [record.origin.waived for record in office.records] == [{"hate", "fraud"}, set()]


async def test_it_ends_though_news_come_at_the_same_moment(office: Office) -> None:
    for _ in range(3):
        async with office.runner.run_in_background():
            await asyncio.sleep(0.05)  # both loops wait by now
            office.runner.wake()
