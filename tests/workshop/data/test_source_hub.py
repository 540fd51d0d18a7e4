"""Sources on the hub: the real client against a hub on the loopback interface, in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "c" * 40
FILES = {
    "data/one.jsonl": b'{"text": "one"}\n',
    "data/two.jsonl": b'{"text": "two"}\n',
    "README.md": b"About this set.\n",
    "script.py": b"raise SystemExit\n",
}
READ = """
import sys
from collections import Counter
from pathlib import Path
from commonweight.workshop.data.settings import SourceSettings
from commonweight.workshop.data.sources import locate_source, read_source
settings = SourceSettings.model_validate({"name": "set", "licence": "MIT", "from": sys.argv[1]})
try:
    source = locate_source(settings, Path(), None, Path(), print)
    texts = [row.content.text for row in read_source(settings, source, Counter())]
    print(source.revision, [file.name for file in source.files], texts)
except ValueError as error:
    print(error)
"""


class Handler(BaseHTTPRequestHandler):
    """What a hub answers about the one dataset org/set."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        resolve = f"/datasets/org/set/resolve/{COMMIT}/"
        tree = f"/api/datasets/org/set/tree/{COMMIT}"
        if path.startswith(resolve) and path.removeprefix(resolve) in FILES:
            self._send(FILES[path.removeprefix(resolve)])
        elif path == "/api/datasets/org/set/refs":
            tags = [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": COMMIT}]
            branches = [{"name": "dev", "ref": "refs/heads/dev", "targetCommit": COMMIT}]
            self._send(json.dumps({"tags": tags, "branches": branches, "converts": []}).encode())
        elif path == f"/api/datasets/org/set/revision/{COMMIT}":
            siblings = [{"rfilename": name} for name in FILES]
            self._send(json.dumps({"id": "org/set", "sha": COMMIT, "siblings": siblings}).encode())
        elif path == tree:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in FILES.items()
            ]
            self._send(json.dumps(entries).encode())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if path.startswith(resolve) else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("location", "answer"),
    [
        (f"hf:org/set@{COMMIT}", f"{COMMIT} ['data/one.jsonl', 'data/two.jsonl'] ['one', 'two']"),
        ("hf:org/set@v1/data", f"{COMMIT} ['one.jsonl', 'two.jsonl'] ['one', 'two']"),
        ("hf:org/set@v1/data/two.jsonl", f"{COMMIT} ['two.jsonl'] ['two']"),
        ("hf:org/set@dev", "hf:org/set has no tag dev; name a commit or a tag, not a branch."),
        ("hf:org/set@v1/data/no.jsonl", "Cannot fetch hf:org/set@v1: no such file: data/no.jsonl."),
        ("hf:org/other@v1", "Cannot fetch hf:org/other@v1: no such dataset, or a private one"),
        (f"hf:org/set@{'d' * 40}/a.jsonl", f"Cannot fetch hf:org/set@{'d' * 40}: no such dataset"),
    ],
)
def test_a_dataset_on_the_hub_is_read_at_a_commit(hub: str, tmp_path: Path, location: str, answer: str) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", READ, location], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip().startswith(answer)
