"""An engine process that computes nothing: ``python -m benchmarks.load.player OPTIONS``, with the usual frames.

Each job's answer is what its prompt says last: the longest run of ordinary tokens, word for word. So whoever asks
knows the whole answer beforehand, and no two answers are the same. Whose turn it is, the real engine's fairness
decides.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import msgspec

from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import Admitted, EngineEvent, Finish, Job, Prefilled, Stats, Step, Timings
from commonweight.engines.llama.config import WorkerConfig
from commonweight.engines.llama.process.protocol import (
    Cancel,
    EngineCommand,
    Ready,
    Shutdown,
    StepEvents,
    Submit,
    WorkerMessage,
    encode_frame,
    read_command,
)
from commonweight.engines.llama.scheduler.fairness import VirtualTokenCounters
from commonweight.prompting import Tokenizer

PACE = 0.15
"""Seconds between two tokens of a stream."""


class Playing:
    """A job, and what is left to say."""

    def __init__(self, run_id: int, job: Job, answer: list[int]) -> None:
        self.run_id = run_id
        self.job = job
        self.arrived = self.admitted = time.perf_counter()
        self._answer = iter([*answer, *job.stop_ids[:1]][: job.max_tokens])
        self._is_short = job.max_tokens <= len(answer)

    def next(self) -> list[EngineEvent]:
        """A token, or the end."""
        for token in self._answer:
            return [Step(token)]
        decode = time.perf_counter() - self.admitted
        timings = Timings(queued=self.admitted - self.arrived, prefill=0, decode=decode)
        return [Finish("length" if self._is_short else "stop", timings)]


class Player:
    """Plays as many jobs at once as there are places."""

    def __init__(self, special: frozenset[int], places: int) -> None:
        self.stats = Stats(cells=places)
        self._special = special
        self._places = places
        self._fairness = VirtualTokenCounters()
        self._waiting: list[Playing] = []
        self._running: list[Playing] = []

    def submit(self, run_id: int, job: Job) -> None:
        """Queue a job."""
        runs = (list(run) for is_said, run in groupby(job.token_ids, self._is_said) if is_said)
        self._fairness.add_job(job.tenant)
        self._waiting.append(Playing(run_id, job, max(runs, key=len, default=[])))

    def cancel(self, run_id: int) -> None:
        """Drop a job, unless it is over."""
        for jobs in (self._waiting, self._running):
            for playing in jobs:
                if playing.run_id == run_id:
                    jobs.remove(playing)
                    self._fairness.finish_job(playing.job.tenant)
                    return

    def step(self) -> list[tuple[int, EngineEvent]]:
        """Let in who is next, and say a token of each answer."""
        events: list[tuple[int, EngineEvent]] = []
        while self._waiting and len(self._running) < self._places:
            playing = min(self._waiting, key=self._rank)
            self._waiting.remove(playing)
            self._running.append(playing)
            self._fairness.charge(playing.job.tenant, len(playing.job.token_ids))
            playing.admitted = time.perf_counter()
            events += [(playing.run_id, Admitted(0)), (playing.run_id, Prefilled())]
        for playing in list(self._running):
            said = playing.next()
            self._fairness.charge(playing.job.tenant, len(said))
            events += [(playing.run_id, event) for event in said]
            if isinstance(said[-1], Finish):
                self.cancel(playing.run_id)
        self.stats.running = self.stats.cells_used = len(self._running)
        self.stats.waiting = len(self._waiting)
        return events

    def _rank(self, playing: Playing) -> tuple[bool, int, float]:
        job = playing.job
        return job.priority == "batch", self._fairness.get_counter(job.tenant), playing.arrived

    def _is_said(self, token: int) -> bool:
        return token not in self._special


Commands = queue.SimpleQueue[EngineCommand | None]


def main() -> None:
    """Play until told to leave, or until the server is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    config = msgspec.json.decode(sys.argv[1], type=WorkerConfig)
    with contextlib.closing(Gguf(Path(config.path))) as gguf:
        special = frozenset(Tokenizer(gguf).special_tokens.values())
    with contextlib.suppress(BrokenPipeError):
        _play(Player(special, config.sequences), os.fdopen(1, "wb"))


def _play(player: Player, reports: BinaryIO) -> None:
    def send(report: WorkerMessage) -> None:
        reports.write(encode_frame(report))
        reports.flush()

    commands: Commands = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(commands,), daemon=True).start()
    send(Ready())
    due = time.monotonic()
    while True:
        for command in _until(due, commands):
            match command:
                case Submit(run_id, job):
                    player.submit(run_id, job)
                case Cancel(run_id):
                    player.cancel(run_id)
                case Shutdown() | None:
                    return
        due = max(due + PACE, time.monotonic())
        send(StepEvents(player.step(), player.stats))


def _receive(commands: Commands) -> None:
    with os.fdopen(0, "rb", buffering=0, closefd=False) as stream:
        while (command := read_command(stream)) is not None:
            commands.put(command)
    commands.put(None)


def _until(due: float, commands: Commands) -> Iterable[EngineCommand | None]:
    """What arrives until then."""
    while (left := due - time.monotonic()) > 0 or not commands.empty():
        with contextlib.suppress(queue.Empty):
            yield commands.get(timeout=max(0.0, left))


if __name__ == "__main__":
    main()
