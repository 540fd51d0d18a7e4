"""A database that goes and comes back, that says nothing, or that another one locks."""

import asyncio
import contextlib
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from live_servers import Life, Site, assert_right, forced, marker_of, until, work
from sqlalchemy import func, select

from commonweight.store import Database
from commonweight.store.schema import usage
from commonweight.store.urls import STATEMENT_TIMEOUT_SECONDS
from databases import Cluster, empty_database, postgresql

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with postgresql() as cluster:
        yield cluster


async def _records(url: str) -> int:
    async with Database.open(url) as database, database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(usage))).scalar_one()


def refused(response: httpx.Response) -> None:
    """It says in the API's shape that now is not the time."""
    assert response.status_code == 503, response.text
    assert response.json()["error"]["type"] == "api_error"
    assert int(response.headers["retry-after"]) > 0


def everything_that_needs_it(life: Life, key: str) -> None:
    """What cannot be done without a database is refused."""
    own = {"x-api-key": key}
    refused(life.http.post("/v1/messages", json=forced("x"), headers=own))
    refused(life.http.post("/v1/messages", json={**forced("x"), "stream": True}, headers=own))
    refused(life.http.get("/v1/messages/batches"))
    refused(life.http.post("/v1/messages/batches", json={"requests": [{"custom_id": "x", "params": forced("x")}]}))
    refused(life.http.get("/v1/files"))
    refused(life.http.post("/v1/files", files={"file": ("name.bin", b"lost")}))
    ready = life.http.get("/ready")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, False)
    assert life.http.get("/health").json()["status"] == "ok"


def test_postgresql_goes_and_comes_back(tmp_path: Path, cluster: Cluster) -> None:
    url = asyncio.run(empty_database(cluster.folder))
    site = Site(tmp_path, "--parallel", "4", database=url)
    key = site.key("alice", "--requests-per-minute", "1000")
    with site.serving() as life:
        life.check()
        life.upload(b"kept")
        batch = life.create_batch(work(60))
        site.until_finished(batch, 1)
        for number, how in enumerate((signal.SIGQUIT, signal.SIGINT)):
            stream = life.stream().begun()
            cluster.stop(how)
            everything_that_needs_it(life, key)
            assert marker_of(life.stream(forced(f"away-{number}")).message()) == f"away-{number}"
            time.sleep(5)
            cluster.start()
            life.until_ready()
            stream.message()
            assert marker_of(life.ask(forced("back"), key).message()) == "back"
        assert_right(life.ended(batch))
        life.check()
        turns = sum(value for name, value in life.figures().items() if name.startswith("commonweight_turns_total"))
        until(lambda: asyncio.run(_records(url)) == turns, "the ledger has every turn")


@contextlib.contextmanager
def silent(cluster: Cluster) -> Iterator[None]:
    """None of its processes runs, and no connection is closed."""
    assert cluster.process is not None
    parent = psutil.Process(cluster.process.pid)
    processes = [parent, *parent.children()]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_postgresql_says_nothing(tmp_path: Path, cluster: Cluster) -> None:
    url = asyncio.run(empty_database(cluster.folder))
    site = Site(tmp_path, "--parallel", "4", database=url)
    key = site.key("alice", "--requests-per-minute", "1000")
    with site.serving() as life:
        life.check()
        batch = life.create_batch(work(60))
        with silent(cluster):
            ready = life.http.get("/ready")
            assert (ready.status_code, ready.json()["checks"]["database"]) == (503, False)
            assert marker_of(life.stream(forced("silence")).message()) == "silence"
            refused(life.http.post("/v1/messages", json=forced("x"), headers={"x-api-key": key}))
            refused(life.http.get("/v1/files"))
        assert life.batch(batch)["processing_status"] == "in_progress"
        life.until_ready()
        assert_right(life.ended(batch))
        life.check()


def test_another_locks_sqlite(tmp_path: Path) -> None:
    site = Site(tmp_path, "--parallel", "4")
    key = site.key("alice", "--requests-per-minute", "1000")
    with site.serving() as life:
        life.check()
        batch = life.create_batch(work(60))
        site.until_finished(batch, 1)
        with contextlib.closing(sqlite3.connect(site.data / "commonweight.db", timeout=60)) as other:
            other.isolation_level = None
            other.execute("BEGIN IMMEDIATE")
            ends = time.monotonic() + STATEMENT_TIMEOUT_SECONDS + 15
            assert marker_of(life.stream(forced("locked")).message()) == "locked"
            refused(life.http.post("/v1/messages", json=forced("x"), headers={"x-api-key": key}))
            assert life.http.get("/v1/messages/batches").status_code == 200  # readers go on
            assert life.http.get("/health").json()["status"] == "ok"
            time.sleep(max(0.0, ends - time.monotonic()))
            assert life.batch(batch)["processing_status"] == "in_progress"
            other.execute("ROLLBACK")
        assert marker_of(life.ask(forced("back"), key).message()) == "back"
        life.upload(b"new")
        assert_right(life.ended(batch))
        life.check()
