"""How large the embedded engine is made when nobody says."""

import os
from pathlib import Path

import psutil

from commonweight.engines.llama.channel import Options

DEFAULT_TOKENS = 32_768
"""Window of models trained for more, and cells of the cache where that holds several small windows."""


def options(
    path: Path, trained_window: int, *, context: int | None, sequences: int, threads: int | None
) -> Options:
    """Options for a model; ``context`` and ``threads`` None mean what suits the model and the machine.

    A context beyond what the model was trained for is cut to that: past it models babble.
    """
    window = min(context or DEFAULT_TOKENS, trained_window)
    return Options(
        path=str(path),
        window=window,
        cells=max(window, min(window * sequences, DEFAULT_TOKENS)),
        sequences=sequences,
        threads=threads or _physical_cores(),
    )


def _physical_cores() -> int:
    """Cores that this process may use. Hyper-threads share the units that the kernels need."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or allowed, allowed)
