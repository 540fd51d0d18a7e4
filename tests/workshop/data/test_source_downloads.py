"""Downloads of sources, from a web server on the loopback interface."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from commonweight.workshop.data.downloads import fetch_hub, fetch_url
from commonweight.workshop.data.locations import HubPath, WebFile
from commonweight.workshop.data.rows import DataError

CONTENT = bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Web(ThreadingHTTPServer):
    """A web server with one file, which may break off or not know ranges."""

    break_after: int | None = None
    knows_ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    def locate(self, path: str) -> WebFile:
        """A file of this server."""
        return WebFile(f"http://127.0.0.1:{self.server_port}{path}", path.rpartition("/")[2])


class Handler(BaseHTTPRequestHandler):
    """Answers a download."""

    server: Web

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if self.path == "/moved/book.txt":
            self.send_response(302)
            self.send_header("Location", "/book.txt")
            self.end_headers()
            return
        if self.path != "/book.txt":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.knows_ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.break_after])

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(location: WebFile, folder: Path, sha256: str = SHA256, most_bytes: int = 2**30) -> Path:
    return fetch_url(location, sha256, most_bytes, folder, print)


@pytest.mark.parametrize("path", ["/book.txt", "/moved/book.txt"])
def test_a_file_is_downloaded_once(web: Web, tmp_path: Path, path: str) -> None:
    found = fetch(web.locate(path), tmp_path / "downloads")
    assert found.read_bytes() == CONTENT
    asked = len(web.ranges)
    assert fetch(web.locate(path), tmp_path / "downloads") == found
    assert len(web.ranges) == asked
    assert list((tmp_path / "downloads").iterdir()) == [found]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_download_that_broke_off_goes_on(web: Web, tmp_path: Path, knows_ranges: bool) -> None:
    web.break_after, web.knows_ranges = 2**21, knows_ranges
    with pytest.raises(DataError, match=r"Cannot download http.*try again"):
        fetch(web.locate("/book.txt"), tmp_path)
    (part,) = tmp_path.iterdir()
    size = part.stat().st_size
    assert 0 < size <= 2**21
    web.break_after = None
    assert fetch(web.locate("/book.txt"), tmp_path).read_bytes() == CONTENT
    assert web.ranges == [None, f"bytes={size}-"]


def test_a_file_that_was_whole_when_it_broke_off_is_taken(web: Web, tmp_path: Path) -> None:
    (tmp_path / f"{SHA256}.part").write_bytes(CONTENT)
    assert fetch(web.locate("/book.txt"), tmp_path).read_bytes() == CONTENT


def test_a_file_that_changed_names_both_digests_and_is_removed(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has changed") as raised:
        fetch(web.locate("/book.txt"), tmp_path, sha256="0" * 64)
    assert "0" * 64 in str(raised.value)
    assert SHA256 in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_refused_before_it_is_whole(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="larger than the 1 MB that max_megabytes allows"):
        fetch(web.locate("/book.txt"), tmp_path, most_bytes=2**20)
    assert all(path.stat().st_size <= 2**20 for path in tmp_path.iterdir())


def test_a_missing_file_is_named(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot download http://\S+/other.txt: the server answers 404"):
        fetch(web.locate("/other.txt"), tmp_path)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with Web() as server:
        location = server.locate("/book.txt")
    with pytest.raises(DataError, match=r"Cannot download http.*: ConnectError"):
        fetch(location, tmp_path)


@pytest.mark.parametrize("revision", ["a" * 40, "v1.0"])
def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch, revision: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=f"Cannot fetch hf:org/none@{revision}: the hub cannot be reached"):
        fetch_hub(HubPath("org/none", revision))
