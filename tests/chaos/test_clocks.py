"""Clocks that jump, by libfaketime: the time of day that a server sees; its timers go on as in reality."""

from pathlib import Path

import pytest
from live_servers import HEADERS, Life, Site, assert_right, forced, marker_of, until, work

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
HOUR, DAY = 3600, 86400

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed (Debian: faketime)"),
]


class Clock:
    """The time of day of the processes that have this environment."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.jump_to(0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[-1]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump_to(self, seconds: int) -> None:
        """From now on it is so many seconds later than it is."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._file)


def test_a_day_later_at_once(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    site = Site(tmp_path, "--parallel", "2", **clock.environment)
    short = site.key("short", "--expires", "2h")
    lasting = site.key("lasting", "--requests-per-minute", "60", "--concurrency", "2")
    with site.serving() as life:
        life.check()
        file = life.upload(b"for an hour", expires_in_seconds=str(HOUR))
        assert life.http.get(f"/v1/files/{file}/content").status_code == 200
        assert marker_of(life.ask(forced("a"), short).message()) == "a"
        batch = life.create_batch(work(40))
        site.until_finished(batch, 1)
        stream = life.stream(key=lasting).begun()
        clock.jump_to(25 * HOUR)
        stream.message()
        until(lambda: life.ask(forced("b"), short).done().status == 401, "the key has expired")
        gone = life.http.get(f"/v1/files/{file}/content")
        assert (gone.status_code, gone.json()["error"]["details"]["error_code"]) == (404, "file_expired")
        kinds = [result["type"] for result in life.ended(batch).values()]
        assert set(kinds) == {"succeeded", "expired"}, set(kinds)
        assert marker_of(life.ask(forced("c"), lasting).message()) == "c"
        assert life.http.delete(f"/v1/files/{file}").status_code == 200
        del site.files[file]
        until(lambda: not list(site.data.glob("files/*/[0-9a-f][0-9a-f]/*")), "its content goes")
        life.ended(life.create_batch({"d": forced("d")}))
        life.check()


def is_limited(life: Life, key: str) -> bool:
    """Whether a key that may have two requests a minute gets some of eight, and not all."""
    asking = [life.ask(forced(f"limited-{i}"), key) for i in range(8)]
    statuses = [client.done().status for client in asking]
    return set(statuses) == {200, 429}


def test_a_day_back_at_once(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    site = Site(tmp_path, "--parallel", "2", **clock.environment)
    few = site.key("few", "--requests-per-minute", "2")
    with site.serving() as life:
        life.check()
        assert is_limited(life, few)
        batch = life.create_batch(work(15))
        site.until_finished(batch, 1)
        clock.jump_to(-DAY)
        until(lambda: is_limited(life, few), "the key is good again, and for no more than before")
        assert_right(life.ended(batch))
        life.upload(b"yesterday", expires_in_seconds=str(HOUR))
        life.check()


def test_a_day_back_while_nobody_serves(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    site = Site(tmp_path, "--parallel", "2", **clock.environment)
    one = site.key("one", "--concurrency", "1")
    with site.serving() as life:
        life.check()
        batch = life.create_batch(work(15))
        site.until_finished(batch, 1)
        life.stream(key=one).begun()
        life.kill()
    clock.jump_to(-DAY)
    with site.serving() as life:
        # Neither its items nor its place are held for a day by a server that is gone.
        until(lambda: life.ask(forced("place"), one).done().status == 200, "the place is free")
        assert_right(life.ended(batch))
        assert life.http.get("/v1/models", headers=HEADERS).status_code == 200
        life.check()
