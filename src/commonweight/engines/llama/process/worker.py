"""The engine process: ``python -m commonweight.engines.llama.worker OPTIONS`` with frames on stdin and stdout."""

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

import llama_cpp
import msgspec

from commonweight.catalog.checksum import sha256_of
from commonweight.engines.contract import Step
from commonweight.engines.llama.channel import (
    Cancel,
    Command,
    Events,
    LoadFailed,
    Loading,
    Options,
    Ready,
    Refused,
    Report,
    Shutdown,
    Submit,
    frame,
    read_command,
)
from commonweight.engines.llama.disk import Disk
from commonweight.engines.llama.files import fingerprint
from commonweight.engines.llama.native import MOST_GUESSES, LoadedModel
from commonweight.engines.llama.prefixes import Prefixes
from commonweight.engines.llama.scheduler import RunEvents, Scheduler
from commonweight.engines.llama.state import States

GATHER = 0.05
"""Seconds within which tokens travel together. The server's work for a token is taken from the cores that compute
the next one, and less of it is needed for several at once; nobody reads faster than twenty times a second."""


class Wake:
    """The disk has news."""


Commands = queue.SimpleQueue[Command | Wake | None]
"""None: the server is gone."""


def main() -> None:
    """Serve jobs until told to leave or until the server is gone."""
    # Ctrl-C, and a service manager's stop, reach every process of the group; this one leaves when the server
    # says so, or is gone.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    options = msgspec.json.decode(sys.argv[1], type=Options)
    # Native code prints to descriptor 1 when it likes; frames get a descriptor of their own.
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):  # the server is gone, and so is the reason to stay
        _serve(options, reports)


def _serve(options: Options, reports: BinaryIO) -> None:
    def send(report: Report) -> None:
        reports.write(frame(report))
        reports.flush()

    told = 0.0

    def on_progress(fraction: float) -> None:
        nonlocal told
        if time.monotonic() - told > 0.05 or fraction == 1:
            told = time.monotonic()
            send(Loading(fraction))

    commands: Commands = queue.SimpleQueue()
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256_of, Path(options.path)) if options.disk_folder else None
        try:
            model = LoadedModel(
                Path(options.path),
                cells=options.cells,
                sequences=options.sequences,
                batch_rows=options.batch_rows,
                outputs=options.sequences + MOST_GUESSES,
                threads=options.threads,
                kv_type=options.kv_type,
                on_progress=on_progress,
            )
        except (OSError, MemoryError) as error:
            send(LoadFailed(str(error)))
            return
    states = States(model.context, model.handle, model.scratch)
    disk = None
    if digest is not None and options.disk_folder is not None:
        facts = {"model": digest.result(), "kv": options.kv_type, "llama.cpp": llama_cpp.__version__}
        disk = Disk(
            Path(options.disk_folder),
            fingerprint(**facts),
            capacity=options.disk_bytes,
            wake=lambda: commands.put(Wake()),
        )
    prefixes = Prefixes(capacity=options.ram_bytes, needs_snapshots=states.reuse == "snapshots", disk=disk)
    scheduler = Scheduler(
        model,
        states,
        prefixes,
        sequences=1 if model.confuses_sequences else options.sequences,
        batch_rows=options.batch_rows,
        drafts=options.drafts,
    )
    _ = scheduler.grammars.tokenizer  # made now, not while others wait for their tokens
    send(Events([], scheduler.stats))
    send(Ready())
    # Asleep in read() but for arrivals: it costs the steps nothing, and an idle process waits without spinning.
    threading.Thread(target=_receive, args=(commands,), daemon=True).start()
    gathered: RunEvents = []
    sent = 0.0
    while _obey(commands, scheduler, send):
        # Told before the batch: clients see that their turn has begun, and a crash shows whose work it was.
        for advance in (scheduler.admit, scheduler.step):
            gathered += advance()
            is_due = time.monotonic() - sent >= GATHER or any(not isinstance(event, Step) for _, event in gathered)
            if gathered and (is_due or scheduler.failed):
                send(Events(gathered, scheduler.stats))
                gathered, sent = [], time.monotonic()
            while scheduler.failed:
                send(Refused(*scheduler.failed.pop()))
    prefixes.close()
    model.close()


def _receive(commands: Commands) -> None:
    # Unbuffered: a buffer's lock, held by this thread, would abort an interpreter that ends with an error.
    with os.fdopen(0, "rb", buffering=0, closefd=False) as stream:
        while (command := read_command(stream)) is not None:
            commands.put(command)
    commands.put(None)


def _obey(commands: Commands, scheduler: Scheduler, send: Callable[[Report], None]) -> bool:
    """Carry out what has arrived, waiting while there is nothing to compute; False when it is time to leave."""
    while True:
        if commands.empty():
            has_work = scheduler.has_work
            scheduler.rest(is_idle=not has_work)
            if has_work:
                return True
            send(Events([], scheduler.stats))
        match commands.get():
            case Submit(run_id, job):
                try:
                    scheduler.submit(run_id, job)
                except ValueError as error:
                    send(Refused(run_id, str(error)))
            case Cancel(run_id, keep):
                scheduler.cancel(run_id, keep)
            case Wake():
                return True
            case Shutdown() | None:
                return False


if __name__ == "__main__":
    main()
