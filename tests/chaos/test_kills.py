"""kill -9, and processes that stand still: the server and its engine, at the worst moments."""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from live_servers import ENDLESS, Site, assert_right, counting, forced, marker_of, text_of, until, work

from commonweight.catalog.resolve import resolve
from conftest import KEY
from databases import empty_database

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

MEGABYTE = 2**20


def test_the_server_is_killed_again_and_again_during_a_batch(tmp_path: Path, database_url: str) -> None:
    site = Site(tmp_path, "--parallel", "4", database=database_url)
    batch = ""
    for _ in range(3):
        with site.serving() as life:
            batch = batch or life.create_batch(work(60))
            site.until_finished(batch, len(site.results.get(batch, {})) + 6)
            life.kill()
        there = site.finished(batch)
        for name, result in site.results.get(batch, {}).items():
            assert there[name] == result, "it was answered twice"
        site.results[batch] = there
        assert len(there) < 120, "nothing was left to be killed in"
    with site.serving() as life:
        assert_right(life.ended(batch))
        life.check()


async def test_another_server_takes_over_from_one_that_is_killed_and_one_that_stands_still(
    tmp_path: Path, postgresql_folder: Path
) -> None:
    url = await empty_database(postgresql_folder)
    await asyncio.to_thread(_take_over, tmp_path, url)


def _take_over(tmp_path: Path, url: str) -> None:
    site = Site(tmp_path, "--parallel", "4", database=url)
    with site.serving() as first, site.serving() as second, site.serving() as third:
        batch = first.create_batch(work(20))
        site.until_finished(batch, 8)
        first.kill()
        second.process.send_signal(signal.SIGSTOP)
        site.results[batch] = site.finished(batch)
        assert_right(third.ended(batch))
        site.results[batch] = {name: json.dumps(result) for name, result in third.ended(batch).items()}
        second.process.send_signal(signal.SIGCONT)  # it has results of its own now, which come too late
        time.sleep(15)
        assert_right(second.ended(batch))
        second.check()
        third.check()


def test_the_engine_is_killed_at_any_time(tmp_path: Path) -> None:
    draw = random.Random(0)
    site = Site(tmp_path, "--parallel", "3")
    with site.serving() as life:
        life.check()
        asked: list[Any] = []
        stop = threading.Event()

        def ask_on(number: int) -> None:
            count = 0
            while not stop.is_set():
                marker = f"{number}-{count}"
                asked.append((marker, (life.stream if count % 2 else life.ask)(forced(marker)).done()))
                count += 1

        clients = [threading.Thread(target=ask_on, args=(number,)) for number in range(6)]
        for client in clients:
            client.start()
        kills = 0
        while kills < 6:
            time.sleep(draw.uniform(0.5, 4))
            if life.http.get("/health").json()["status"] == "ok":
                life.engine.kill()
                kills += 1
        stop.set()
        for client in clients:
            client.join()
        failed = [client for _, client in asked if '"type":"error"' in client.received.replace(" ", "")]
        for marker, client in asked:
            if client in failed:
                assert client.error()["type"] == "api_error"
            else:
                assert marker_of(client.message()) == marker
        assert 0 < len(failed) < len(asked)
        life.check()


