"""The ledger: every turn is written, late if need be, and its content only where it is asked for."""

import asyncio
import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, text

from commonweight.access import Ledger, ledger
from commonweight.access.keyring import make_key
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import CacheCreation, Message, OutputText, OutputTokensDetails, Usage
from commonweight.store import Database
from commonweight.store.keys import add_key
from commonweight.store.schema import contents, usage
from commonweight.store.usage import compute_totals, forget_contents
from commonweight.turn import Origin, TurnRecord
from commonweight.turn.record import Times, TokenGaps

DAY = 86400
numbers = itertools.count()
REQUEST = MessageRequest.model_validate(
    {"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": "secret question"}]}
)
USAGE = Usage(
    input_tokens=1,
    cache_read_input_tokens=20,
    cache_creation_input_tokens=700,
    cache_creation=CacheCreation(ephemeral_5m_input_tokens=300, ephemeral_1h_input_tokens=400),
    output_tokens=50,
    output_tokens_details=OutputTokensDetails(thinking_tokens=6),
)


def turn(at: float = 1000.0, key_id: str | None = None, **more: Any) -> TurnRecord:
    message = Message(id="msg_1", model="any", content=[OutputText(text="secret answer")], usage=USAGE)
    fields: dict[str, Any] = {
        "origin": Origin(f"req_{next(numbers)}", "acme", key_id),
        "model": "any \0 name that a client likes" * 100,
        "served_by": "model",
        "usage": USAGE,
        "stop_reason": "end_turn",
        "error": None,
        "times": Times(at, 0.1, 0.2, 0.3, 0.4, 2.5, TokenGaps()),
        "request": REQUEST,
        "message": lambda: message,
    }
    return TurnRecord(**fields | more)


async def rows(database: Database, table: Any) -> list[dict[str, Any]]:
    async with database.read() as connection:
        return [dict(row._mapping) for row in await connection.execute(select(table))]


async def break_usage(database: Database, name: str, to: str) -> None:
    async with database.write() as connection:
        await connection.execute(text(f"ALTER TABLE {name} RENAME TO {to}"))


async def test_a_turn_is_recorded_without_what_was_said(database: Database) -> None:
    async with Ledger.open(database) as book:
        book.on_turn(turn(key_id="key_1"))
    [row] = await rows(database, usage)
    assert row.pop("request_id").startswith("req_")
    assert row == {
        "at": 1000.0,
        "tenant": "acme",
        "key_id": "key_1",
        "kind": "message",
        "model": "model",
        "input_tokens": 1,
        "cache_read_tokens": 20,
        "cache_5m_tokens": 300,
        "cache_1h_tokens": 400,
        "output_tokens": 50,
        "thinking_tokens": 6,
        "stop_reason": "end_turn",
        "error": None,
        "verdict": None,
        "first_token_seconds": 0.4,
        "seconds": 2.5,
    }
    assert await rows(database, contents) == []


async def test_nothing_is_lost_when_the_server_ends(database: Database) -> None:
    async with Ledger.open(database) as book:
        for _ in range(ledger.MAX_RECORDS_PER_WRITE * 2 + 3):
            book.on_turn(turn())
    assert len(await rows(database, usage)) == ledger.MAX_RECORDS_PER_WRITE * 2 + 3


async def test_records_are_written_while_it_runs(database: Database) -> None:
    async with Ledger.open(database) as book:
        for expected in (1, 2):
            book.on_turn(turn())
            while len(await rows(database, usage)) < expected:
                await asyncio.sleep(0.01)


async def test_content_is_kept_for_its_time(database: Database) -> None:
    async with Ledger.open(database, keep_content=2) as book:
        book.on_turn(turn(at=1e10))
        book.on_turn(turn(at=1e10 + DAY, message=lambda: None))
    first, second = await rows(database, contents)
    assert json.loads(first["request"])["messages"][0]["content"][0]["text"] == "secret question"
    assert json.loads(first["response"])["content"][0]["text"] == "secret answer"
    assert (first["tenant"], second["response"]) == ("acme", None)
    assert await forget_contents(database, 1e10 + 2 * DAY - 1) == 0
    assert await forget_contents(database, 1e10 + 2 * DAY) == 1
    assert [row["request_id"] for row in await rows(database, contents)] == [second["request_id"]]
    assert len(await rows(database, usage)) == 2


