"""Number of threads that compute, by what other processes leave of the cores.

Threads of a kernel meet at a barrier hundreds of times a token, and spin there for milliseconds before they sleep:
on a quiet machine that is a sixth faster than sleeping at once. Where another process takes a core, each barrier
waits for a thread that is not running: on two cores that were busy otherwise, two threads were seen to give 4.5
tokens a second and one thread 35.
"""

import math
import os
from collections.abc import Callable
from time import monotonic

import psutil

INTERVAL_SECONDS = 0.5
"""Between measurements; the load of other processes is the mean since the last one."""
LEAST_TAKEN, MOST_FREE = 0.6, 0.3
"""Share of a core that others use from which on a thread is given up, and up to which it is taken back."""

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")

ReadCores = Callable[[], float]
"""Gives core-seconds that other processes have used since any fixed moment."""


class ThreadTuner:
    """Chooses how many of at most ``limit`` threads compute the next step. A call takes a microsecond."""

    def __init__(
        self, limit: int, read_others: ReadCores | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.threads = limit
        self._limit = limit
        self._read_others = read_others or _make_reader()
        self._clock = clock
        self._last = (clock(), self._read_others())

    def restart(self) -> None:
        """Measure from now on: what others did while there was nothing to compute says little about now."""
        self._last = (self._clock(), self._read_others())

    def choose(self) -> int:
        """The number of threads for the next step."""
        now = self._clock()
        began, used = self._last
        if self._limit == 1 or now - began < INTERVAL_SECONDS:
            return self.threads
        total = self._read_others()
        self._last = (now, total)
        others = (total - used) / (now - began)
        fewest = self._limit - math.ceil(others - MOST_FREE)
        most = self._limit - math.floor(others + 1 - LEAST_TAKEN)
        self.threads = max(1, min(max(self.threads, fewest), most))
        return self.threads


def _make_reader() -> ReadCores:
    process = psutil.Process()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None

    def read() -> float:
        times = psutil.cpu_times(percpu=True)
        allowed = times if cores is None else [times[core] for core in cores if core < len(times)]
        busy = sum(getattr(one, name, 0.0) for one in allowed for name in _BUSY)
        own = process.cpu_times()
        return float(busy - own.user - own.system)

    return read
