"""Radix-tree nodes of the prefix cache: blocks of tokens with their KV state.

A block is named by all tokens up to its end. The blocks of a tenant form a radix tree over pieces of
:data:`BLOCK_TOKENS` tokens, aligned to the start of the prompt; only the last block of a path may be shorter.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.engines.llama.kv import block_files as files

BLOCK_TOKENS = 256
"""Tokens of a full block."""
TOKEN_DTYPE = np.dtype(">i4")
"""Tokens as bytes: big-endian, so that bytes sort as the tokens do."""

CELLS, SNAPSHOT, SCORES = "cells", "snapshot:", "scores:"
"""Part names in a block's file."""

StateBytes = npt.NDArray[np.uint8]
"""Bytes as llama.cpp writes and reads them."""
ProbeScores = npt.NDArray[np.float32]


def encode_key(token_ids: Sequence[int]) -> bytes:
    """Encode tokens as bytes for comparison with blocks."""
    return np.asarray(token_ids, TOKEN_DTYPE).tobytes()


def count_common_tokens(one: bytes, other: bytes) -> int:
    """Length of the longest common prefix of two keys, in tokens."""
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size // TOKEN_DTYPE.itemsize
    return int(np.argmax(np.frombuffer(one[:size], TOKEN_DTYPE) != np.frombuffer(other[:size], TOKEN_DTYPE)))


def round_down_to_blocks(tokens: int) -> int:
    """Round a token count down to whole blocks."""
    return tokens // BLOCK_TOKENS * BLOCK_TOKENS


class BlockContents(NamedTuple):
    """KV state, snapshots and probe scores of a block."""

    state: StateBytes
    """The attention cells; perhaps of more tokens than the block's own, which come first."""
    snapshots: dict[int, StateBytes | None]
    """Snapshots of state that cannot be cut, by position."""
    scores: dict[str, ProbeScores | None]
    """By probe version, of shape ``(tokens, heads)``."""


class CacheBlock:
    """Radix-tree node: up to :data:`BLOCK_TOKENS` tokens behind its parent's, with contents as far as in RAM."""

    def __init__(self, tenant: str, parent: "CacheBlock | None", tokens: bytes) -> None:
        self.tenant = tenant
        self.parent = parent
        self.tokens = tokens
        self.start: int = parent.end if parent else 0
        self.end: int = self.start + len(tokens) // TOKEN_DTYPE.itemsize
        above = parent.name if parent else ""
        self.name: str = hashlib.blake2b(above.encode() + tokens, digest_size=20).hexdigest() if tokens else ""
        self.children: dict[bytes, CacheBlock] = {}
        self._sorted: list[bytes] = []
        self.state: StateBytes | None = None
        """As in :class:`BlockContents`, and so are the next two; None: not in RAM."""
        self.snapshots: dict[int, StateBytes | None] = {}
        self.scores: dict[str, ProbeScores | None] = {}
        self.file_bytes = 0
        """Bytes on disk, or queued to be written; 0: none."""
        self.is_loading = False
        self.ttl_seconds = 0.0
        self.pinned_until = 0.0

    @classmethod
    def from_entry(cls, entry: files.BlockEntry, parent: "CacheBlock") -> "CacheBlock":
        """Block of a file found on disk."""
        block = cls(entry.tenant, parent, entry.tokens)
        block.file_bytes = entry.size
        block.snapshots = dict.fromkeys(map(int, _select_kind(SNAPSHOT, entry.parts)))
        block.scores = dict.fromkeys(_select_kind(SCORES, entry.parts))
        return block

    @property
    def size(self) -> int:
        """Bytes in RAM."""
        parts = (self.state, *self.snapshots.values(), *self.scores.values())
        return sum(part.nbytes for part in parts if part is not None)

    @property
    def path(self) -> "list[CacheBlock]":
        """The blocks from the start of the prompt to this one."""
        path: list[CacheBlock] = []
        block = self
        while block.parent is not None:
            path.append(block)
            block = block.parent
        return path[::-1]

    def add(self, child: "CacheBlock") -> None:
        """Add a child."""
        self.children[child.tokens] = child
        insort(self._sorted, child.tokens)

    def remove(self, child: "CacheBlock") -> None:
        """Remove a child."""
        del self.children[child.tokens]
        del self._sorted[bisect_left(self._sorted, child.tokens)]

    def make_child_key(self, key: bytes, limit: int) -> bytes:
        """Child key for the first ``limit`` tokens of ``key``, which begins with the path to this block."""
        return key[self.end * TOKEN_DTYPE.itemsize : min(self.end + BLOCK_TOKENS, limit) * TOKEN_DTYPE.itemsize]

    def find_nearest_child(self, tokens: bytes) -> "tuple[CacheBlock, int] | None":
        """The child that shares most tokens with ``tokens``, and how many; None if none shares any."""
        place = bisect_left(self._sorted, tokens)
        near = self._sorted[max(place - 1, 0) : place + 1]
        shared, key = max(((count_common_tokens(key, tokens), key) for key in near), default=(0, b""))
        return (self.children[key], shared) if shared else None

    def find_covering_child(self, tokens: bytes) -> "CacheBlock | None":
        """The child that begins with ``tokens``."""
        if child := self.children.get(tokens):
            return child
        nearest = self.find_nearest_child(tokens)
        return nearest[0] if nearest and nearest[0].tokens.startswith(tokens) else None

    def find_children_within(self, tokens: bytes) -> "list[CacheBlock]":
        """The children that ``tokens`` begin with."""
        return [child for child in self.children.values() if tokens.startswith(child.tokens)]

    def has_scores(self, probe: str | None) -> bool:
        """Whether it has scores of a probe version; True for None."""
        return probe is None or probe in self.scores

    def to_file(self) -> files.StoredBlock:
        """Encode a block in RAM for its file."""
        assert self.parent is not None
        assert self.state is not None
        parts: dict[str, StateBytes | ProbeScores] = {CELLS: self.state}
        parts |= {f"{SNAPSHOT}{at}": data for at, data in self.snapshots.items() if data is not None}
        parts |= {f"{SCORES}{version}": data for version, data in self.scores.items() if data is not None}
        views: dict[str, files.Buffer] = {name: part.data.cast("B") for name, part in parts.items()}
        return files.StoredBlock(self.tenant, self.name, self.parent.name, self.tokens, views)

    def from_file(self, file: files.StoredBlock) -> BlockContents:
        """Decode the contents of its file."""
        data = {name: np.frombuffer(part, np.uint8) for name, part in file.parts.items()}
        rows = self.end - self.start
        return BlockContents(
            data[CELLS],
            {int(at): data[SNAPSHOT + at] for at in _select_kind(SNAPSHOT, data)},
            {name: data[SCORES + name].view("<f4").reshape(rows, -1) for name in _select_kind(SCORES, data)},
        )


def _select_kind(kind: str, parts: Iterable[str]) -> list[str]:
    """Names of all parts of a kind, without the common prefix."""
    return [name.removeprefix(kind) for name in parts if name.startswith(kind)]