async def test_a_server_that_starts_deletes_what_is_old(database: Database) -> None:
    async with Ledger.open(database, keep_content=1) as book:
        book.on_turn(turn(at=1000.0))
    async with Ledger.open(database):
        while await rows(database, contents):
            await asyncio.sleep(0.01)


async def test_records_wait_for_a_database_that_is_gone(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger, "WRITE_RETRY_SECONDS", 0.01)
    async with Ledger.open(database, keep_content=1) as book:
        await break_usage(database, "usage", "gone")
        for _ in range(3):
            book.on_turn(turn())
        while "wait" not in caplog.text:
            await asyncio.sleep(0.01)
        book.on_turn(turn())
        await break_usage(database, "gone", "usage")
        while len(await rows(database, usage)) < 4:
            await asyncio.sleep(0.01)
    assert len(await rows(database, contents)) == 4
    assert "secret" not in caplog.text


async def test_what_waits_is_bounded_and_what_is_lost_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger, "CLOSE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(ledger, "MAX_PENDING_RECORDS", 10)
    monkeypatch.setattr(ledger, "MAX_PENDING_CHARACTERS", 500)
    async with Ledger.open(database, keep_content=1) as book:
        await break_usage(database, "usage", "gone")
        for _ in range(25):
            book.on_turn(turn())
        assert len(book._records) == 10
        assert book._characters < 2000
    assert "10 usage records could not be written" in caplog.text
    assert "is not kept" in caplog.text


async def test_a_record_that_came_twice_counts_once(database: Database) -> None:
    async with Ledger.open(database, keep_content=1) as book:
        book.on_turn(again := turn())
        book.on_turn(again)
    assert len(await rows(database, usage)) == len(await rows(database, contents)) == 1


async def test_totals(database: Database) -> None:
    one, other = make_key("one", "acme").record, make_key("other", "else").record
    for key in (one, other):
        await add_key(database, key)
    days = [datetime(2026, 3, day, 23, 59, 59, tzinfo=UTC).timestamp() for day in (1, 2)]
    async with Ledger.open(database) as book:
        book.on_turn(turn(days[0], one.id))
        book.on_turn(turn(days[0], one.id, error="api_error", stop_reason=None))
        book.on_turn(turn(days[1], one.id))
        book.on_turn(turn(days[1] + 1, other.id))
        book.on_turn(turn(days[1] + 1, "key_unknown"))
        book.on_turn(turn(days[1] + 1, None, origin=Origin("req_batch", priority="batch")))
    assert [
        (total.group, total.requests, total.errors) for total in await compute_totals(database, ["day", "key"])
    ] == [
        ({"day": "2026-03-01", "key": "one"}, 2, 1),
        ({"day": "2026-03-02", "key": "one"}, 1, 0),
        ({"day": "2026-03-03", "key": "-"}, 1, 0),
        ({"day": "2026-03-03", "key": "key_unknown"}, 1, 0),
        ({"day": "2026-03-03", "key": "other"}, 1, 0),
    ]
    [of_one] = await compute_totals(database, ["model"], key="one")
    assert (of_one.input_tokens, of_one.cache_read_tokens, of_one.cache_write_tokens) == (3, 60, 2100)
    assert of_one.output_tokens == 150
    assert await compute_totals(database, ["model"], key=one.id) == [of_one]
    assert [total.requests for total in await compute_totals(database, ["model"], since=days[1])] == [4]
    assert [total.group["tenant"] for total in await compute_totals(database, ["tenant"])] == ["", "acme"]
    assert [total.requests for total in await compute_totals(database, ["key"], tenant="acme", key="other")] == [1]
    assert await compute_totals(database, ["day"], key="nobody") == []
