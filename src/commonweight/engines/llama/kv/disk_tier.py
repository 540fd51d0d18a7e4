"""Where prefixes outlive RAM and the process: blocks on their way to files and back, moved by one thread."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from commonweight.engines.llama.kv.block_files import BlockEntry, BlockFiles, BlockKey, StoredBlock, check_hex_name

log = logging.getLogger(__name__)

MAX_QUEUE_BYTES = 256 << 20
"""Parts that may wait to be written; they hold RAM until then."""
WRITE_RETRY_SECONDS = 60.0
"""Seconds without writing after the folder refused a block: full and read-only disks rarely mend in less."""
WRITE_REST_FACTOR = 20
"""While others compute, the thread rests so many times as long as it wrote."""
_RATE_DECAY = 0.8  # share of earlier reads kept in the measured rate, at each read


class Loaded(msgspec.Struct, frozen=True):
    """A block that was asked for, verified."""

    block: StoredBlock


class Stored(msgspec.Struct, frozen=True):
    """A block has reached its file, of ``size`` bytes."""

    tenant: str
    name: str
    size: int


class Lost(msgspec.Struct, frozen=True):
    """Don't count on finding this block: it was evicted, corrupt or never there, or could not be written."""

    tenant: str
    name: str


class DiskTier:
    """Blocks of one model on disk. Methods return at once but for :meth:`scan` and :meth:`close`.

    Trouble with the disk never raises: it is logged, and blocks are lost. Processes may share the folder.

    Raises:
        ValueError: a name or the fingerprint is not lowercase hexadecimal; from every method.
    """

    read_rate: float | None = None
    """Bytes a second of the last few reads, opening and verifying included; None before the first."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        *,
        capacity: int,
        wake: Callable[[], None],
        queue_bytes: int = MAX_QUEUE_BYTES,
    ) -> None:
        """Keep ``capacity`` bytes in ``folder``, all models together; ``wake`` is called from the other thread."""
        self._files = BlockFiles(folder, check_hex_name(fingerprint), capacity, self._lose)
        self._wake = wake
        self._queue_bytes = queue_bytes
        self._changed = threading.Condition()
        self._reads: deque[BlockKey] = deque()
        self._forgotten: set[BlockKey] = set()
        self._touched: set[BlockKey] = set()
        self._may_write = True
        self._writes: dict[BlockKey, StoredBlock] = {}
        self._reports: list[Loaded | Lost | Stored] = []
        self._closes_at: float | None = None
        self._paused_until = self._rested_at = 0.0
        self._read_bytes = self._read_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="kv-disk", daemon=True)
        self._thread.start()

    @property
    def used_bytes(self) -> int:
        """Bytes of all models and tenants in the folder, when last looked at."""
        return self._files.used_bytes

    def scan(self) -> list[BlockEntry]:
        """What is there, parents first; removes what is of no use. Reads headers only. The first call, if any."""
        return self._files.scan()

    def write(self, block: StoredBlock) -> None:
        """Queue a block; it is reported as stored or lost, unless it is forgotten or written again meanwhile."""
        if block.parent:
            check_hex_name(block.parent)
        with self._changed:
            self._writes[block.tenant, check_hex_name(block.name)] = block
            while len(self._writes) > 1 and sum(map(_parts_size, self._writes.values())) > self._queue_bytes:
                # The oldest goes, but not before those that build on it: they are no use without.
                parents = {(block.tenant, block.parent) for block in self._writes.values()}
                dropped = min(self._writes, key=parents.__contains__)
                del self._writes[dropped]
                self._reports.append(Lost(*dropped))
            self._changed.notify()

    def read(self, tenant: str, name: str) -> None:
        """Ask for a block, ahead of all writes; it is reported as loaded or lost."""
        with self._changed:
            self._reads.append((tenant, check_hex_name(name)))
            self._changed.notify()

    def collect(self) -> list[Loaded | Lost | Stored]:
        """What was reported since the last time, in order. A report later than another one holds."""
        with self._changed:
            reports, self._reports = self._reports, []
        return reports

    def touch(self, tenant: str, name: str) -> None:
        """A block is used now, and with it its ancestors. Loading and writing are uses anyway."""
        with self._changed:
            self._touched.add((tenant, check_hex_name(name)))
            self._changed.notify()

    def forget(self, tenant: str, name: str) -> None:
        """Remove a block, written or about to be."""
        with self._changed:
            self._writes.pop((tenant, check_hex_name(name)), None)
            self._forgotten.add((tenant, name))
            self._changed.notify()

    def allow_writes(self, may_write: bool) -> None:
        """Whether now is a good time: hashing and copying take the cores that compute."""
        if may_write != self._may_write:
            with self._changed:
                self._may_write = may_write
                self._changed.notify()

    def close(self, patience: float) -> None:
        """Finish what is queued, but for reads, as far as ``patience`` seconds allow. The last call."""
        with self._changed:
            self._closes_at = time.monotonic() + patience
            self._changed.notify()
        self._thread.join(patience)

    def _work(self) -> None:
        while (work := self._next()) is not None:
            work()

    def _next(self) -> Callable[[], None] | None:
        """The most urgent thing to do, waiting for one; None when it is time to leave."""
        with self._changed:
            while self._closes_at is None or time.monotonic() < self._closes_at:
                if self._reads and self._closes_at is None:
                    return partial(self._load, self._reads.popleft())
                if self._forgotten:
                    return partial(self._files.remove, self._forgotten.pop())
                if self._touched:
                    touched, self._touched = self._touched, set()
                    return partial(self._files.use, touched)
                rest = self._rested_at - time.monotonic()
                if self._writes and (self._may_write or self._closes_at or rest <= 0):
                    key = next(iter(self._writes))
                    return partial(self._store, key, self._writes.pop(key))
                if self._closes_at is not None:
                    break
                self._changed.wait(rest if self._writes else None)
        return None

    def _load(self, key: BlockKey) -> None:
        with self._changed:
            block = self._writes.get(key)
        if block is None:
            started = time.perf_counter()
            size, block = self._files.load(key)
            if block is not None:
                self._read_bytes = self._read_bytes * _RATE_DECAY + size
                self._read_seconds = self._read_seconds * _RATE_DECAY + time.perf_counter() - started
                self.read_rate = self._read_bytes / self._read_seconds
                with self._changed:
                    self._touched.add(key)
        self._report(Lost(*key) if block is None else Loaded(block))

    def _store(self, key: BlockKey, block: StoredBlock) -> None:
        size = None
        started = time.monotonic()
        if started >= self._paused_until:
            try:
                size = self._files.store(block)
            except Exception as error:  # the engine goes on without, whatever it is
                log.warning("cannot keep prefixes on disk, trying again in %.0f s: %s", WRITE_RETRY_SECONDS, error)
                self._paused_until = time.monotonic() + WRITE_RETRY_SECONDS
        now = time.monotonic()
        self._rested_at = now + WRITE_REST_FACTOR * (now - started)
        self._report(Lost(*key) if size is None else Stored(*key, size))

    def _lose(self, key: BlockKey) -> None:
        self._report(Lost(*key))

    def _report(self, report: Loaded | Lost | Stored) -> None:
        with self._changed:
            self._reports.append(report)
        self._wake()


def _parts_size(block: StoredBlock) -> int:
    return sum(memoryview(part).nbytes for part in block.parts.values())
