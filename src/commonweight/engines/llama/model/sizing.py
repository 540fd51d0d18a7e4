"""Default sizes of the embedded engine (window, KV cells, caches), from free memory and disk space."""

import contextlib
import logging
import shutil
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import msgspec
import platformdirs
from rich.filesize import decimal

from commonweight.engines.contract import EngineError
from commonweight.engines.llama.config import WorkerConfig
from commonweight.engines.llama.model.footprint import Footprint, UnallocatedModel
from commonweight.engines.llama.model.machine import Memory, count_physical_cores, read_memory
from commonweight.engines.settings import EngineSettings

log = logging.getLogger(__name__)

DEFAULT_CONTEXT_TOKENS = 32_768
"""Default window, in tokens, of models trained for more."""
MAX_DEFAULT_CELLS = 131_072
"""Maximum of KV cells by default, in tokens, if a window is no longer than that."""
CELL_STEP = 256
"""llama.cpp rounds cells up to a multiple of it."""
DEFAULT_DRAFTS = 15
"""With the token that they follow, a round number of rows: kernels like those."""
HEADROOM_SHARE, MIN_HEADROOM_BYTES, MAX_HEADROOM_BYTES = 0.1, 512 << 20, 4 << 30
"""Of all memory; bytes. Stays free for our two processes (about 250 MB), for prefixes on their way to disk (as
much at most), and for other programs."""
RAM_SHARE, MIN_RAM_BYTES, MAX_RAM_BYTES = 0.25, 256 << 20, 8 << 30
"""Of what weights and headroom leave; bytes. For idle prefixes, after one window of cells."""
DISK_SHARE, MAX_DISK_BYTES = 0.1, 10 << 30
"""Of the free disk space; bytes."""


class DoesNotFitError(EngineError):
    """The model does not fit into memory. The message has the numbers, and remedies."""


def plan_worker(
    path: Path,
    trained_window: int,
    settings: EngineSettings,
    report: Callable[[str], None] = log.info,
    *,
    reserved: int = 0,
) -> WorkerConfig:
    """Choose the sizes that settings leave open, by the model and the free memory.

    A context beyond what the model was trained for is cut to that: past it models babble. ``report`` gets a line
    for people on what was decided. ``reserved``: places for urgent jobs, beside those that the settings ask for.

    Raises:
        DoesNotFitError: the weights, one window and the requested caches need more memory than is available.
    """
    window = min(settings.context or DEFAULT_CONTEXT_TOKENS, trained_window)
    folder = platformdirs.user_cache_path("commonweight") / "prefixes"
    disk_bytes = _choose_disk_bytes(folder) if settings.cache_disk is None else settings.cache_disk
    if settings.cache_ram == 0:
        disk_bytes = 0  # blocks read from disk pass through RAM
    wanted = WorkerConfig(
        path=str(path),
        window=window,
        cells=window,
        sequences=settings.parallel + reserved,
        reserved=reserved,
        threads=settings.threads or count_physical_cores(),
        drafts=DEFAULT_DRAFTS if settings.speculation else 0,
        disk_folder=str(folder) if disk_bytes else None,
        disk_bytes=disk_bytes,
        settings=settings,
    )
    with contextlib.closing(UnallocatedModel(path)) as outline:
        chosen, kv = _MemoryPlan(wanted, outline, read_memory()).choose()
    report(
        f"Cache: {chosen.cells} tokens in {decimal(kv)}, "
        f"idle prefixes {decimal(chosen.ram_bytes)} in RAM, {decimal(disk_bytes)} on disk"
    )
    return chosen


