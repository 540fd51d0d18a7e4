"""A hub, and its client with a cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import Client, Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.stop()


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(tmp_path, f"http://127.0.0.1:{hub.server_port}")
