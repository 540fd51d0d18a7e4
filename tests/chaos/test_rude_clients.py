"""Clients that vanish or stall in the middle, and a server that is told to stop under load."""

import json
import signal
import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from live_servers import ENDLESS, Life, Site, assert_right, forced, marker_of, until, work

from conftest import KEY

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]


def connected(life: Life, body: dict[str, object]) -> socket.socket:
    """A connection whose client has asked, and reads only what it wants to."""
    address = urlsplit(life.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((address.hostname, address.port))
    data = json.dumps(body).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def test_clients_vanish_and_stall(tmp_path: Path) -> None:
    site = Site(tmp_path)
    endless = ENDLESS | {"stream": True}
    with site.serving() as life:
        life.check()
        polite = [life.stream(ENDLESS | {"max_tokens": 200}) for _ in range(2)]
        vanishing = [connected(life, endless) for _ in range(3)] + [connected(life, ENDLESS) for _ in range(3)]
        stalling = [connected(life, endless) for _ in range(3)]
        sending = [connected(life, endless) for _ in range(1)]
        for connection in [*vanishing[:3], *stalling]:
            assert connection.recv(1)
        for number, connection in enumerate(vanishing):
            if number % 2:  # as a machine that loses its network, or a process that is killed
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        sending[0].shutdown(socket.SHUT_WR)  # says no more, and listens: as some clients do
        for i in range(4):
            assert marker_of(life.stream(forced(f"beside-{i}")).message()) == f"beside-{i}"
        for stream in polite:
            assert stream.message()["usage"]["output_tokens"] == 200
        # Whoever reads nothing keeps no cells for longer than its answer takes.
        until(lambda: life.figures()["commonweight_engine_kv_cells_used"] == 0, "cells are free")
        for connection in [*stalling, *sending]:
            connection.close()
        life.check()


def test_it_is_told_to_stop_under_load(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.serving("--drain", "25") as life:
        life.check()
        batch = life.create_batch(work(60))
        endless = ENDLESS | {"max_tokens": 6000}
        long = [life.stream(endless).begun() for _ in range(3)] + [life.ask(endless)]
        short = [(life.stream if i % 2 else life.ask)(forced(f"short-{i}")) for i in range(6)]
        engine = life.engine
        asking = len(long) + len(short) + 1
        until(lambda: life.figures()["commonweight_http_requests_running"] == asking, "all ask")
        life.process.send_signal(signal.SIGTERM)
        until(lambda: life.http.get("/ready").status_code == 503, "it drains")
        late = life.ask(forced("late"))
        assert late.error()["type"] == "api_error"
        assert late.status == 503
        whole = 0
        for i, client in enumerate(short):
            if '"type":"error"' in client.done().received.replace(" ", ""):
                assert client.error()["type"] == "api_error"
            else:
                assert marker_of(client.message()) == f"short-{i}"
                whole += 1
        assert whole > 0
        for client in long:
            assert client.error()["type"] == "api_error"
        assert life.process.wait(60) == 0
        assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
        assert "Traceback" not in site.log.read_text()
    with site.serving() as life:
        assert life.batch(batch)["processing_status"] == "in_progress"
        assert_right(life.ended(batch))
        life.check()
