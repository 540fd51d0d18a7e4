"""Fair lock: passed on in the order in which threads asked for it."""

import threading
from collections import deque


class FairLock:
    """A lock, as a context manager. A thread that asks again while others wait comes after them.

    ``threading.Lock`` is free for a moment when it is released, and the thread that just had it mostly wins it.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._gates: deque[threading.Lock] = deque()
        self._is_held = False

    @property
    def waiting(self) -> int:
        """Number of threads that wait."""
        return len(self._gates)

    def __enter__(self) -> None:
        with self._mutex:
            if not self._is_held:
                self._is_held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
        gate.acquire()  # released by the thread that passes the lock on

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._gates:
                self._gates.popleft().release()
            else:
                self._is_held = False
