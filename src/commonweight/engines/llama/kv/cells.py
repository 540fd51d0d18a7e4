"""Reference counts of KV cells: llama.cpp shares cells between sequences, but exposes no counts."""

import numpy as np
import numpy.typing as npt

Handles = npt.NDArray[np.int32]


class Cells:
    """Reference count of each KV cell. Handles are no cell indices of llama.cpp."""

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
        """Allocate ``count`` cells for one owner; as many must be free."""
        assert count <= self.free
        self.free -= count
        taken = self._free[self.free : self.free + count].copy()
        self._owners[taken] = 1
        return taken

    def share(self, handles: Handles) -> None:
        """Increment the reference counts."""
        self._owners[handles] += 1

    def drop(self, handles: Handles) -> None:
        """Decrement the reference counts; cells at 0 are free."""
        self._owners[handles] -= 1
        freed = handles[self._owners[handles] == 0]
        self._free[self.free : self.free + len(freed)] = freed
        self.free += len(freed)
