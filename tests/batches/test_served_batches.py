"""Batches on a served model: with the official SDK, beside other work, and through kills."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from sqlalchemy import create_engine, select, update

from commonweight.store.schema import batch_items
from conftest import KEY, Server, running
from pdf_files import MEMORY_BOMBS

MODEL = "any-name"


def params(text: object, max_tokens: int = 8) -> Any:
    return {"model": MODEL, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}


def client_of(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=server.key, max_retries=0)


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)


def test_with_the_sdk(server: Server) -> None:
    with client_of(server) as client:
        made = client.messages.batches.create(
            requests=[
                {"custom_id": "one", "params": params("Count to three.")},
                {"custom_id": "two", "params": params("Name a colour.")},
                {"custom_id": "bad", "params": params("x", max_tokens=10**9) | {"system": 7}},
            ]
        )
        assert made.processing_status in ("in_progress", "ended")
        until(lambda: client.messages.batches.retrieve(made.id).processing_status == "ended")
        counts = client.messages.batches.retrieve(made.id).request_counts
        assert (counts.succeeded, counts.errored) == (2, 1)
        results = {one.custom_id: one.result for one in client.messages.batches.results(made.id)}
        one = results["one"]
        assert one.type == "succeeded"
        assert one.message.type == "message"
        assert 0 < one.message.usage.output_tokens <= 8
        bad = results["bad"]
        assert bad.type == "errored"
        assert bad.error.error.type == "invalid_request_error"
        assert made.id in [batch.id for batch in client.messages.batches.list(limit=1)]
        assert client.messages.batches.delete(made.id).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.retrieve(made.id)


def test_a_document_that_breaks_its_parser_costs_its_own_request_only(server: Server) -> None:
    bomb = base64.b64encode(MEMORY_BOMBS["a form that lists itself"]).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": bomb}
    items = [{"custom_id": f"harmless-{i}", "params": params(f"{i}?")} for i in range(5)]
    items.insert(0, {"custom_id": "bomb", "params": params([{"type": "document", "source": source}])})
    with client_of(server) as client:
        made = client.messages.batches.create(requests=items)  # type: ignore[arg-type]
        until(lambda: client.messages.batches.retrieve(made.id).processing_status == "ended")
        results = {one.custom_id: one.result for one in client.messages.batches.results(made.id)}
    bad = results.pop("bomb")
    assert bad.type == "errored"
    assert bad.error.error.type == "invalid_request_error"
    assert "messages.0.content.0.document.source: The PDF specified was not valid" in bad.error.error.message
    assert {one.type for one in results.values()} == {"succeeded"}


def test_others_do_not_wait_for_a_batch(server: Server) -> None:
    with client_of(server) as client:
        batch = client.messages.batches.create(
            requests=[{"custom_id": f"r-{i}", "params": params(f"{i}?", 400)} for i in range(40)]
        )
        try:
            # More at once than there are places for; none of them waits until a place is free by itself.
            answers = [client.messages.create(**params("Hello", 4)) for _ in range(3)]
            assert all(answer.usage.output_tokens > 0 for answer in answers)
            assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
        finally:
            client.messages.batches.cancel(batch.id)
            until(lambda: client.messages.batches.retrieve(batch.id).processing_status == "ended")
            client.messages.batches.delete(batch.id)


@pytest.mark.slow
def test_a_kill_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    names = {f"r-{i}" for i in range(40)}
    database = create_engine(f"sqlite:///{data / 'commonweight.db'}")

    def finished() -> dict[str, str]:
        columns = batch_items.c.custom_id, batch_items.c.result
        with database.connect() as connection:
            rows = connection.execute(select(*columns).where(batch_items.c.state == "succeeded"))
            return {row.custom_id: row.result for row in rows}

    arguments = ("--data", str(data), "--parallel", "2")
    command = [sys.executable, "-m", "commonweight", "serve", "--port", "0", "--threads", "1", "--cache-disk", "0"]
    log = tmp_path / "first.txt"
    with log.open("wb") as output:
        first = subprocess.Popen(
            [*command, "--api-key", KEY, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until(lambda: "Ctrl-C" in log.read_text() or first.poll() is not None)
        url = next(line.strip() for line in log.read_text().splitlines() if line.startswith("    http://"))
        body = {"requests": [{"custom_id": name, "params": params(name, 20)} for name in sorted(names)]}
        batch = httpx.post(f"{url}/v1/messages/batches", json=body, headers={"x-api-key": KEY}).json()
        until(lambda: len(finished()) >= 5)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    before = finished()
    with database.begin() as connection:  # as if the time had passed after which the killed one's items are free
        connection.execute(update(batch_items).values(lease_until=0).where(batch_items.c.state == "running"))
    database.dispose()
    assert 5 <= len(before) < len(names)

    with running(tmp_path / "second.txt", *arguments) as (server, _):
        headers = {"x-api-key": server.key}
        path = f"{server.url}/v1/messages/batches/{batch['id']}"
        until(lambda: httpx.get(path, headers=headers).json()["processing_status"] == "ended")
        assert httpx.get(path, headers=headers).json()["request_counts"]["succeeded"] == len(names)
        lines = list(map(json.loads, httpx.get(f"{path}/results", headers=headers).text.splitlines()))
    assert sorted(line["custom_id"] for line in lines) == sorted(names)
    results = {line["custom_id"]: line["result"] for line in lines}
    assert {name: results[name] for name in before} == {name: json.loads(text) for name, text in before.items()}
