"""Files on the real server: what an upload costs it, and what is left when it is killed during one."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from conftest import KEY, Server, running

HEADERS = {"x-api-key": KEY}
MEGABYTE = 2**20


def zeros(size: int) -> Iterator[bytes]:
    """A form with a file of ``size`` megabytes, which is never whole in this process either."""
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="zeros"\r\n\r\n'
    for _ in range(size):
        yield bytes(MEGABYTE)
    yield b"\r\n--b--\r\n"


def test_an_upload_is_never_whole_in_memory(server: Server) -> None:
    url, kind = f"{server.url}/v1/files", {"content-type": "multipart/form-data; boundary=b"}
    with httpx.Client(headers=HEADERS, timeout=60) as client:
        client.delete(f"{url}/{client.post(url, content=zeros(1), headers=kind).json()['id']}")
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # forget the highest so far
        made = client.post(url, content=zeros(80), headers=kind).json()
        assert made["size_bytes"] == 80 * MEGABYTE
        with client.stream("GET", f"{url}/{made['id']}/content") as content:
            assert sum(map(len, content.iter_bytes())) == 80 * MEGABYTE
        client.delete(f"{url}/{made['id']}")
    highest = Path(f"/proc/{server.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(highest) * 1024 < before + 20 * MEGABYTE


@pytest.mark.slow
def test_a_kill_during_an_upload_leaves_nothing_to_be_seen(tmp_path: Path, database_url: str) -> None:
    data = tmp_path / "served"
    options = ("--data", str(data), "--database", database_url)

    def on_disk(folder: str) -> list[Path]:
        return [path for path in data.glob(f"files/*/{folder}/*") if path.is_file()]

    with running(tmp_path / "first.txt", *options) as (server, process):
        kept = httpx.post(f"{server.url}/v1/files", files={"file": b"kept"}, headers=HEADERS).json()
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 100000000\r\n"
            connection.sendall(f"{head}content-type: multipart/form-data; boundary=b\r\n\r\n".encode())
            for chunk in list(zeros(5))[:-1]:
                connection.sendall(chunk)
            while not any(path.stat().st_size > MEGABYTE for path in on_disk("arriving")):
                time.sleep(0.01)
            assert len(httpx.get(f"{server.url}/v1/files", headers=HEADERS).json()["data"]) == 1
            process.send_signal(signal.SIGKILL)
            process.wait()
    [half] = on_disk("arriving")
    os.utime(half, (0, 0))  # long ago
    with running(tmp_path / "second.txt", *options) as (server, _):
        assert httpx.get(f"{server.url}/v1/files", headers=HEADERS).json()["data"] == [kept]
        content = httpx.get(f"{server.url}/v1/files/{kept['id']}/content", headers=HEADERS)
        assert content.content == b"kept"
        while on_disk("arriving"):
            time.sleep(0.01)
        assert len(on_disk("[0-9a-f][0-9a-f]")) == 1
