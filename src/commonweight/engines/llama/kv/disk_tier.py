"""Disk tier of the prefix cache: one thread reads and writes block files."""

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
"""Maximum of bytes queued to be written; they stay in RAM until then."""
WRITE_RETRY_SECONDS = 60.0
"""Seconds without writing after the folder refused a block: full and read-only disks rarely mend in less."""
WRITE_REST_FACTOR = 20
"""While jobs run, the thread pauses so many times as long as it wrote."""
_RATE_DECAY = 0.8  # share of earlier reads kept in the measured rate, at each read


class Loaded(msgspec.Struct, frozen=True):
    """Report: a requested block, read and verified."""

    block: StoredBlock


class Stored(msgspec.Struct, frozen=True):
    """Report: a block was written to its file, of ``size`` bytes."""

    tenant: str
    name: str
    size: int


class Lost(msgspec.Struct, frozen=True):
    """Report: a block is not on disk, because it was evicted, corrupt, never there or could not be written."""

    tenant: str
    name: str


class DiskTier:
    """Asynchronous block storage of one model. Methods return at once but for :meth:`scan` and :meth:`close`.

    Disk errors never raise: it is logged, and blocks are lost. Processes may share the folder.

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
        """List the stored blocks, parents first, and remove unusable files. Reads headers only. The first call,
        if any."""
        return self._files.scan()

    def write(self, block: StoredBlock) -> None:
        """Queue a block; it is reported as stored or lost, unless it is forgotten or written again meanwhile."""
        if block.parent:
            check_hex_name(block.parent)
        with self._changed:
            self._writes[block.tenant, check_hex_name(block.name)] = block
            while (
                len(self._writes) > 1 and sum(map(_compute_parts_size, self._writes.values())) > self._queue_bytes
            ):
                # The oldest is dropped, but not before its descendants: they are useless without it.
                parents = {(block.tenant, block.parent) for block in self._writes.values()}
                dropped = min(self._writes, key=parents.__contains__)
                del self._writes[dropped]
                self._reports.append(Lost(*dropped))
            self._changed.notify()

    def read(self, tenant: str, name: str) -> None:
        """Queue a read, ahead of all writes; it is reported as loaded or lost."""
        with self._changed:
            self._reads.append((tenant, check_hex_name(name)))
            self._changed.notify()

    def collect(self) -> list[Loaded | Lost | Stored]:
        """Take the reports since the last call, in order. Of two on one block the later one holds."""
        with self._changed:
            reports, self._reports = self._reports, []
        return reports

    def touch(self, tenant: str, name: str) -> None:
        """Mark a block and its ancestors as used now. Reads and writes do so anyway."""
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
        """Set whether to write at full speed: hashing and copying take cores from inference."""
        if may_write != self._may_write:
            with self._changed:
                self._may_write = may_write
                self._changed.notify()

    def close(self, patience: float) -> None:
        """Finish queued work except reads, within ``patience`` seconds. The last call."""
        with self._changed:
            self._closes_at = time.monotonic() + patience
            self._changed.notify()
        self._thread.join(patience)

    def _work(self) -> None:
        while (work := self._wait_for_task()) is not None:
            work()

    def _wait_for_task(self) -> Callable[[], None] | None:
        """Wait for the most urgent task; None to end the thread."""
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
            except Exception as error:  # the engine goes on without the disk, whatever it is
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


def _compute_parts_size(block: StoredBlock) -> int:
    return sum(memoryview(part).nbytes for part in block.parts.values())
