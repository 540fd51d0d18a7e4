"""Client of the engine process: starts it, submits jobs, dispatches their events, restarts it after a crash."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from itertools import count

import msgspec

from commonweight.engines.contract import (
    EngineError,
    EngineEvent,
    EngineFullError,
    Finish,
    GrammarRefusedError,
    Job,
    Stats,
)
from commonweight.engines.event_stream import EventStream
from commonweight.engines.llama.config import WorkerConfig
from commonweight.engines.llama.process.protocol import (
    Cancel,
    JobRejected,
    LoadFailed,
    LoadProgress,
    Ready,
    Shutdown,
    StepEvents,
    Submit,
    encode_frame,
    read_messages,
)
from commonweight.engines.scoring import PromptScorer, check_scoring

log = logging.getLogger(__name__)

MAX_JOBS = 1024
"""Jobs running and waiting at the same time; one more gets :class:`EngineFullError`."""
MAX_RESTART_DELAY_SECONDS = 30.0
"""Seconds between attempts when the process dies again and again while loading."""
THREAD_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""Environment of the process: NumPy's products are small here, and threads of its own would only wait on the cores
of the kernels."""
CLOSED_MESSAGE = "The server is shutting down."
EXIT_TIMEOUT_SECONDS = 10.0
"""Seconds that the process may take to leave: it finishes the step it is computing."""


class LoadError(EngineError):
    """The engine process could not load the model."""


class PendingJob(EventStream):
    """Event stream of one submitted job, with its encoded submission for a restart of the process."""

    def __init__(self, submission: bytes) -> None:
        super().__init__()
        self.submission = submission
        self.is_submitted = False
        self.is_admitted = False


class LlamaEngine(PromptScorer):
    """An :class:`~commonweight.engines.contract.Engine` that runs llama.cpp in a supervised child process."""

    worker = "commonweight.engines.llama.process.worker"
    """Module that the process runs."""

    def __init__(self, config: WorkerConfig) -> None:
        self.stats = Stats(cells=config.cells)
        """The latest figures."""
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._has_loaded = False
        self._is_closed = False
        self._job_ids = count(1)
        self._jobs: dict[int, PendingJob] = {}

    @property
    def window(self) -> int:
        """Context length: maximum tokens of prompt and answer together."""
        return self._config.window

    @property
    def is_ready(self) -> bool:
        """Whether a job would start now."""
        return self._ready.is_set() and not self._is_closed

    @property
    def pid(self) -> int | None:
        """Process id of the engine process, while it runs."""
        return self._process.pid if self._process else None

    async def start(self, on_progress: Callable[[float], None] = lambda _: None) -> None:
        """Load the model; ``on_progress`` gets the fraction loaded.

        Raises:
            LoadError: the model cannot be loaded, for the reason given.
        """
        self._supervisor = asyncio.create_task(self._supervise(on_progress))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait([self._supervisor, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._supervisor.done():
            await self._supervisor

    async def aclose(self) -> None:
        """Fail all jobs and stop the process."""
        self._is_closed = True
        self._fail(CLOSED_MESSAGE, waiting_too=True)
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[PendingJob]:
        """Start a job; leaving the block cancels it. While the process is restarted, jobs wait for it."""
        if not 0 < len(job.token_ids) <= self.window - job.max_tokens:
            raise ValueError("a job needs at least one token, and must fit the window")
        check_scoring(job)
        if len(self._jobs) >= MAX_JOBS:
            raise EngineFullError(f"{MAX_JOBS} requests are running or waiting already; try again later.")
        if self._is_closed:
            raise EngineError(CLOSED_MESSAGE)
        job_id = next(self._job_ids)
        pending = self._jobs[job_id] = PendingJob(encode_frame(Submit(job_id, job)))
        try:
            self._submit_waiting()
            yield pending
        finally:
            if self._jobs.pop(job_id, None) is not None and pending.is_submitted:
                self._send(encode_frame(Cancel(job_id, pending.keep)))

    def _submit_waiting(self) -> None:
        if self.is_ready:
            for pending in self._jobs.values():
                if not pending.is_submitted:
                    pending.is_submitted = True
                    self._send(pending.submission)

    def _send(self, data: bytes) -> None:
        # Not drained: the process takes commands at once, and the supervisor notices a closed pipe.
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(data)

    async def _supervise(self, on_progress: Callable[[float], None]) -> None:
        failures = 0
        while True:
            try:
                code = await self._run_process(on_progress)
            except Exception as error:
                if not self._has_loaded:
                    raise
                failures += 1
                log.error("the engine could not be restarted", exc_info=error)
                self._fail("The engine could not be restarted; the server's log says why.", waiting_too=True)
                await asyncio.sleep(min(2.0**failures, MAX_RESTART_DELAY_SECONDS))
            else:
                failures = 0
                log.error("the engine process ended with %s; restarting it", code)
                self._fail("The engine stopped unexpectedly and is being restarted; try again.")

    async def _run_process(self, on_progress: Callable[[float], None]) -> int | None:
        """One life of the process, from its start to its unexpected end; returns its exit code.

        Raises:
            LoadError: it never got ready.
        """
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing from the folder that the server was started in
            "-m",
            self.worker,
            msgspec.json.encode(self._config).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=THREAD_ENVIRONMENT | os.environ,
        )
        assert process.stdout is not None
        try:
            async with contextlib.aclosing(read_messages(process.stdout)) as messages:
                async for message in messages:
                    match message:
                        case StepEvents(events, stats):
                            self.stats = stats or self.stats
                            self._deliver(events)
                        case JobRejected(job_id, reason, is_grammar_refused):
                            if pending := self._jobs.pop(job_id, None):
                                error = GrammarRefusedError if is_grammar_refused else EngineError
                                pending.put(error(reason))
                        case LoadProgress(fraction):
                            on_progress(fraction)
                        case Ready():
                            self._has_loaded = True
                            self._ready.set()
                            self._submit_waiting()
                        case LoadFailed(reason):
                            raise LoadError(reason)
            was_ready = self._ready.is_set()
            self._ready.clear()  # jobs from now on wait for the next process
            code = await process.wait()
            if not was_ready:
                raise LoadError(f"the engine process ended with {code} while loading")
            return code
        finally:
            patience = EXIT_TIMEOUT_SECONDS if self._ready.is_set() else 0
            self._ready.clear()
            self._process = None
            await _stop_process(process, patience)

    def _deliver(self, events: list[tuple[int, EngineEvent]]) -> None:
        for job_id, event in events:
            pending = self._jobs.get(job_id)
            if pending is None:
                continue  # cancelled while the step was computed
            pending.put(event)
            pending.is_admitted = True
            if isinstance(event, Finish):
                del self._jobs[job_id]

    def _fail(self, reason: str, *, waiting_too: bool = False) -> None:
        """Fail the admitted jobs; jobs that were still queued are submitted to the next process."""
        for job_id, pending in list(self._jobs.items()):
            if pending.is_admitted or waiting_too:
                del self._jobs[job_id]
                pending.put(EngineError(reason))
            else:
                pending.is_submitted = False


async def _stop_process(process: asyncio.subprocess.Process, patience: float) -> None:
    """Ask the process to exit, and kill it after ``patience`` seconds."""
    assert process.stdin is not None
    if process.returncode is not None:
        return
    try:
        process.stdin.write(encode_frame(Shutdown()))
        process.stdin.close()
        await asyncio.wait_for(process.wait(), patience)
    except TimeoutError:
        log.debug("the engine process did not leave in time")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
