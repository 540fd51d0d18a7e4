"""Readiness check of a disk: whether it takes anything."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROBE_BYTES = 1 << 16
"""Bytes of a probe: more than a file's own entry holds, and more than is left of a full disk."""
PROBE_INTERVAL_SECONDS = 5.0
"""Seconds between two probes, however often one asks."""


class DiskProbe:
    """Writes to a folder and flushes it, at most once in some seconds; in between, the last result holds."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._began = 0.0
        self._probe: asyncio.Future[None] | None = None

    async def check(self) -> None:
        """Raise OSError unless the disk takes what is written.

        A disk that hangs lets all who ask wait for one probe, each as long as it wants to.
        """
        if self._probe is None or (self._probe.done() and self._clock() - self._began >= PROBE_INTERVAL_SECONDS):
            self._began = self._clock()
            self._probe = asyncio.ensure_future(asyncio.to_thread(_write_probe, self._folder))
            self._probe.add_done_callback(_retrieve)
        await asyncio.shield(self._probe)


def _write_probe(folder: Path) -> None:
    # A new file each time: one that is there already can be written over on a full disk.
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        rest = memoryview(bytes(PROBE_BYTES))
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file)


def _retrieve(probe: asyncio.Future[None]) -> None:
    """Retrieve the exception, which asyncio would otherwise report where all callers were canceled."""
    if not probe.cancelled():
        probe.exception()
