"""The server's side of the embedded engine: starts the process, hands jobs over, restarts it when it dies."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from itertools import count

import msgspec

from commonweight.engines.contract import EngineError, EngineEvent, EngineFullError, Finish, Job
from commonweight.engines.llama.channel import (
    Cancel,
    Command,
    Events,
    LoadFailed,
    Loading,
    Options,
    Ready,
    Shutdown,
    Submit,
    frame,
    read_report,
)

log = logging.getLogger(__name__)

MAX_JOBS = 1024
"""Jobs running and waiting at the same time; one more is told that the engine is full."""
SLOWEST_RESTART = 30.0
"""Seconds between attempts when the process dies again and again while loading."""
SHORT_SPINS = {"GOMP_SPINCOUNT": "20000"}
"""Kernel threads that meet at a barrier sleep sooner than libgomp lets them. On a quiet machine it makes no
difference; beside other busy processes the long default was seen to slow decoding to a hundredth."""
PATIENCE_AT_EXIT = 10.0
"""Seconds that the process may take to leave: it finishes the step it is computing."""


class LoadError(EngineError):
    """The process could not load the model."""


class Run:
    """A job of ours and the events that wait to be read."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.submitted = False
        self.inbox: asyncio.Queue[EngineEvent | EngineError] = asyncio.Queue()

    async def events(self) -> AsyncIterator[EngineEvent]:
        """What the engine tells of this job, up to its end."""
        while True:
            event = await self.inbox.get()
            if isinstance(event, EngineError):
                raise event
            yield event
            if isinstance(event, Finish):
                return


class LlamaEngine:
    """An :class:`~commonweight.engines.contract.Engine` in a process of its own."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._run_ids = count(1)
        self._runs: dict[int, Run] = {}

    @property
    def window(self) -> int:
        """Most tokens that a prompt and its answer may have together."""
        return self._options.window

    @property
    def is_ready(self) -> bool:
        """Whether a job would start now."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The engine process, while there is one."""
        return self._process.pid if self._process else None

    async def start(self, on_progress: Callable[[float], None] = lambda _: None) -> None:
        """Load the model; ``on_progress`` gets the fraction loaded.

        Raises:
            LoadError: it cannot be loaded, for the reason given.
        """
        self._keeper = asyncio.create_task(self._keep_alive(on_progress))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait([self._keeper, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._keeper.done():
            await self._keeper

    async def close(self) -> None:
        """Fail what runs, and end the process."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError, LoadError):
                await self._keeper
            self._keeper = None
            self._fail(EngineError("The server is shutting down."), waiting_too=True)

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        """Start a job; leaving the block cancels it. While the process is restarted, jobs wait for it."""
        if not 0 < len(job.token_ids) <= self.window - job.max_tokens:
            raise ValueError("a job needs at least one token, and must fit the window")
        if len(self._runs) >= MAX_JOBS:
            raise EngineFullError(f"{MAX_JOBS} requests are running or waiting already; try again later.")
        run_id, run = next(self._run_ids), Run(job)
        self._runs[run_id] = run
        self._submit_waiting()
        try:
            yield run.events()
        finally:
            if self._runs.pop(run_id, None) is not None and run.submitted:
                self._send(Cancel(run_id))

    def _submit_waiting(self) -> None:
        if self.is_ready:
            for run_id, run in self._runs.items():
                if not run.submitted:
                    run.submitted = True
                    self._send(Submit(run_id, run.job))

    def _send(self, command: Command) -> None:
        # Not drained: the process takes commands at once, and a closed pipe is the keeper's to notice.
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(frame(command))

    async def _keep_alive(self, on_progress: Callable[[float], None]) -> None:
        was_ready = False
        failures = 0
        while True:
            try:
                code = await self._live(on_progress)
            except LoadError as error:
                if not was_ready:
                    raise
                failures += 1
                log.error("the engine could not be restarted: %s", error)
                self._fail(error, waiting_too=True)
                await asyncio.sleep(min(2.0**failures, SLOWEST_RESTART))
            else:
                was_ready, failures = True, 0
                log.error("the engine process ended with %s; restarting it", code)
                self._fail(EngineError("The engine stopped unexpectedly and is being restarted; try again."))

    async def _live(self, on_progress: Callable[[float], None]) -> int | None:
        """One life of the process, from its start to its unexpected end; returns its exit code."""
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing from the folder that the server was started in
            "-m",
            "commonweight.engines.llama.worker",
            msgspec.json.encode(self._options).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=SHORT_SPINS | os.environ,
        )
        assert process.stdout is not None
        was_ready = False
        try:
            while True:
                match await read_report(process.stdout):
                    case Events(events):
                        self._deliver(events)
                    case Loading(fraction):
                        on_progress(fraction)
                    case Ready():
                        was_ready = True
                        self._ready.set()
                        self._submit_waiting()
                    case LoadFailed(reason):
                        raise LoadError(reason)
        except asyncio.IncompleteReadError:
            code = await process.wait()
            if not was_ready:
                raise LoadError(f"the engine process ended with {code} while loading") from None
            return code
        finally:
            self._ready.clear()
            await _end(process)
            self._process = None

    def _deliver(self, events: list[tuple[int, EngineEvent]]) -> None:
        for run_id, event in events:
            run = self._runs.get(run_id)
            if run is None:
                continue  # cancelled while the step was computed
            run.inbox.put_nowait(event)
            if isinstance(event, Finish):
                del self._runs[run_id]

    def _fail(self, error: EngineError, *, waiting_too: bool = False) -> None:
        for run_id, run in list(self._runs.items()):
            if run.submitted or waiting_too:
                del self._runs[run_id]
                run.inbox.put_nowait(error)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask the process to leave, and make it if it does not."""
    assert process.stdin is not None
    if process.returncode is None:
        process.stdin.write(frame(Shutdown()))
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE_AT_EXIT)
        except TimeoutError:
            process.kill()
            await process.wait()
