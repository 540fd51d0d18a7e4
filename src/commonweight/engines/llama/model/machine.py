"""Memory and cores available to this process, within a container's limits."""

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import psutil


class Memory(NamedTuple):
    """Memory of this machine or container, in bytes."""

    total: int
    available: int


def read_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> Memory:
    """The memory we may use: psutil knows the machine's, but not a container's limit."""
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    old = cgroup / "memory"
    for limit, usage, statistics in (
        (cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat"),
        (old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old / "memory.stat"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such file, or the limit is "max"
            most = int(limit.read_text())
            # The page cache counts as used, but is reclaimed on demand.
            cached = sum(map(int, re.findall(r"^(?:in)?active_file (\d+)$", statistics.read_text(), re.MULTILINE)))
            total = min(total, most)
            available = min(available, most - int(usage.read_text()) + cached)
    return Memory(total, max(available, 0))


def count_physical_cores() -> int:
    """Cores that this process may use. Hyper-threads share the units that the kernels need."""
    allowed = count_cores()
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


def count_cores() -> int:
    """Cores that this process may use, each hyper-thread counted."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
