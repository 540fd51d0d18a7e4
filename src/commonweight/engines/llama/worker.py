"""The engine process: ``python -m commonweight.engines.llama.worker OPTIONS`` with frames on stdin and stdout."""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from commonweight.engines.contract import Step
from commonweight.engines.llama.channel import (
    Cancel,
    Command,
    Events,
    LoadFailed,
    Loading,
    Options,
    Ready,
    Report,
    Shutdown,
    Submit,
    frame,
    read_command,
)
from commonweight.engines.llama.native import LoadedModel
from commonweight.engines.llama.scheduler import RunEvents, Scheduler

GATHER = 0.01
"""Seconds within which tokens travel together. The server's work for a token is taken from the cores that compute
the next one, and less of it is needed for two at once; nobody sees a hundredth of a second."""


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

    try:
        model = LoadedModel(
            Path(options.path),
            cells=options.cells,
            sequences=options.sequences,
            batch_rows=options.batch_rows,
            threads=options.threads,
            on_progress=on_progress,
        )
    except (OSError, MemoryError) as error:
        send(LoadFailed(str(error)))
        return
    scheduler = Scheduler(model, sequences=options.sequences, batch_rows=options.batch_rows)
    send(Ready())
    commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
    # Asleep in read() but for arrivals: it costs the steps nothing, and an idle process waits without spinning.
    threading.Thread(target=_receive, args=(commands,), daemon=True).start()
    gathered: RunEvents = []
    sent = 0.0
    while _obey(commands, scheduler):
        # Told before the batch: clients see that their turn has begun, and a crash shows whose work it was.
        for advance in (scheduler.admit, scheduler.step):
            gathered += advance()
            is_due = time.monotonic() - sent >= GATHER or any(not isinstance(event, Step) for _, event in gathered)
            if gathered and is_due:
                send(Events(gathered))
                gathered, sent = [], time.monotonic()
    model.close()


def _receive(commands: queue.SimpleQueue[Command | None]) -> None:
    # Unbuffered: a buffer's lock, held by this thread, would abort an interpreter that ends with an error.
    with os.fdopen(0, "rb", buffering=0, closefd=False) as stream:
        while (command := read_command(stream)) is not None:
            commands.put(command)
    commands.put(None)


def _obey(commands: queue.SimpleQueue[Command | None], scheduler: Scheduler) -> bool:
    """Carry out what has arrived, waiting while there is nothing to compute; False when it is time to leave."""
    while True:
        try:
            command = commands.get(block=not scheduler.has_work)
        except queue.Empty:
            return True
        match command:
            case Submit():
                scheduler.submit(command.run_id, command.job)
            case Cancel():
                scheduler.cancel(command.run_id)
            case Shutdown() | None:
                return False


if __name__ == "__main__":
    main()
