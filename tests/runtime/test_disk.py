"""Whether a disk takes anything is tried on it, at a bounded rate."""

import asyncio
from pathlib import Path

import pytest

from commonweight.runtime import disk
from commonweight.runtime.disk import PROBE_INTERVAL_SECONDS, DiskProbe


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_disk_that_takes_nothing_is_noticed_and_forgiven(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    clock = Clock()
    probe = DiskProbe(folder, clock)
    with pytest.raises(FileNotFoundError):
        await probe.check()
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        await probe.check()
    clock.now += PROBE_INTERVAL_SECONDS
    await probe.check()
    assert list(folder.iterdir()) == []
    folder.rmdir()
    await probe.check()
    clock.now += PROBE_INTERVAL_SECONDS
    with pytest.raises(FileNotFoundError):
        await probe.check()


async def test_a_disk_that_hangs_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    hangs = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_folder: Path) -> None:
        nonlocal asked
        asked += 1
        asyncio.run_coroutine_threadsafe(hangs.wait(), loop).result()

    monkeypatch.setattr(disk, "_write_probe", hang)
    clock = Clock()
    probe = DiskProbe(tmp_path, clock)
    for _ in range(3):
        clock.now += PROBE_INTERVAL_SECONDS
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await probe.check()
    hangs.set()
    await probe.check()
    assert asked == 1
