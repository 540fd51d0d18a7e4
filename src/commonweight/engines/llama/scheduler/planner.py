"""Batch planner: decode rows, draft rows and prefill chunks of the next batch.

Chunked prefill: a chunk is as long as fits a step time that keeps the streams' cadence. A stream's row in a tile
of attention among rows of a prompt was seen to make a step up to three times as long: so streams and all but
small chunks take turns, and chunks fill their tiles.
"""

from collections.abc import Callable
from typing import NamedTuple

from commonweight.engines.llama.kv.cells import Cells
from commonweight.engines.llama.model.attention_cost import TILE_ROWS, AttentionCost
from commonweight.engines.llama.model.native import EXTRA_OUTPUTS, MAX_DRAFT_ROWS, LlamaBatch
from commonweight.engines.llama.scheduler.lookup import Drafter, Lookup
from commonweight.engines.llama.scheduler.prefix_reuse import PrefixReuse
from commonweight.engines.llama.scheduler.sequence import Sequence
from commonweight.engines.llama.scheduler.step_cost import StepCostModel

STREAMING_STEP_SECONDS = 0.25
"""Step time while others stream, in seconds: prefill chunks are sized to fit."""
LAST_CHUNK_FACTOR = 1.25
"""Factor by which a chunk may be longer if it ends a prompt."""
MAX_STEP_SECONDS = 1.5
"""Step time otherwise, in seconds: arrivals and cancellations wait for its end."""
Rank = tuple[int, int, float]
"""Scheduling order of a sequence; smaller comes first."""


class BatchPart(NamedTuple):
    """Consecutive rows of one sequence in a batch."""

    seq: Sequence
    rows: int
    last_row: int
    padding: int = 0
    """Rows behind them that only fill an attention tile. Their cells are freed after the step."""
    scored: int = 0
    """Rows at the end whose logits score the prompt tokens behind them."""


class BatchPlanner:
    """Composes each step's batch from the running sequences.

    ``drafts`` is the maximum of draft tokens a stream. With ``attention``, tiles that are nearly full are filled;
    the model must be able to take tokens back.
    """

    def __init__(
        self, batch: LlamaBatch, cells: Cells, reuse: PrefixReuse, drafts: int, attention: AttentionCost | None
    ) -> None:
        self._batch = batch
        self._cells = cells
        self._reuse = reuse
        self._drafts = drafts
        self._attention = attention
        self._is_reading = False

    def plan_batch(
        self, running: list[Sequence], rank: Callable[[Sequence], Rank], step_cost: StepCostModel
    ) -> list[BatchPart]:
        """Compose a batch of as many running sequences as room and step time allow."""
        self._batch.clear()
        streams = [seq for seq in running if seq.is_streaming]
        reading = [seq for seq in running if not seq.is_streaming and not seq.leaders]
        reading.sort(key=rank)
        unread = _count_unread(reading)
        chunk = self._count_prompt_rows(reading, unread, len(streams), step_cost)
        if streams and (chunk + len(streams) >= TILE_ROWS or self._should_fill_tile(chunk, reading)):
            self._is_reading = not self._is_reading
            streams, chunk = ([], chunk) if self._is_reading else (streams, 0)
        scored = min(chunk, EXTRA_OUTPUTS) if any(seq.job.scoring for seq in reading) else 0
        self._plan_drafts(streams, chunk, scored, step_cost)
        parts = [self._add(seq, [seq.tokens[-1], *seq.draft], outputs=_count_outputs(seq)) for seq in streams]
        for seq, rows in zip(reading, unread, strict=True):
            if chunk > 0 and rows > 0:
                end = min(seq.computed + min(chunk, rows), self._reuse.next_chunk_end(seq, running))
                scored = seq.count_scored(end)
                outputs = scored or int(end == len(seq.tokens) and seq.job.max_tokens > 0)
                part = self._add(seq, seq.tokens[seq.computed : end], outputs=outputs)
                parts.append(part._replace(scored=scored))
                chunk -= part.rows
        if not streams and len(parts) == 1:
            parts = [self._pad_to_tile(parts[0])]
        return parts

    def _pad_to_tile(self, part: BatchPart) -> BatchPart:
        seq, rows, *_ = part
        missing = TILE_ROWS - rows
        if not (
            self._should_fill_tile(rows, [seq]) and rows + missing <= min(self._batch.capacity, self._cells.free)
        ):
            return part
        end = seq.computed + rows
        self._batch.add(seq.seq_id, end, [seq.tokens[end - 1]] * missing, outputs=0)
        return part._replace(padding=missing)

    def _should_fill_tile(self, rows: int, reading: list[Sequence]) -> bool:
        """Whether a full tile is faster than ``rows`` rows of the first prompt."""
        return bool(self._attention and reading and self._attention.should_fill_tile(rows, reading[0].computed))

    def _count_prompt_rows(
        self, reading: list[Sequence], unread: list[int], streams: int, step_cost: StepCostModel
    ) -> int:
        """Prefill rows of the batch."""
        room = min(sum(unread), self._batch.capacity, self._cells.free - streams)
        if room <= 0:
            return 0
        chunk = step_cost.max_prompt_rows(STREAMING_STEP_SECONDS if streams else MAX_STEP_SECONDS, streams, room)
        # A prompt's last few rows join the chunk: they would cost a step of their own.
        if chunk <= unread[0] <= min(chunk * LAST_CHUNK_FACTOR, room):
            return unread[0]
        if self._should_fill_tile(chunk, reading):
            return min(TILE_ROWS, room)
        return chunk if chunk == room or chunk < TILE_ROWS else chunk - chunk % TILE_ROWS

    def _plan_drafts(self, streams: list[Sequence], chunk: int, scored: int, step_cost: StepCostModel) -> None:
        """Set the draft of each stream: forced tokens of its grammar, or draft tokens as far as they pay beside
        the prefill chunk."""
        rows = len(streams) + chunk
        progress = float(rows)
        guesses = min(MAX_DRAFT_ROWS, EXTRA_OUTPUTS - scored, self._batch.capacity - rows, self._cells.free - rows)
        for seq in streams:
            seq.draft = []
            if self._drafts and seq.drafter is None:
                seq.drafter = Drafter(Lookup(seq.tokens))
            most = max(0, min(seq.remaining - 1, guesses))
            gain = 0.0
            if seq.forced:
                seq.draft = seq.forced[:most]
                gain = len(seq.draft)
            elif seq.drafter:
                seq.draft, gain = seq.drafter.propose(rows, progress, step_cost, min(self._drafts, most))
                if seq.guide:
                    seq.draft = seq.guide.validate_tokens(seq.draft)
                    gain = min(gain, len(seq.draft))
            rows += len(seq.draft)
            guesses -= len(seq.draft)
            progress += gain

    def _add(self, seq: Sequence, tokens: list[int], outputs: int) -> BatchPart:
        last_row = self._batch.add(seq.seq_id, seq.computed, tokens, outputs=outputs)
        return BatchPart(seq, len(tokens), last_row)


def _count_unread(reading: list[Sequence]) -> list[int]:
    """Rows that each sequence could prefill in one batch: few rows of all of them may have logits."""
    spare = EXTRA_OUTPUTS
    unread: list[int] = []
    for seq in reading:
        scored = seq.count_scored(len(seq.tokens))
        unread.append(len(seq.tokens) - seq.computed - max(scored - spare, 0))
        spare -= min(scored, spare)
    return unread


def _count_outputs(seq: Sequence) -> int:
    """Rows of a stream whose logits are needed, counted from the end."""
    return 1 if seq.forced and not seq.job.want_logprobs else 1 + len(seq.draft)
