"""Lifecycle of a server: counts running requests, and drains them at shutdown."""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator

from commonweight.messages.errors import UnavailableError


class Lifecycle:
    """Counts running requests, and refuses new ones while draining."""

    def __init__(self) -> None:
        self.running = 0
        """Requests that are being answered."""
        self._ends_at: float | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def is_draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._ends_at is not None

    def start_draining(self, seconds: float) -> None:
        """Start draining: refuse new requests for work; running ones have this many seconds."""
        self._ends_at = time.monotonic() + seconds

    async def check_accepting(self) -> None:
        """A dependency of routes that start work: refuse it while draining.

        Raises:
            UnavailableError: no more is begun.
        """
        if self._ends_at is not None:
            left = math.ceil(max(1.0, self._ends_at - time.monotonic()))
            raise UnavailableError("The server is shutting down.", retry_after=left)

    @contextlib.contextmanager
    def track_request(self) -> Iterator[None]:
        """Count a request as running until the block exits."""
        self.running += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self.running -= 1
            if not self.running:
                self._quiet.set()

    async def wait_until_idle(self) -> None:
        """Wait until no request runs."""
        await self._quiet.wait()