def test_the_engine_stands_still(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.serving() as life:
        streams = [life.stream().begun() for _ in range(3)]
        engine = life.engine
        engine.suspend()
        late = life.stream(forced("late"))
        until(lambda: "event: ping" in late.received, "a sign of life")
        assert life.http.get("/health").json()["status"] == "ok"
        assert life.http.post("/v1/messages/count_tokens", json=_counted()).json()["input_tokens"] > 0
        engine.resume()
        assert marker_of(late.message()) == "late"
        for stream in streams:
            stream.message()
        life.check()


def _counted() -> dict[str, Any]:
    return {name: ENDLESS[name] for name in ("model", "messages")}


def test_the_model_is_gone_when_the_engine_is_killed(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(resolve(None), model)
    away = tmp_path / "away.gguf"
    site = Site(tmp_path, "--model", str(model))
    with site.serving() as life:
        life.check()
        stream = life.stream().begun()
        model.rename(away)
        life.engine.kill()
        assert stream.error()["type"] == "api_error"
        until(lambda: life.http.get("/ready").status_code == 503, "not ready")
        assert life.ask(forced("x")).error()["type"] == "api_error"
        assert life.http.get("/health").status_code == 200
        away.rename(model)
        life.until_ready()
        assert marker_of(life.ask(forced("y")).message()) == "y"
        assert "the engine could not be restarted" in site.log.read_text()


DYING = """
import builtins, os, signal

real = builtins.open

class Half:
    def __init__(self, file):
        self.file = file

    def write(self, data):
        self.file.write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
        self.file.flush()
        os.unlink(os.environ["DIE"])
        os.kill(os.getpid(), signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

def open(path, *arguments, **options):
    file = real(path, *arguments, **options)
    return Half(file) if str(path).endswith(".tmp") and os.path.exists(os.environ["DIE"]) else file

builtins.open = open
"""
"""Kills its process in the middle of a block that is written to disk, once there is a file that says so. To catch
that moment from outside is a matter of luck."""


def test_kills_while_prefixes_are_written_to_disk(tmp_path: Path) -> None:
    attempts = 4
    prompts = [counting(start, 120) for start in range(1000, 1000 + 400 * attempts, 200)]
    hooks, die = tmp_path / "hooks", tmp_path / "die"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(DYING)
    (tmp_path / "plain").mkdir()
    with Site(tmp_path / "plain").serving() as life:
        answers = [text_of(life.ask(prompt).message()) for prompt in prompts]
    site = Site(tmp_path, "--cache-disk", "2GB", PYTHONPATH=str(hooks), DIE=str(die))
    for attempt in range(attempts):
        now = slice(2 * attempt, 2 * attempt + 2)
        with site.serving() as life:
            die.touch()
            clients = [life.ask(prompt) for prompt in prompts[now]]
            until(lambda: not die.exists(), "a block is written")
            assert any(site.cache.rglob("*.tmp"))
            if attempt % 2:
                life.process.kill()
                continue
            for client in clients:
                client.done()
            life.until_ready()
            assert [text_of(life.ask(prompt).message()) for prompt in prompts[now]] == answers[now]
            life.check()
    with site.serving() as life:
        messages = [life.ask(prompt).message() for prompt in prompts]
        assert [text_of(message) for message in messages] == answers
        assert sum(message["usage"]["cache_read_input_tokens"] for message in messages) > 0
        life.check()
    blocks = sorted(site.cache.rglob("*.kv"))
    assert blocks
    for number, block in enumerate(blocks):
        content = bytearray(block.read_bytes())
        if number % 2:
            content[len(content) * 3 // 4] ^= 1
        else:
            del content[len(content) // 2 :]
        block.write_bytes(content)
    with site.serving() as life:
        assert [text_of(life.ask(prompt).message()) for prompt in prompts] == answers
        assert "it is cut off" in site.log.read_text()
        life.check()


def test_kills_during_uploads(tmp_path: Path, database_url: str) -> None:
    site = Site(tmp_path, database=database_url)
    for attempt in range(3):
        with site.serving() as life:
            if not attempt:
                life.upload(b"kept " * 1000)
            address = urlsplit(life.url)
            with socket.create_connection((address.hostname, address.port)) as connection:
                head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 100000000\r\n"
                connection.sendall(f"{head}content-type: multipart/form-data; boundary=b\r\n\r\n".encode())
                connection.sendall(b'--b\r\nContent-Disposition: form-data; name="file"; filename="half"\r\n\r\n')
                for _ in range(2 + attempt * 5):
                    connection.sendall(bytes(MEGABYTE))
                until(lambda: any(path.stat().st_size >= MEGABYTE for path in site.leftovers()), "it arrives")
                assert len(life.http.get("/v1/files").json()["data"]) == 1
                life.kill()
            [half] = site.leftovers()
            os.utime(half, (0, 0))  # as if an hour had passed
    with site.serving() as life:
        until(lambda: not site.leftovers(), "the halves go")
        life.upload(b"new")
        life.check()
