"""The memory of a server and of its engine process, sampled while they run."""

import asyncio
import time
from statistics import linear_regression

import psutil

EVERY = 1.0
"""Seconds between samples."""
WARM = 0.25
"""Of a run, so much counts for no rates: pools of connections and memory grow when the first clients come."""


class Memory:
    """Samples of the resident memory of a process."""

    def __init__(self, name: str, process: psutil.Process) -> None:
        self.name = name
        self._process = process
        self._samples: list[tuple[float, int]] = []

    async def watch(self) -> None:
        """Take samples until cancelled."""
        while True:
            self._samples.append((time.monotonic(), self._process.memory_info().rss))
            await asyncio.sleep(EVERY)

    def __str__(self) -> str:
        """A row of the table: megabytes, and megabytes a minute."""
        sizes = [size / 1e6 for _, size in self._samples]
        steady = self._samples[int(len(self._samples) * WARM) :]
        slope, _ = linear_regression([at / 60 for at, _ in steady], [size / 1e6 for _, size in steady])
        warm = steady[0][1] / 1e6
        return f"| {self.name} | {sizes[0]:.0f} | {warm:.0f} | {max(sizes):.0f} | {sizes[-1]:.0f} | {slope:+.2f} |"
