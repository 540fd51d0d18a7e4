"""A disk that is full: of the data folder, and of the cache folder. Each is a small tmpfs."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_servers import PATIENCE, Site, assert_right, counting, forced, marker_of, text_of, until, work

from commonweight.engines.llama.kv.disk_tier import WRITE_RETRY_SECONDS

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a tmpfs"),
]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator["SmallDisk"]:
    """A disk of its own at a folder."""
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", folder], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class SmallDisk:
    """A disk that can be filled up."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not a byte."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0")

    def free(self) -> None:
        """Leave room again."""
        self._ballast.unlink()


def test_the_data_folder_is_full(tmp_path: Path) -> None:
    site = Site(tmp_path, "--parallel", "4")
    with small_disk(site.data, 160) as disk:
        limited = site.key("alice", "--requests-per-minute", "1000")
        with site.serving() as life:
            life.check()
            life.upload(b"kept")
            batch = life.create_batch(work(60))
            site.until_finished(batch, 1)
            assert life.http.get("/ready").json()["checks"]["disk"]
            disk.fill()
            until(lambda: life.http.get("/ready").status_code == 503, "it is not ready")
            assert not life.http.get("/ready").json()["checks"]["disk"]
            for number in range(10):
                assert marker_of(life.stream(forced(f"full-{number}")).message()) == f"full-{number}"
            refused = life.http.post("/v1/files", files={"file": ("name.bin", b"new")})
            assert refused.status_code == 500, refused.text
            assert "disk is full" in refused.json()["error"]["message"]
            assert refused.headers["x-should-retry"] == "false"
            item = {"custom_id": "x", "params": forced("x")}
            refused = life.http.post("/v1/messages/batches", json={"requests": [item]})
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "api_error"), refused.text
            assert "disk is full" in refused.json()["error"]["message"]
            refused = life.http.post("/v1/messages", json=forced("x"), headers={"x-api-key": limited})
            assert (refused.status_code, refused.json()["error"]["type"]) == (503, "api_error"), refused.text
            assert [listed["id"] for listed in life.http.get("/v1/messages/batches").json()["data"]] == [batch]
            assert life.http.get("/health").json()["status"] == "ok"
            assert life.batch(batch)["processing_status"] == "in_progress"
            disk.free()
            until(lambda: life.http.get("/ready").status_code == 200, "it is ready again")
            assert_right(life.ended(batch))
            life.upload(b"new")
            life.ended(life.create_batch({"y": forced("y")}))
            assert marker_of(life.ask(forced("z"), limited).message()) == "z"
            life.check()
            disk.fill()
        assert life.process.returncode == 0
        command = [sys.executable, "-m", "commonweight", "serve", "--port", "0", "--data", str(site.data)]
        refused_start = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert refused_start.returncode == 1
        assert "Traceback" not in refused_start.stderr
        assert str(site.data) in refused_start.stderr
        disk.free()
        with site.serving() as life:
            life.check()


def test_the_cache_folder_is_full(tmp_path: Path) -> None:
    site = Site(tmp_path, "--cache-disk", "1GB")
    prompts = [counting(start, 260) for start in range(1000, 5000, 1000)]
    with small_disk(site.cache, 200) as disk:
        with site.serving() as life:
            disk.fill()
            answers = [text_of(life.ask(prompt).message()) for prompt in prompts[:2]]
            until(lambda: "cannot keep prefixes on disk" in site.log.read_text(), "it says so")
            life.check()
            assert not list(site.cache.rglob("*.kv"))
            disk.free()
            time.sleep(WRITE_RETRY_SECONDS)
            answers += [text_of(life.ask(prompt).message()) for prompt in prompts[2:]]
            until(lambda: list(site.cache.rglob("*.kv")), "blocks are written again")
            life.check()
        with site.serving() as life:
            messages = [life.ask(prompt).message() for prompt in prompts]
            assert [text_of(message) for message in messages] == answers
            assert sum(message["usage"]["cache_read_input_tokens"] for message in messages) > 0
            life.check()
