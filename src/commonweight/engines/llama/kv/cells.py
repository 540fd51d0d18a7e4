"""Which cells of the KV cache are in use: llama.cpp shares them between sequences, and does not tell."""

import numpy as np
import numpy.typing as npt

Handles = npt.NDArray[np.int32]


class Cells:
    """Counts the owners of each cell. Handles say nothing about where llama.cpp puts a token."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._owners = np.zeros(capacity, np.int32)
        self._free = np.arange(capacity, dtype=np.int32)
        self.free = capacity

    @property
    def used(self) -> int:
        """Cells with at least one owner."""
        return self.capacity - self.free

    def take(self, count: int) -> Handles:
        """Cells for new tokens of one owner; there must be as many."""
        assert count <= self.free
        self.free -= count
        taken = self._free[self.free : self.free + count].copy()
        self._owners[taken] = 1
        return taken

    def share(self, handles: Handles) -> None:
        """One more owner for these."""
        self._owners[handles] += 1

    def drop(self, handles: Handles) -> None:
        """One owner less; cells without any are free."""
        self._owners[handles] -= 1
        freed = handles[self._owners[handles] == 0]
        self._free[self.free : self.free + len(freed)] = freed
        self.free += len(freed)
