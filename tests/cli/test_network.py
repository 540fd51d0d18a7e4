"""Whom ``serve`` listens to: this machine unless told otherwise, in TLS where there is a certificate."""

import resource
import socket
import ssl
from pathlib import Path

import httpx
import psutil
import pytest
from certificates import certificate, with_openssl

from conftest import Server, running


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    listening = [one.laddr for one in psutil.Process(server.pid).net_connections("tcp") if one.status == "LISTEN"]
    assert listening == [("127.0.0.1", port)]


def test_it_takes_as_many_connections_as_it_says(server: Server) -> None:
    soft, hard = psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == resource.RLIM_INFINITY or soft >= min(2200, hard)


@pytest.mark.slow
@with_openssl
def test_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with running(tmp_path / "log.txt", "--tls-cert", str(cert), "--tls-key", str(key)) as (server, _):
        assert server.url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=str(cert))
        body = {"model": "m", "max_tokens": 3, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        with httpx.Client(verify=trust, base_url=server.url, headers={"x-api-key": server.key}) as client:
            assert client.get("/v1/models").status_code == 200
            answer = client.post("/v1/messages", json=body, timeout=60)
            assert answer.text.rstrip().endswith('data: {"type":"message_stop"}')
        host, port = server.url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 200")
