"""Prefix cache: a radix tree of KV blocks for each tenant, in RAM with a disk tier below.

A shorter block is replaced by a longer one that begins with it. Blocks are named by all tokens up to their end:
equal prefixes of different requests are one path, and files are found again after a restart.

LRU eviction, leaves before their ancestors. Cache marks are soft: pinned blocks are passed over while there is any
other block to evict, for a time that every use renews.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import itemgetter
from time import monotonic
from typing import NamedTuple, TypeVar

from commonweight.engines.contract import CacheMark, Ttl
from commonweight.engines.llama.kv.block_files import BlockEntry
from commonweight.engines.llama.kv.blocks import (
    TOKEN_DTYPE,
    BlockContents,
    CacheBlock,
    ProbeScores,
    StateBytes,
    count_common_tokens,
    round_down_to_blocks,
)
from commonweight.engines.llama.kv.disk_tier import DiskTier, Loaded, Lost, Stored

TTL_SECONDS: dict[Ttl, float] = {"5m": 300.0, "1h": 3600.0}
"""Seconds that a mark pins its blocks after each use."""

K = TypeVar("K")
V = TypeVar("V")


class PrefixMatch(NamedTuple):
    """Cached prefix: its blocks, and its length in tokens (the last block may hold more)."""

    blocks: list[CacheBlock]
    length: int


NO_MATCH = PrefixMatch([], 0)


class PrefixCache:
    """Radix-tree cache of KV state. Everything but file access runs in the caller's thread."""

    def __init__(self, *, capacity: int, needs_snapshots: bool, disk: DiskTier | None) -> None:
        self._capacity = capacity
        self._needs_snapshots = needs_snapshots
        self._disk = disk
        self._roots: dict[str, CacheBlock] = {}
        self._blocks: dict[tuple[str, str], CacheBlock] = {}
        self._recent: OrderedDict[CacheBlock, None] = OrderedDict()
        """Blocks in RAM in LRU order; a block always comes after its descendants."""
        self.ram_bytes = 0
        if disk is not None:
            self._load_index(disk)

    @property
    def disk_bytes(self) -> int:
        """Bytes of files."""
        return self._disk.used_bytes if self._disk else 0

    def match_prefix(
        self, tenant: str, key: bytes, limit: int, probe: str | None = None, *, in_ram: bool = False
    ) -> PrefixMatch:
        """Longest cached prefix of at most ``limit`` tokens; with a probe, one that has its scores."""

        def is_fit(block: CacheBlock) -> bool:
            return block.has_scores(probe) and not (in_ram and block.state is None)

        block = self._root(tenant)
        path: list[CacheBlock] = []
        while (child := block.children.get(block.make_child_key(key, limit))) and is_fit(child):
            path.append(child)
            block = child
        if self._needs_snapshots:
            return _find_last_snapshot([self._root(tenant), *path], key, limit, is_fit)
        rest = block.make_child_key(key, limit)
        nearest = block.find_nearest_child(rest)
        if nearest and not is_fit(nearest[0]):
            fit = [
                (child, count_common_tokens(child.tokens, rest))
                for child in block.children.values()
                if is_fit(child)
            ]
            nearest = max(fit, key=itemgetter(1), default=None)
        if nearest and nearest[1]:
            return PrefixMatch([*path, nearest[0]], block.end + nearest[1])
        return PrefixMatch(path, block.end)

    def estimate_read_seconds(self, blocks: Sequence[CacheBlock]) -> float:
        """Estimated seconds to read the blocks from disk, at the measured rate."""
        rate = self._disk.read_rate if self._disk else None
        return sum(block.file_bytes for block in blocks) / rate if rate else 0.0

    def touch(self, blocks: Sequence[CacheBlock]) -> None:
        """Mark the blocks of a path as most recently used, and renew their pins."""
        now = monotonic()
        for block in reversed(blocks):
            if block in self._recent:
                self._recent.move_to_end(block)
            if block.pinned_until > now:
                block.pinned_until = now + block.ttl_seconds
        if self._disk and blocks and blocks[-1].file_bytes:
            self._disk.touch(blocks[-1].tenant, blocks[-1].name)

    def insert_prefix(
        self,
        tenant: str,
        key: bytes,
        end: int,
        save: Callable[[int, int], StateBytes],
        scores: tuple[str, ProbeScores] | None = None,
        *,
        marks: Sequence[CacheMark] = (),
        since: int = 0,
    ) -> None:
        """Insert the first ``end`` tokens of ``key``; ``save`` gives the cells of a range of positions.

        ``marks`` pin blocks at once: if everything else in RAM is pinned, they would be evicted before they are.

        Blocks before ``since`` that have been evicted meanwhile are not saved again, and nothing behind them.
        """
        block = self._root(tenant)
        path: list[CacheBlock] = []
        while block.end < end:
            piece = block.make_child_key(key, end)
            child = block.find_covering_child(piece)
            if child is None or not child.has_scores(scores[0] if scores else None):
                if block.end < round_down_to_blocks(since):
                    break
                child = self._write(block, piece, save, scores)
            path.append(child)
            block = child
        for mark in marks:
            _pin([block for block in path if block.start < mark.position], mark.ttl)
        self.touch(path)
        self._evict()

    def add_snapshot(self, tenant: str, key: bytes, position: int, snapshot: StateBytes) -> None:
        """Add a snapshot of the state behind the first ``position`` tokens, which have been inserted."""
        path = self._find_path(tenant, key, position)
        if path and (block := path[-1]).end >= position and block.state is not None:
            self._load(block, BlockContents(block.state, block.snapshots | {position: snapshot}, block.scores))
            self.touch(path)
            self._write_to_disk(block)
            self._evict()

    def truncate_prefix(self, tenant: str, key: bytes, end: int) -> None:
        """Remove the cached tokens of ``key`` behind its first ``end`` tokens.

        Blocks that other prompts share stay.
        """
        block: CacheBlock | None = self._root(tenant)
        while block is not None:
            piece = block.make_child_key(key, len(key) // TOKEN_DTYPE.itemsize)
            for child in block.find_children_within(piece):
                if child.end > end:
                    self._shorten(child, end)
            block = block.children.get(piece)

    def pin_prefix(self, tenant: str, key: bytes, position: int, ttl: Ttl) -> int:
        """Pin a prefix for ``ttl``. Returns how many of its tokens are cached."""
        path = self._find_path(tenant, key, position)
        _pin(path, ttl)
        return min(path[-1].end, position) if path else 0

    def prefetch(self, blocks: Sequence[CacheBlock]) -> None:
        """Start reading blocks that are only on disk."""
        assert self._disk is not None
        for block in blocks:
            if not block.is_loading:
                block.is_loading = True
                self._disk.read(block.tenant, block.name)

    def collect_disk_events(self) -> bool:
        """Apply the disk tier's reports. True if a waiting job may be affected."""
        news = False
        for event in self._disk.collect() if self._disk else ():
            match event:
                case Stored(tenant, name, size):
                    if block := self._blocks.get((tenant, name)):
                        block.file_bytes = size
                case Loaded(file):
                    if block := self._blocks.get((file.tenant, file.name)):
                        news = True
                        block.is_loading = False
                        if block.state is None:
                            self._load(block, block.from_file(file))
                            self.touch(block.path)
                case Lost(tenant, name):
                    if block := self._blocks.get((tenant, name)):
                        news = True
                        block.file_bytes, block.is_loading = 0, False
                        if block.state is None:
                            self._remove(block)
        if news:
            self._evict()
        return news

    def allow_disk_writes(self, is_idle: bool) -> None:
        """Let the disk tier write at full speed while no job runs."""
        if self._disk:
            self._disk.allow_writes(is_idle)

    def close(self) -> None:
        """Finish queued writes, within 5 seconds."""
        if self._disk:
            self._disk.close(patience=5.0)

    def _root(self, tenant: str) -> CacheBlock:
        if tenant not in self._roots:
            self._roots[tenant] = CacheBlock(tenant, None, b"")
        return self._roots[tenant]

    def _find_path(self, tenant: str, key: bytes, end: int) -> list[CacheBlock]:
        """Path of blocks that hold the first ``end`` tokens, as far as they are cached."""
        block = self._root(tenant)
        path: list[CacheBlock] = []
        while block.end < end and (child := block.find_covering_child(block.make_child_key(key, end))):
            path.append(child)
            block = child
        return path

    def _write(
        self,
        parent: CacheBlock,
        piece: bytes,
        save: Callable[[int, int], StateBytes],
        scores: tuple[str, ProbeScores] | None,
    ) -> CacheBlock:
        child = parent.children.get(piece)
        if child is None:
            child = CacheBlock(parent.tenant, parent, piece)
            self._add(parent, child)
        state = child.state if child.state is not None else save(child.start, child.end)
        # A snapshot that is only on disk goes with its file, and must not be listed.
        snapshots = _select_in_ram(child.snapshots)
        for tail in parent.find_children_within(piece):
            if tail is not child:
                snapshots = _select_in_ram(tail.snapshots) | snapshots
                child.ttl_seconds = max(child.ttl_seconds, tail.ttl_seconds)
                child.pinned_until = max(child.pinned_until, tail.pinned_until)
                self._remove(tail)
        kept = _select_in_ram(child.scores)
        if scores:
            kept[scores[0]] = scores[1][child.start : child.end].copy()
        self._load(child, BlockContents(state, snapshots, kept))
        self._write_to_disk(child)
        return child

    def _shorten(self, block: CacheBlock, end: int) -> None:
        """Replace a block by one that ends earlier. The new block keeps all cells, and uses the first."""
        assert block.parent is not None
        self._remove(block)
        rows = end - block.start
        tokens = block.tokens[: rows * TOKEN_DTYPE.itemsize]
        if tokens and block.state is not None and not block.parent.find_covering_child(tokens):
            shorter = CacheBlock(block.tenant, block.parent, tokens)
            shorter.ttl_seconds, shorter.pinned_until = block.ttl_seconds, block.pinned_until
            snapshots = {at: data for at, data in block.snapshots.items() if at <= end}
            scores: dict[str, ProbeScores | None] = {
                version: data[:rows].copy() for version, data in block.scores.items() if data is not None
            }
            self._add(block.parent, shorter)
            self._load(shorter, BlockContents(block.state, snapshots, scores))
            self.touch(shorter.path)
            self._write_to_disk(shorter)

    def _add(self, parent: CacheBlock, child: CacheBlock) -> None:
        parent.add(child)
        self._blocks[child.tenant, child.name] = child

    def _load(self, block: CacheBlock, contents: BlockContents) -> None:
        self.ram_bytes -= block.size
        block.state, block.snapshots, block.scores = contents
        self.ram_bytes += block.size
        self._recent[block] = None

    def _write_to_disk(self, block: CacheBlock) -> None:
        if self._disk:
            self._disk.write(block.to_file())
            block.file_bytes = block.size  # it can be read back from now on, be it from the queue

    def _evict(self) -> None:
        now = monotonic()
        while self.ram_bytes > self._capacity and self._recent:
            oldest = next(iter(self._recent))
            self._unload(next((block for block in self._recent if block.pinned_until <= now), oldest))

    def _unload(self, block: CacheBlock) -> None:
        self.ram_bytes -= block.size
        del self._recent[block]
        block.state = None
        block.snapshots = dict.fromkeys(block.snapshots)
        block.scores = dict.fromkeys(block.scores)
        if not block.file_bytes:
            self._remove(block)

    def _remove(self, block: CacheBlock) -> None:
        """Remove a block and its descendants."""
        assert block.parent is not None
        block.parent.remove(block)
        doomed = [block]
        while doomed:
            block = doomed.pop()
            doomed += block.children.values()
            block.is_loading = False
            del self._blocks[block.tenant, block.name]
            if block in self._recent:
                self.ram_bytes -= block.size
                del self._recent[block]
            if self._disk:
                self._disk.forget(block.tenant, block.name)

    def _load_index(self, disk: DiskTier) -> None:
        """Build the trees from the blocks on disk."""
        below: dict[tuple[str, str], list[BlockEntry]] = {}
        for entry in disk.scan():
            below.setdefault((entry.tenant, entry.parent), []).append(entry)
        ready = [self._root(tenant) for tenant, parent in below if not parent]
        while ready:
            parent = ready.pop()
            for entry in below.get((parent.tenant, parent.name), ()):
                block = CacheBlock.from_entry(entry, parent)
                self._add(parent, block)
                ready.append(block)


def _select_in_ram(parts: dict[K, V | None]) -> dict[K, V | None]:
    """The parts that are in RAM."""
    return {key: part for key, part in parts.items() if part is not None}


def _pin(blocks: Sequence[CacheBlock], ttl: Ttl) -> None:
    now, lifetime = monotonic(), TTL_SECONDS[ttl]
    for block in blocks:
        block.ttl_seconds = max(lifetime, block.ttl_seconds if block.pinned_until > now else 0.0)
        block.pinned_until = now + block.ttl_seconds


def _find_last_snapshot(
    line: list[CacheBlock], key: bytes, limit: int, is_fit: Callable[[CacheBlock], bool]
) -> PrefixMatch:
    """The match cut to the last position with a snapshot: below the last block of the path, or the one before,
    ..."""
    for depth in range(len(line), 0, -1):
        rest = line[depth - 1].make_child_key(key, limit)
        ends = [
            (at, child)
            for child in line[depth - 1].children.values()
            if child.snapshots and is_fit(child)
            for at in child.snapshots
            if at <= child.start + count_common_tokens(child.tokens, rest)
        ]
        if ends:
            at, child = max(ends, key=itemgetter(0))
            return PrefixMatch([*line[1:depth], child], at)
    return NO_MATCH
