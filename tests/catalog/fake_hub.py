"""A hub on the loopback interface, and processes with the real hub client that use it."""

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

WEIGHTS = b"GGUF and then some weights"
REFERENCE = "hf:org/repo/weights.gguf"
COMMIT = "a" * 40
LATER_COMMIT = "b" * 40

_RESOLVE = re.compile(r"/(org/[^/]+)/resolve/([^/]+)/(.+)")
_LISTING = re.compile(r"/api/models/(org/[^/]+)/revision/([^/]+)")
_IN_A_PROCESS = """
import json, sys
from commonweight.catalog import hub, hub_cache, resolve
module = next(module for module in (resolve, hub_cache, hub) if hasattr(module, sys.argv[1]))
try:
    answer = {"result": getattr(module, sys.argv[1])(*sys.argv[2:])}
except Exception as error:
    answer = {"error": type(error).__name__, "message": str(error), "caused": error.__cause__ is not None}
json.dump(answer, sys.stdout, default=str)
"""


class Handler(BaseHTTPRequestHandler):
    """What https://huggingface.co answers to a listing and to a download, for the one repository org/repo."""

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
        listing = _LISTING.fullmatch(self.path)
        match = listing or _RESOLVE.fullmatch(self.path)
        repo, revision, *names = match.groups() if match else ("", "", "")
        commit = hub.main if revision == "main" else revision
        if match is None:
            self._refuse(404, "")
        elif repo in hub.refusals:
            self._refuse(*hub.refusals[repo])
        elif commit not in (COMMIT, LATER_COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif listing:
            self._list(repo, commit)
        elif names[0] not in hub.files:
            self._refuse(404, "EntryNotFound", commit)
        else:
            self._deliver(names[0], commit, with_body=with_body)

    def _list(self, repo: str, commit: str) -> None:
        siblings = [{"rfilename": name} for name in self.server.files]
        body = json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
    """Calls ``commonweight.catalog`` in a new process each time; the hub client is set up on import."""

    home: Path
    endpoint: str

    def call(self, function: str, *arguments: str, **settings: str) -> dict[str, Any]:
        # Telemetry stays on, so that a request made where none is needed is seen.
        environment = {
            "PYTHONPATH": os.pathsep.join(sys.path),
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

    def pull(self, reference: str = REFERENCE, **settings: str) -> Path:
        answer = self.call("resolve", reference, **settings)
        assert "result" in answer, answer
        return Path(answer["result"])

    def fail(self, reference: str, **settings: str) -> dict[str, Any]:
        answer = self.call("resolve", reference, **settings)
        assert "error" in answer, answer
        return answer

    def blobs(self) -> list[Path]:
        """Every file that takes space in the cache, remains of downloads included."""
        return [path for path in self.home.glob("hf/hub/*/blobs/**/*") if path.is_file()]

    def cached(self) -> list[str]:
        names: list[str] = self.call("list_cached")["result"]
        return names
