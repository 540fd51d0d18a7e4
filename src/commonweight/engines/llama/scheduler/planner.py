"""What the next batch computes: rows of streams, how they go on by guess or by grammar, chunks of prompts.

A chunk is as long as fits a time that keeps the streams' cadence. A stream's row in a tile of attention among rows
of a prompt was seen to make a step up to three times as long: so streams and all but small chunks take turns, and
chunks fill their tiles.
"""

from collections.abc import Callable
from typing import NamedTuple

from commonweight.engines.llama.cells import Cells
from commonweight.engines.llama.lookup import Drafter, Lookup
from commonweight.engines.llama.native import MOST_GUESSES, Batch
from commonweight.engines.llama.pace import Pace
from commonweight.engines.llama.recall import Recall
from commonweight.engines.llama.run import Run
from commonweight.engines.llama.tiles import TILE, Attention

CADENCE = 0.25
"""Seconds that a step may take while others stream: prompts are read in chunks that fit."""
LENIENCE = 1.25
"""How many times as long a chunk may be if it ends a prompt."""
LONGEST_STEP = 1.0
"""Seconds that a step may take at all: arrivals and cancellations wait for its end."""
Rank = tuple[bool, int, float]
"""Whose turn it is: the smallest's."""


class Part(NamedTuple):
    """A run's share of a batch."""

    run: Run
    rows: int
    last_row: int
    padding: int = 0
    """Rows behind them that only fill a tile. Their cells are to be freed."""


class Planner:
    """Fills a batch, again and again.

    ``drafts`` is how many tokens may be guessed for a stream. With ``attention``, tiles that are nearly full are
    filled; its model must be able to take tokens back.
    """

    def __init__(
        self, batch: Batch, cells: Cells, recall: Recall, drafts: int, attention: Attention | None
    ) -> None:
        self._batch = batch
        self._cells = cells
        self._recall = recall
        self._drafts = drafts
        self._attention = attention
        self._is_reading = False

    def fill(self, running: list[Run], rank: Callable[[Run], Rank], pace: Pace) -> list[Part]:
        """Plan a step of so many of the running jobs as there is room and time for."""
        self._batch.clear()
        streams = [run for run in running if run.is_streaming]
        reading = [run for run in running if not run.is_streaming and not run.leaders]
        reading.sort(key=rank)
        chunk = self._chunk(reading, len(streams), pace)
        if streams and (chunk + len(streams) >= TILE or self._fills(chunk, reading)):
            self._is_reading = not self._is_reading
            streams, chunk = ([], chunk) if self._is_reading else (streams, 0)
        self._propose(streams, chunk, pace)
        parts = [self._add(run, [run.tokens[-1], *run.draft], outputs=_outputs(run)) for run in streams]
        for run in reading:
            if chunk > 0:
                end = min(run.computed + chunk, self._recall.next_stop(run, running))
                outputs = int(end == len(run.tokens) and run.job.max_tokens > 0)
                parts.append(self._add(run, run.tokens[run.computed : end], outputs=outputs))
                chunk -= parts[-1].rows
        if not streams and len(parts) == 1:
            parts = [self._padded(parts[0])]
        return parts

    def _padded(self, part: Part) -> Part:
        run, rows, *_ = part
        missing = TILE - rows
        if not (self._fills(rows, [run]) and rows + missing <= min(self._batch.capacity, self._cells.free)):
            return part
        end = run.computed + rows
        self._batch.add(run.sequence, end, [run.tokens[end - 1]] * missing, outputs=0)
        return part._replace(padding=missing)

    def _fills(self, rows: int, reading: list[Run]) -> bool:
        """Whether a tile is better filled than left with so many rows of the first prompt."""
        return bool(self._attention and reading and self._attention.fills(rows, reading[0].computed))

    def _chunk(self, reading: list[Run], streams: int, pace: Pace) -> int:
        """How many rows of prompts the batch has."""
        unread = [len(run.tokens) - run.computed for run in reading]
        room = min(sum(unread), self._batch.capacity, self._cells.free - streams)
        if room <= 0:
            return 0
        chunk = pace.rows_within(CADENCE if streams else LONGEST_STEP, streams, room)
        # A prompt's last few rows come along: they would cost a step of their own.
        if chunk <= unread[0] <= min(chunk * LENIENCE, room):
            return unread[0]
        if self._fills(chunk, reading):
            return min(TILE, room)
        return chunk if chunk == room or chunk < TILE else chunk - chunk % TILE

    def _propose(self, streams: list[Run], chunk: int, pace: Pace) -> None:
        """Say how streams go on: what their grammars leave no choice about, or guesses, as far as they pay beside
        a chunk of prompts."""
        rows = len(streams) + chunk
        progress = float(rows)
        guesses = min(MOST_GUESSES, self._batch.capacity - rows, self._cells.free - rows)
        for run in streams:
            run.draft = []
            if self._drafts and run.drafter is None:
                run.drafter = Drafter(Lookup(run.tokens))
            most = max(0, min(run.remaining - 1, guesses))
            gain = 0.0
            if run.forced:
                run.draft = run.forced[:most]
                gain = len(run.draft)
            elif run.drafter:
                run.draft, gain = run.drafter.propose(rows, progress, pace, min(self._drafts, most))
                if run.guide:
                    run.draft = run.guide.checked(run.draft)
                    gain = min(gain, len(run.draft))
            rows += len(run.draft)
            guesses -= len(run.draft)
            progress += gain

    def _add(self, run: Run, tokens: list[int], outputs: int) -> Part:
        last_row = self._batch.add(run.sequence, run.computed, tokens, outputs=outputs)
        return Part(run, len(tokens), last_row)


def _outputs(run: Run) -> int:
    """Rows of a stream that something is drawn from, counted from the end."""
    return 1 if run.forced and not run.job.want_logprobs else 1 + len(run.draft)