class _MemoryPlan:
    """Chooses cells and RAM for ``wanted``, whose cells are the minimum: one window."""

    def __init__(self, wanted: WorkerConfig, outline: UnallocatedModel, machine: Memory) -> None:
        cache_ram = wanted.settings.cache_ram
        self._wanted = wanted
        self._outline = outline
        self._available = machine.available
        self._headroom = _clamp(MIN_HEADROOM_BYTES, machine.total * HEADROOM_SHARE, MAX_HEADROOM_BYTES)
        self._asked_ram = cache_ram or 0
        room = machine.available - self._headroom - outline.weights
        self._ram = _clamp(MIN_RAM_BYTES, room * RAM_SHARE, MAX_RAM_BYTES) if cache_ram is None else cache_ram
        self._room = room - self._asked_ram
        """Bytes for the context, and for RAM that was not asked for."""

    def choose(self) -> tuple[WorkerConfig, int]:
        """The configuration with its sizes, and the bytes of the cells."""
        kv_memory = self._wanted.settings.kv_memory
        cells = self._fit_cells_in_free_memory() if kv_memory is None else self._fit_cells(kv_memory)
        size = self._footprint(cells)
        ram = self._asked_ram or min(self._ram, self._room - size.total)
        return msgspec.structs.replace(self._wanted, cells=cells, ram_bytes=ram), size.kv

    def _fit_cells_in_free_memory(self) -> int:
        window = self._wanted.window
        self._check(window)
        most = max(window, min(window * self._wanted.sequences, MAX_DEFAULT_CELLS))
        limit = self._room + self._asked_ram - self._ram
        return self._find_largest(range(window, most + 1, CELL_STEP), lambda size: size.total <= limit) or window

    def _fit_cells(self, kv_memory: int) -> int:
        window = self._wanted.window
        steps = range(window, window * self._wanted.sequences + 1, CELL_STEP)
        cells = self._find_largest(steps, lambda size: size.kv <= kv_memory)
        if not cells:
            raise DoesNotFitError(
                f"--kv-memory {decimal(kv_memory)} is too small: {window} tokens of context take "
                f"{decimal(self._footprint(window).kv)}. "
                + self._make_advice(lambda size: size.kv <= kv_memory, "a larger --kv-memory")
            )
        self._check(cells, "a smaller --kv-memory")
        return cells

    def _check(self, cells: int, *remedies: str) -> None:
        """Raise unless the context fits beside what was asked for."""
        size = self._footprint(cells)
        if size.total <= self._room:
            return
        parts = {
            "weights": self._outline.weights,
            f"KV cache for {cells} tokens": size.kv,
            "buffers": size.buffers,
            "headroom": self._headroom,
        }
        if self._asked_ram:
            parts["--cache-ram"] = self._asked_ram
            remedies += ("a smaller --cache-ram",)
        needs = " + ".join(f"{decimal(part)} {name}" for name, part in parts.items())
        raise DoesNotFitError(
            f"{Path(self._wanted.path).name} does not fit into memory: it needs {needs} = "
            f"{decimal(sum(parts.values()))}, and {decimal(self._available)} are available. "
            + self._make_advice(
                lambda size: size.total <= self._room, *remedies, "a smaller quantisation of the model"
            )
        )

    def _make_advice(self, fits: Callable[[Footprint], bool], *remedies: str) -> str:
        if self._wanted.settings.kv_type == "f16":
            q8_0 = msgspec.structs.replace(self._wanted.settings, kv_type="q8_0")
            halved = msgspec.structs.replace(self._wanted, settings=q8_0)
            with contextlib.suppress(EngineError):  # some models can't
                if fits(self._outline.measure_footprint(halved)):
                    remedies = ("--kv-type q8_0", *remedies)
        if context := self._find_largest(range(CELL_STEP, self._wanted.window, CELL_STEP), fits):
            remedies = (f"--context {context}", *remedies)
        return f"Try {' or '.join(remedies)}"

    def _find_largest(self, steps: range, fits: Callable[[Footprint], bool]) -> int:
        """The most cells among ``steps`` that fit, or 0."""
        count = bisect_right(steps, False, key=lambda cells: not fits(self._footprint(cells)))
        return steps[count - 1] if count else 0

    def _footprint(self, cells: int) -> Footprint:
        return self._outline.measure_footprint(msgspec.structs.replace(self._wanted, cells=cells))


def _clamp(least: int, value: float, most: int) -> int:
    return max(least, min(int(value), most))


def _choose_disk_bytes(folder: Path) -> int:
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return min(int(shutil.disk_usage(existing).free * DISK_SHARE), MAX_DISK_BYTES)
    except OSError:  # a home that is not ours, for one
        return 0
