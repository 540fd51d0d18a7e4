"""How ``serve`` ends: what runs is finished within a stated time, or ends with an error that clients know."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator
from socket import socket

import uvicorn
from rich.console import Console

from commonweight.server import Lifecycle

LAST_RESORT = 20
"""Seconds after which requests are dropped that not even a closed engine could end."""

Hook = Callable[[], Awaitable[None]]


class GracefulServer(uvicorn.Server):
    """Uvicorn that goes on answering while it drains, and then tells who still waits.

    At a first signal ``/ready`` says no, requests for work are refused with 503 and ``retry-after``, ``leave_off``
    is called, and what runs has ``patience`` seconds. After those, or at a second signal, ``hang_up`` is called,
    which is to end what still runs.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        *,
        patience: float,
        console: Console,
        on_started: Callable[[], None],
        leave_off: Hook,
        hang_up: Hook,
    ) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = LAST_RESORT
        self._lifecycle = lifecycle
        self._patience = patience
        self._console = console
        self._on_started = on_started
        self._leave_off = leave_off
        self._hang_up = hang_up
        self._draining: asyncio.Task[None] | None = None
        self._in_a_hurry = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Obey signals, without raising them again in the end as uvicorn does: the engine is still open then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        yield

    def _on_signal(self) -> None:
        if self._draining is not None:
            self._in_a_hurry.set()
            return
        if self._lifecycle.running:
            self._console.print(
                f"\nStopping. Running requests get {self._patience:g} seconds; Ctrl-C again ends them now."
            )
        self._lifecycle.drain(self._patience)
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        ends = asyncio.create_task(self._finished()), asyncio.create_task(self._in_a_hurry.wait())
        await asyncio.wait(ends, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        self.should_exit = True

    async def _finished(self) -> None:
        await self._leave_off()
        await self._lifecycle.wait_until_quiet()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Tell the address once it is served, and signals are obeyed."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Close connections as their last answer ends, which it does now."""
        hanging_up = asyncio.ensure_future(self._hang_up())
        try:
            await super().shutdown(sockets)
        finally:
            # Not cancelled: a close that is cut in half would leave the engine process behind.
            await hanging_up
