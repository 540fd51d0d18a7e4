"""A server that faults are tried on, with folders of its own, and what must hold after each of them."""

import asyncio
import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import psutil
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from commonweight.conformance.grammar import parse_frames, read_stream
from commonweight.store.schema import batch_items
from conftest import KEY, Server, running

Json = dict[str, Any]

PATIENCE = 600.0
"""Seconds for what takes a few on a quiet machine."""
HEADERS = {"x-api-key": KEY}
COUNTED = 1100
"""Tokens of a prompt that fills several blocks of the prefix cache."""
ENDLESS = {
    "model": "any",
    "max_tokens": 600,
    "temperature": 0,
    "messages": [
        {"role": "user", "content": "Write kiwi again and again."},
        {"role": "assistant", "content": " ".join(["kiwi"] * 12)},
    ],
}
"""What the starter model answers with one word over and over."""


def counting(start: int, numbers: int = 12) -> Json:
    """A request of which the starter model is sure how it goes on, whatever the kernels round."""
    said = " ".join(map(str, range(start, start + numbers)))
    messages = [{"role": "user", "content": f"Count on from {start}."}, {"role": "assistant", "content": said}]
    return {"model": "any", "max_tokens": 12, "temperature": 0, "messages": messages}


def forced(marker: str) -> Json:
    """A request that nothing but its marker answers."""
    schema = {
        "type": "object",
        "properties": {"marker": {"const": marker}},
        "required": ["marker"],
        "additionalProperties": False,
    }
    return {
        "model": "any",
        "max_tokens": 60,
        "messages": [{"role": "user", "content": f"What is the marker? It is {marker}."}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }


def text_of(message: Json) -> str:
    """What an answer says."""
    return "".join(block["text"] for block in message["content"])


def marker_of(message: Json) -> str:
    """The marker that an answer was forced to."""
    marker: str = json.loads(text_of(message))["marker"]
    return marker


def work(number: int) -> dict[str, Json]:
    """Requests of a batch that takes a while. The markers of half of them can be checked."""
    held = {f"item-{i}": forced(f"marker-{i}") for i in range(number)}
    return held | {f"story-{i}": _story(i) for i in range(number)}


def _story(number: int) -> Json:
    content = f"Tell me a story of {number} ships."
    return {"model": "any", "max_tokens": 40, "messages": [{"role": "user", "content": content}]}


def assert_right(results: dict[str, Json]) -> None:
    """All of the work was done, and no result is another's."""
    assert {result["type"] for result in results.values()} == {"succeeded"}
    for name, result in results.items():
        if name.startswith("item-"):
            assert marker_of(result["message"]) == name.replace("item", "marker")


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for it, but not for ever."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what or condition}"
        time.sleep(0.2)


class Asking(threading.Thread):
    """A client with one request, and what became of it."""

    def __init__(self, url: str, body: Json, key: str = KEY) -> None:
        super().__init__(daemon=True)
        self.received = ""
        self.status = 0
        self.cut: httpx.TransportError | None = None
        """The connection broke before the answer's end."""
        self._url = url
        self._body = body
        self._key = key
        self.start()

    def run(self) -> None:
        """Ask, and read to the end."""
        headers = {"x-api-key": self._key}
        try:
            with (
                httpx.Client(timeout=PATIENCE, trust_env=False) as client,
                client.stream("POST", f"{self._url}/v1/messages", json=self._body, headers=headers) as response,
            ):
                self.status = response.status_code
                for piece in response.iter_text():
                    self.received += piece
        except httpx.TransportError as error:
            self.cut = error

    def begun(self) -> "Asking":
        """The same once there is text."""
        until(lambda: "content_block_delta" in self.received, "it streams")
        return self

    def done(self) -> "Asking":
        """The same once it is over."""
        self.join(PATIENCE)
        assert not self.is_alive(), "there is no end of it"
        return self

    def message(self) -> Json:
        """The whole answer."""
        assert self.done().cut is None, f"cut off: {self.cut}"
        assert self.status == 200, self.received
        return read_stream(self.received).message if self._body.get("stream") else json.loads(self.received)

    def error(self) -> Json:
        """How it failed, in the API's shape: as an answer, or as the last event."""
        assert self.done().cut is None, f"cut off: {self.cut}"
        if self.status == 200:
            *events, last = parse_frames(self.received)
            assert not any(event["type"] in ("error", "message_stop") for event in events)
        else:
            last = json.loads(self.received)
        assert last["type"] == "error", last
        error: Json = last["error"]
        assert error["type"] and error["message"]
        return error


class Site:
    """A data folder, a cache folder, and the servers that live on them one after the other."""

    def __init__(self, folder: Path, *options: str, database: str | None = None, **environment: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.cache = folder / "cache"
        self.files: dict[str, bytes] = {}
        """What was uploaded, by id."""
        self.batches: dict[str, set[str]] = {}
        """The custom ids of each batch."""
        self.results: dict[str, dict[str, str]] = {}
        """What was told of items that had ended, which is for good."""
        self.log = Path()
        self._place = ("--data", str(self.data), *(("--database", database) if database else ()))
        self._database = database or f"sqlite+aiosqlite:///{self.data / 'commonweight.db'}"
        self._options = (*self._place, *options)
        self._environment = {"XDG_CACHE_HOME": str(self.cache), **environment}
        self._lives = 0
        self._answer: str | None = None

    @contextlib.contextmanager
    def serving(self, *options: str) -> Iterator["Life"]:
        """A server's life, which may end sooner than the block."""
        self._lives += 1
        self.log = self.folder / f"log{self._lives}.txt"
        with contextlib.ExitStack() as stack:
            with mock.patch.dict(os.environ, self._environment):
                server, process = stack.enter_context(running(self.log, *self._options, *options))
            yield Life(self, server, process)

    def key(self, name: str, *options: str) -> str:
        """A new key for a tenant of that name."""
        command = [sys.executable, "-m", "commonweight", "keys", "create", name, *options, *self._place]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def leftovers(self) -> list[Path]:
        """Halves of uploads, and of blocks whose writers are dead."""
        uploads = list(self.data.glob("files/*/arriving/*"))
        blocks = (path for path in self.cache.rglob("*.tmp"))
        return uploads + [path for path in blocks if not psutil.pid_exists(int(path.name.split(".")[-2]))]

    def finished(self, batch: str) -> dict[str, str]:
        """The results so far, by custom id. The API tells them only once all are there."""
        return asyncio.run(_finished(self._database, batch))

    def until_finished(self, batch: str, number: int) -> None:
        """Wait for so many results."""
        until(lambda: len(self.finished(batch)) >= number, f"{number} results")

    def expect(self, answer: str) -> None:
        """The answer to the sure request never changes."""
        self._answer = self._answer or answer
        assert answer == self._answer, f"{answer!r} is not what it was: {self._answer!r}"


async def _finished(url: str, batch: str) -> dict[str, str]:
    query = select(batch_items.c.custom_id, batch_items.c.result).where(
        batch_items.c.batch_id == batch, batch_items.c.state == "succeeded"
    )
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return {row.custom_id: row.result for row in await connection.execute(query)}
    finally:
        await engine.dispose()


class Life:
    """A running server."""

    def __init__(self, site: Site, server: Server, process: subprocess.Popen[bytes]) -> None:
        self.site = site
        self.url = server.url
        self.process = process
        self.http = httpx.Client(base_url=server.url, headers=HEADERS, timeout=PATIENCE, trust_env=False)

    @property
    def engine(self) -> psutil.Process:
        """Its engine process."""
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if "commonweight.engines.llama.process.worker" in child.cmdline():
                    return child
        raise AssertionError("there is no engine")

    def kill(self) -> None:
        """kill -9 of the server; its engine is gone a moment later."""
        engine = self.engine
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.wait(PATIENCE)

    def ask(self, body: Json, key: str = KEY) -> Asking:
        """A client with a request."""
        return Asking(self.url, body, key)

    def stream(self, body: Json = ENDLESS, key: str = KEY) -> Asking:
        """A client with a stream."""
        return Asking(self.url, body | {"stream": True}, key)

    def figures(self) -> dict[str, float]:
        """All of /metrics."""
        lines = (line.rpartition(" ") for line in self.http.get("/metrics").text.splitlines())
        return {name: float(value) for name, _, value in lines if not name.startswith("#")}

    def upload(self, content: bytes, **form: str) -> str:
        """Store a file."""
        response = self.http.post("/v1/files", files={"file": ("name.bin", content)}, data=form)
        assert response.status_code == 200, response.text
        name: str = response.json()["id"]
        self.site.files[name] = content
        return name

    def create_batch(self, bodies: dict[str, Json]) -> str:
        """Hand a batch in."""
        requests = [{"custom_id": name, "params": body} for name, body in bodies.items()]
        response = self.http.post("/v1/messages/batches", json={"requests": requests})
        assert response.status_code == 200, response.text
        name: str = response.json()["id"]
        self.site.batches[name] = set(bodies)
        return name

    def batch(self, name: str) -> Json:
        """How far it is. The figures always add up."""
        response = self.http.get(f"/v1/messages/batches/{name}")
        assert response.status_code == 200, response.text
        batch: Json = response.json()
        assert sum(batch["request_counts"].values()) == len(self.site.batches[name]), batch
        return batch

    def ended(self, name: str) -> dict[str, Json]:
        """The results of a batch once it has ended: one for each request, and none ever changes."""
        until(lambda: self.batch(name)["processing_status"] == "ended", f"{name} ends")
        response = self.http.get(f"/v1/messages/batches/{name}/results")
        assert response.status_code == 200, response.text
        lines = list(map(json.loads, response.text.splitlines()))
        results = {line["custom_id"]: line["result"] for line in lines}
        assert len(lines) == len(results), "a result is there twice"
        assert set(results) == self.site.batches[name], "a result is missing"
        counts = self.batch(name)["request_counts"]
        kinds = [result["type"] for result in results.values()]
        assert counts == {kind: kinds.count(kind) for kind in counts}, "counts and results differ"
        for custom_id, result in self.site.results.get(name, {}).items():
            assert results[custom_id] == json.loads(result), f"{custom_id} had ended otherwise"
        return results

    def until_ready(self) -> None:
        """Wait until it would get requests again."""
        until(lambda: self.http.get("/ready").status_code == 200, "ready")

    def check(self) -> None:
        """What holds once a fault is over: for clients, in the engine, the database, the folders and the log."""
        self.until_ready()
        assert self.http.get("/health").json()["status"] == "ok"
        sure = counting(5)
        self.site.expect(text_of(self.ask(sure).message()))
        self.site.expect(text_of(self.stream(sure).message()))
        for name in self.site.batches:
            if self.batch(name)["processing_status"] == "ended":
                self.ended(name)
        self._check_files()
        until(self._is_at_rest, f"at rest: {self._held()}")
        assert not self.site.leftovers()
        self._check_database()
        log = self.site.log.read_text()
        assert "Traceback" not in log, log
        assert "Internal server error" not in log, log

    def _held(self) -> dict[str, float]:
        """Figures that are not what they are when nobody asks."""
        figures = self.figures()
        resting = {
            'commonweight_engine_jobs{state="running"}': 0.0,
            'commonweight_engine_jobs{state="waiting"}': 0.0,
            "commonweight_engine_kv_cells_used": 0.0,
            "commonweight_http_requests_running": 1.0,
        }
        return {name: figures[name] for name, value in resting.items() if figures[name] != value}

    def _is_at_rest(self) -> bool:
        return not self._held()

    def _check_files(self) -> None:
        listed = {file["id"]: file for file in self.http.get("/v1/files?limit=1000").json()["data"]}
        assert set(listed) == set(self.site.files)
        for name, content in self.site.files.items():
            assert listed[name]["size_bytes"] == len(content)
            assert self.http.get(f"/v1/files/{name}/content").content == content
        kept = {path.name for path in self.site.data.glob("files/*/[0-9a-f][0-9a-f]/*")}
        assert kept == {hashlib.sha256(content).hexdigest() for content in self.site.files.values()}

    def _check_database(self) -> None:
        path = self.site.data / "commonweight.db"
        if path.exists():
            with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert not database.execute("PRAGMA foreign_key_check").fetchall()
                [(records, requests)] = database.execute("SELECT count(*), count(DISTINCT request_id) FROM usage")
                assert records == requests
