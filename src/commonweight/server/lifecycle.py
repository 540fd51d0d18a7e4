"""A server's last part of life: requests that run are finished, and no others begun."""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator

from commonweight.messages.errors import UnavailableError


class Lifecycle:
    """Which requests run, and whether more are taken."""

    def __init__(self) -> None:
        self.running = 0
        """Requests that are being answered."""
        self._ends_at: float | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def is_draining(self) -> bool:
        """Whether this server is about to end."""
        return self._ends_at is not None

    def drain(self, seconds: float) -> None:
        """From now on requests for work are refused; those that run have so many seconds."""
        self._ends_at = time.monotonic() + seconds

    async def check_accepting(self) -> None:
        """A dependency of routes that begin work.

        Raises:
            UnavailableError: no more is begun.
        """
        if self._ends_at is not None:
            left = math.ceil(max(1.0, self._ends_at - time.monotonic()))
            raise UnavailableError("The server is shutting down.", retry_after=left)

    @contextlib.contextmanager
    def track_request(self) -> Iterator[None]:
        """A request that runs until the block ends."""
        self.running += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self.running -= 1
            if not self.running:
                self._quiet.set()

    async def wait_until_quiet(self) -> None:
        """Wait until no request runs."""
        await self._quiet.wait()
