"""Draining at shutdown: running requests finish within a limit, or end with an error of the API."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator
from socket import socket

import uvicorn

from commonweight.server import Lifecycle

ABORT_TIMEOUT_SECONDS = 20
"""Seconds after which requests are dropped that not even a closed engine could end."""

Hook = Callable[[], Awaitable[None]]


class GracefulServer(uvicorn.Server):
    """Uvicorn server that drains before it exits.

    At a first signal ``/ready`` says no, requests for work are refused with 503 and ``retry-after``,
    ``on_draining`` is called if requests run, ``stop_background`` is called, and running requests have
    ``drain_seconds``. After those, or at a second signal, ``abort_requests`` is to end what still runs.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        *,
        drain_seconds: float,
        on_started: Callable[[], None],
        on_draining: Callable[[float], None],
        stop_background: Hook,
        abort_requests: Hook,
    ) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = ABORT_TIMEOUT_SECONDS
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds
        self._on_started = on_started
        self._on_draining = on_draining
        self._stop_background = stop_background
        self._abort_requests = abort_requests
        self._draining: asyncio.Task[None] | None = None
        self._should_abort = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals, without raising them again in the end as uvicorn does: the engine is still open then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        yield

    def _on_signal(self) -> None:
        if self._draining is not None:
            self._should_abort.set()
            return
        if self._lifecycle.running:
            self._on_draining(self._drain_seconds)
        self._lifecycle.start_draining(self._drain_seconds)
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        ends = asyncio.create_task(self._wait_until_finished()), asyncio.create_task(self._should_abort.wait())
        await asyncio.wait(ends, timeout=self._drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        self.should_exit = True

    async def _wait_until_finished(self) -> None:
        await self._stop_background()
        await self._lifecycle.wait_until_idle()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Tell the address once it is served, and signals are obeyed."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Close connections as their last answer ends, which it does now."""
        aborting = asyncio.ensure_future(self._abort_requests())
        try:
            await super().shutdown(sockets)
        finally:
            # Not cancelled: a close that is cut in half would leave the engine process behind.
            await aborting
