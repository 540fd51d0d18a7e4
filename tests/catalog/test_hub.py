"""Pulling weights with the real hub client, from a hub on the loopback interface."""

import hashlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from commonweight.catalog.hub import BadReferenceError, pull

WEIGHTS = b"GGUF and then some weights"
REFERENCE = "hf:org/repo/weights.gguf"
COMMIT = "a" * 40
LATER_COMMIT = "b" * 40

_RESOLVE = re.compile(r"/(org/[^/]+)/resolve/([^/]+)/(.+)")
_IN_A_PROCESS = """
import json, sys
from commonweight.catalog import hub
try:
    answer = {"result": getattr(hub, sys.argv[1])(*sys.argv[2:])}
except Exception as error:
    answer = {"error": type(error).__name__, "message": str(error), "caused": error.__cause__ is not None}
json.dump(answer, sys.stdout, default=str)
"""


class Handler(BaseHTTPRequestHandler):
    """What https://huggingface.co answers to a download, for the one repository org/repo."""

    protocol_version = "HTTP/1.1"
    server: "Hub"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def _answer(self, *, with_body: bool) -> None:
        hub = self.server
        hub.requests.append((self.command, self.path, self.headers["Range"]))
        match = _RESOLVE.fullmatch(self.path)
        repo, revision, name = match.groups() if match else ("", "", "")
        commit = hub.main if revision == "main" else revision
        if match is None:
            self._refuse(404, "")
        elif repo in hub.refusals:
            self._refuse(*hub.refusals[repo])
        elif commit not in (COMMIT, LATER_COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif name not in hub.files:
            self._refuse(404, "EntryNotFound", commit)
        else:
            self._deliver(name, commit, with_body=with_body)

    def _deliver(self, name: str, commit: str, *, with_body: bool) -> None:
        content = self.server.files[name]
        etag = self.server.etags.get(name, hashlib.sha256(content).hexdigest())
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", '"of the pointer, not of the content"')
        self.send_header("X-Linked-ETag", f'"{etag}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self._send(content[start:])

    def _send(self, body: bytes) -> None:
        how = self.server.breaks.pop() if self.server.breaks else None
        if how is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: len(body) * 3 // 4])
        self.close_connection = True
        if how == "reset":
            # Closing with a zero linger time sends RST in place of FIN, once nothing else holds the socket.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()

    def _refuse(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Hub(ThreadingHTTPServer):
    """The hub's side: what it has, what it claims, how it misbehaves, and what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.main = COMMIT
        self.files = {"weights.gguf": WEIGHTS}
        self.etags: dict[str, str] = {}
        self.refusals: dict[str, tuple[int, str]] = {"org/missing": (401, "RepoNotFound")}
        self.breaks: list[str] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self._thread = Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def downloads(self) -> list[tuple[str, str | None]]:
        """Path and Range of every request for content."""
        return [(path, span) for method, path, span in self.requests if method == "GET" and "/resolve/" in path]


@dataclass
class Client:
    """Calls ``commonweight.catalog.hub`` in a new process each time; the hub client is set up on import."""

    home: Path
    endpoint: str

    def call(self, function: str, *arguments: str, **settings: str) -> dict[str, Any]:
        # Telemetry stays on, so that a request made where none is needed is seen.
        environment = {
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            **settings,
        }
        done = subprocess.run(
            [sys.executable, "-c", _IN_A_PROCESS, function, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def pull(self, reference: str = REFERENCE) -> Path:
        answer = self.call("pull", reference)
        assert "result" in answer, answer
        return Path(answer["result"])

    def fail(self, reference: str, **settings: str) -> dict[str, Any]:
        answer = self.call("pull", reference, **settings)
        assert "error" in answer, answer
        return answer

    def blobs(self) -> list[Path]:
        """Every file that takes space in the cache, remains of downloads included."""
        return [path for path in self.home.glob("hf/hub/*/blobs/**/*") if path.is_file()]

    def cached(self) -> list[str]:
        names: list[str] = self.call("cached")["result"]
        return names


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.stop()


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(tmp_path, f"http://127.0.0.1:{hub.server_port}")


def test_pulls_a_file(hub: Hub, client: Client) -> None:
    path = client.pull()
    assert path.name == "weights.gguf"
    assert path.read_bytes() == WEIGHTS


def test_pulls_a_file_in_a_folder_at_a_revision(hub: Hub, client: Client) -> None:
    hub.files = {"Q8_0/weights.gguf": WEIGHTS}
    path = client.pull(f"hf:org/repo@{LATER_COMMIT}/Q8_0/weights.gguf")
    assert path.parts[-3:] == (LATER_COMMIT, "Q8_0", "weights.gguf")
    assert path.read_bytes() == WEIGHTS


def test_a_small_file_without_a_stated_sha256_is_not_checked(hub: Hub, client: Client) -> None:
    hub.etags["weights.gguf"] = hashlib.sha1(WEIGHTS).hexdigest()
    assert client.pull().read_bytes() == WEIGHTS


def test_a_cached_file_is_used_offline(hub: Hub, client: Client) -> None:
    first = client.pull()
    hub.stop()
    assert client.pull() == first


def test_a_cached_file_is_used_without_asking(hub: Hub, client: Client) -> None:
    first = client.pull()
    hub.requests.clear()
    hub.main = LATER_COMMIT
    assert client.pull() == first
    assert not hub.requests


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, client: Client) -> None:
    content = random.Random(0).randbytes(2 * DOWNLOAD_CHUNK_SIZE)
    hub.files["weights.gguf"] = content
    hub.breaks = ["cut"]
    assert client.pull().read_bytes() == content
    whole, rest = (span for _, span in hub.downloads)
    assert whole is None
    assert rest == f"bytes={DOWNLOAD_CHUNK_SIZE}-"


def test_a_download_that_fails_leaves_nothing_and_can_be_run_again(hub: Hub, client: Client) -> None:
    hub.breaks = ["reset"]
    answer = client.fail(REFERENCE)
    assert answer["error"] == "PullError"
    assert "broke off" in answer["message"]
    assert not client.blobs()
    assert client.pull().read_bytes() == WEIGHTS


def test_corrupt_content_is_refused_and_removed(hub: Hub, client: Client) -> None:
    stated = hashlib.sha256(b"what was meant").hexdigest()
    hub.etags["weights.gguf"] = stated
    answer = client.fail(REFERENCE)
    assert answer["error"] == "CorruptDownloadError"
    assert stated in answer["message"]
    assert hashlib.sha256(WEIGHTS).hexdigest() in answer["message"]
    assert not client.blobs()
    # A link to nothing would make the hub's own tools skip the repository.
    assert not list(client.home.rglob("weights.gguf"))

    hub.files["weights.gguf"] = b"what was meant"
    assert client.pull().read_bytes() == b"what was meant"


def test_a_cached_file_that_went_bad_is_found_offline(hub: Hub, client: Client) -> None:
    path = client.pull()
    path.resolve().write_bytes(b"bad")
    hub.stop()
    assert client.fail(REFERENCE)["error"] == "CorruptDownloadError"
    assert not client.blobs()


def _share(blob: Path) -> Path:
    """Lay a blob out as after a download over xet: in a store for all repositories, named by another hash."""
    name = "c" * 64
    payload = blob.parents[2] / "blobs" / name[:2] / name
    payload.parent.mkdir(parents=True)
    blob.rename(payload)
    blob.symlink_to(os.path.relpath(payload, blob.parent))
    return payload


def test_a_shared_blob_is_checked_by_the_hash_that_the_hub_stated(hub: Hub, client: Client) -> None:
    path = client.pull()
    _share(path.resolve())
    assert client.pull() == path
    assert path.read_bytes() == WEIGHTS


def test_a_corrupt_shared_blob_is_removed_from_the_store(hub: Hub, client: Client) -> None:
    path = client.pull()
    payload = _share(path.resolve())
    payload.write_bytes(b"bad")
    assert client.fail(REFERENCE)["error"] == "CorruptDownloadError"
    assert not payload.exists()
    assert client.pull().read_bytes() == WEIGHTS


PARTS = [f"Q8_0/big-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


@pytest.mark.parametrize("asked", PARTS)
def test_any_part_pulls_all_and_gives_the_first(hub: Hub, client: Client, asked: str) -> None:
    hub.files = {name: name.encode() for name in PARTS}
    path = client.pull(f"hf:org/repo/{asked}")
    assert path.name == "big-00001-of-00003.gguf"
    assert [part.read_bytes() for part in sorted(path.parent.iterdir())] == [name.encode() for name in PARTS]


def test_parts_come_from_one_commit(hub: Hub, client: Client) -> None:
    hub.files = {PARTS[0]: b"first"}
    assert "00002" in client.fail(f"hf:org/repo/{PARTS[0]}")["message"]
    hub.files = dict.fromkeys(PARTS, b"later")
    hub.main = LATER_COMMIT
    path = client.pull(f"hf:org/repo/{PARTS[0]}")
    assert COMMIT in path.parts
    assert len(list(path.parent.iterdir())) == len(PARTS)


@pytest.mark.parametrize(
    ("reference", "advice"),
    [
        ("hf:org/repo/missing.gguf", "no such file"),
        ("hf:org/repo/none-00001-of-00000.gguf", "no such file"),
        ("hf:org/repo@missing/weights.gguf", "no such revision"),
        ("hf:org/missing/weights.gguf", "no such repository"),
        ("hf:org/gated/weights.gguf", "consent"),
        ("hf:org/forbidden/weights.gguf", "HTTP 403"),
        ("hf:org/unwell/weights.gguf", "HTTP 501"),
    ],
)
def test_a_refusal_is_one_sentence_for_a_person(hub: Hub, client: Client, reference: str, advice: str) -> None:
    hub.refusals |= {
        "org/gated": (403, "GatedRepo"),
        "org/forbidden": (403, ""),
        "org/unwell": (501, ""),
    }
    answer = client.fail(reference)
    assert answer["error"] == "PullError"
    assert answer["caused"]
    assert advice in answer["message"]
    assert reference.rpartition("/")[2] in answer["message"]
    assert "\n" not in answer["message"]


def test_a_hub_that_may_not_be_asked_is_a_sentence_too(client: Client) -> None:
    answer = client.fail(REFERENCE, HF_HUB_OFFLINE="1")
    assert answer["error"] == "PullError"
    assert "HF_HUB_OFFLINE" in answer["message"]


def test_a_disk_that_cannot_be_written_is_a_sentence_too(client: Client) -> None:
    (client.home / "hf").write_bytes(b"")
    answer = client.fail(REFERENCE)
    assert answer["error"] == "PullError"
    assert "check the disk" in answer["message"]


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "weights.gguf",
        "hf:",
        "hf:weights.gguf",
        "hf:org/repo",
        "hf:org/repo/",
        "hf:org/repo/folder/",
        "hf:org/repo@/weights.gguf",
        "hf:org/repo@../weights.gguf",
        "hf:org/re po/weights.gguf",
        "hf:org/re--po/weights.gguf",
        "hf:org/repo/../weights.gguf",
        "hf://org/repo/weights.gguf",
        "https://huggingface.co/org/repo/weights.gguf",
    ],
)
def test_a_bad_reference_is_told_the_form(reference: str) -> None:
    with pytest.raises(BadReferenceError, match=r"hf:org/repo/file\.gguf"):
        pull(reference)


def test_cached_is_empty_without_a_cache(client: Client) -> None:
    assert client.cached() == []


def test_cached_lists_ggufs_in_order(hub: Hub, client: Client) -> None:
    hub.files = dict.fromkeys(("b.gguf", "a.gguf", "Q8_0/c.gguf", "README.md"), WEIGHTS)
    paths = [client.pull(f"hf:org/repo/{name}") for name in hub.files]
    assert client.cached() == sorted(str(path) for path in paths if path.suffix == ".gguf")


def test_cached_lists_a_split_model_once(hub: Hub, client: Client) -> None:
    hub.files = dict.fromkeys(("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"), WEIGHTS)
    path = client.pull("hf:org/repo/m-00001-of-00002.gguf")
    assert client.cached() == [str(path)]


def test_cached_survives_a_branch_that_moved_to_nothing_cached(hub: Hub, client: Client) -> None:
    path = client.pull()
    hub.main = LATER_COMMIT
    client.fail("hf:org/repo/missing.gguf")
    assert client.cached() == [str(path)]
