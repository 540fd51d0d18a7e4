"""Main loop of the engine process: ``python -m commonweight.engines.llama.process.worker SETTINGS``.

Reads commands from stdin, drives the scheduler and writes messages to stdout, as frames of ``protocol``.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import msgspec

from commonweight.catalog.checksum import compute_sha256
from commonweight.engines.contract import Step
from commonweight.engines.grammars import GrammarCompileError
from commonweight.engines.llama.config import WorkerConfig
from commonweight.engines.llama.kv.block_files import compute_fingerprint
from commonweight.engines.llama.kv.disk_tier import DiskTier
from commonweight.engines.llama.kv.prefix_cache import PrefixCache
from commonweight.engines.llama.kv.sequence_state import SequenceState
from commonweight.engines.llama.model.native import EXTRA_OUTPUTS, LoadedModel
from commonweight.engines.llama.process.protocol import (
    Cancel,
    EngineCommand,
    JobRejected,
    LoadFailed,
    LoadProgress,
    Ready,
    Shutdown,
    StepEvents,
    Submit,
    WorkerMessage,
    encode_frame,
    read_command,
)
from commonweight.engines.llama.scheduler.scheduler import JobEvents, Scheduler
from commonweight.llamacpp import api as llama

STREAM_COALESCE_SECONDS = 0.05
"""Seconds within which tokens share a frame. The server's work for a token is taken from the cores that compute
the next one, and less of it is needed for several at once; twenty times a second is faster than reading."""


class DiskWake:
    """Internal command: the disk tier has finished a read or a write."""


Commands = queue.SimpleQueue[EngineCommand | DiskWake | None]
"""Queue of the main loop; None: the server has exited."""


def main() -> None:
    """Serve jobs until a shutdown command or the end of input."""
    # Ctrl-C, and a service manager's stop, reach every process of the group; this one exits on a shutdown
    # command, or when the server has exited.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    config = msgspec.json.decode(sys.argv[1], type=WorkerConfig)
    # Native code prints to descriptor 1 when it likes; frames get a descriptor of their own.
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):  # the server has exited
        _serve(config, messages)


def _serve(config: WorkerConfig, messages: BinaryIO) -> None:
    def send(message: WorkerMessage) -> None:
        messages.write(encode_frame(message))
        messages.flush()

    last_progress = 0.0

    def on_progress(fraction: float) -> None:
        nonlocal last_progress
        if time.monotonic() - last_progress > 0.05 or fraction == 1:
            last_progress = time.monotonic()
            send(LoadProgress(fraction))

    commands: Commands = queue.SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(compute_sha256, Path(config.path)) if config.disk_folder else None
        try:
            model = LoadedModel(
                Path(config.path),
                cells=config.cells,
                sequences=config.sequences,
                batch_rows=config.batch_rows,
                outputs=config.sequences + EXTRA_OUTPUTS,
                threads=config.threads,
                settings=config.settings,
                on_progress=on_progress,
            )
        except (OSError, MemoryError) as error:
            send(LoadFailed(str(error)))
            return
    seq_state = SequenceState(model.context, model.handle, model.scratch)
    disk = None
    if digest is not None and config.disk_folder is not None:
        facts = {"model": digest.result(), "kv": config.settings.kv_type, "llama.cpp": llama.library.identity}
        disk = DiskTier(
            Path(config.disk_folder),
            compute_fingerprint(**facts),
            capacity=config.disk_bytes,
            wake=lambda: commands.put(DiskWake()),
        )
    prefix_cache = PrefixCache(
        capacity=config.ram_bytes, needs_snapshots=seq_state.reuse == "snapshots", disk=disk
    )
    scheduler = Scheduler(
        model,
        seq_state,
        prefix_cache,
        sequences=1 if model.confuses_sequences else config.sequences,
        reserved=0 if model.confuses_sequences else config.reserved,
        batch_rows=config.batch_rows,
        drafts=config.drafts,
    )
    _ = scheduler.grammars.tokenizer  # made now, not while others wait for their tokens
    send(StepEvents([], scheduler.stats))
    send(Ready())
    # Asleep in read() but for arrivals: it costs the steps nothing, and an idle process waits without spinning.
    threading.Thread(target=_receive, args=(commands,), daemon=True).start()
    pending: JobEvents = []
    sent = 0.0
    while _handle_commands(commands, scheduler, send):
        # Admissions are sent before the batch: clients see that prefill has begun, and after a crash the server
        # knows which jobs were running.
        for advance in (scheduler.admit, scheduler.step):
            pending += advance()
            is_due = time.monotonic() - sent >= STREAM_COALESCE_SECONDS or any(
                not isinstance(event, Step) for _, event in pending
            )
            if pending and (is_due or scheduler.failed):
                send(StepEvents(pending, scheduler.stats))
                pending, sent = [], time.monotonic()
            while scheduler.failed:
                send(JobRejected(*scheduler.failed.pop()))
    prefix_cache.close()
    model.close()


def _receive(commands: Commands) -> None:
    # Unbuffered: a buffer's lock, held by this thread, would abort an interpreter that ends with an error.
    with os.fdopen(0, "rb", buffering=0, closefd=False) as stream:
        while (command := read_command(stream)) is not None:
            commands.put(command)
    commands.put(None)


def _handle_commands(commands: Commands, scheduler: Scheduler, send: Callable[[WorkerMessage], None]) -> bool:
    """Carry out queued commands, waiting while no job can proceed; False on shutdown."""
    while True:
        if commands.empty():
            has_work = scheduler.has_work
            scheduler.set_idle(is_idle=not has_work)
            if has_work:
                return True
            send(StepEvents([], scheduler.stats))
        match commands.get():
            case Submit(job_id, job):
                try:
                    scheduler.submit(job_id, job)
                except ValueError as error:
                    send(JobRejected(job_id, str(error), isinstance(error, GrammarCompileError)))
            case Cancel(job_id, keep):
                scheduler.cancel(job_id, keep)
            case DiskWake():
                return True
            case Shutdown() | None:
                return False


if __name__ == "__main__":
    main()
