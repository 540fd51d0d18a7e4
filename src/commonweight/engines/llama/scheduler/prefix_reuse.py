"""KV reuse for sequences: shared with running sequences that have the same prefix, or from the prefix cache.

A sequence whose prefix a running one computes, its leader, waits until that is done and shares the cells by
reference; if the leader leaves before, it goes on from there itself. Sequences that end are stored in the prefix
cache, and new ones are looked up there first. Where a model's state cannot be cut, both is possible only at some
positions, and prefill chunks end there.
"""

from collections import Counter
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from commonweight.engines.contract import CacheMark, CacheWrites, Stats, Ttl
from commonweight.engines.llama.kv.blocks import count_common_tokens, encode_key, round_down_to_blocks
from commonweight.engines.llama.kv.cells import Cells
from commonweight.engines.llama.kv.prefix_cache import NO_MATCH, PrefixCache
from commonweight.engines.llama.kv.sequence_state import SequenceState
from commonweight.engines.llama.model.native import LoadedModel
from commonweight.engines.llama.scheduler.sequence import Sequence
from commonweight.engines.llama.scheduler.step_cost import StepCostModel

Leaders = list[tuple[Sequence, int]]
"""Running sequences with a common prefix, and its length; the longest last."""


MAX_STORED_TOKENS = 512
"""Tokens of a prompt that a step stores: copying their cells holds up every stream."""


class Reusable(NamedTuple):
    """Tokens that a waiting sequence can share with running ones."""

    leaders: Leaders
    shared: int
    """Tokens whose cells are, or will be, shared with others."""


class PrefixReuse:
    """Gives sequences their reusable KV cells at the start, and stores their cells at the end."""

    def __init__(
        self, model: LoadedModel, seq_state: SequenceState, prefix_cache: PrefixCache, cells: Cells, stats: Stats
    ) -> None:
        self._model = model
        self._seq_state = seq_state
        self._prefix_cache = prefix_cache
        self._cells = cells
        self._stats = stats

    # Admission

    def find_reusable(self, seq: Sequence, running: list[Sequence], step_cost: StepCostModel) -> Reusable:
        """Look up reusable prefixes of a waiting sequence. Afterwards it may be waiting for the disk, too."""
        if self._seq_state.reuse == "never":
            return Reusable([], 0)
        self._look_up(seq, step_cost)
        leaders = self._find_leaders(seq, running)
        return Reusable(leaders, self._count_shared(seq, leaders))

    def start_sequence(self, seq: Sequence, leaders: Leaders) -> None:
        """Fill a sequence that has just been admitted with all reusable cells."""
        if self._seq_state.reuse == "anywhere":
            for leader, end in leaders:
                self._share(leader, seq, min(end, leader.computed))
        if not leaders or leaders[-1][1] < seq.match.length:
            self._restore(seq)
        seq.leaders = [(leader, end) for leader, end in leaders if end > seq.computed]
        self._prefix_cache.touch(seq.match.blocks)
        seq.match = NO_MATCH

    def _look_up(self, seq: Sequence, step_cost: StepCostModel) -> None:
        """Match the sequence against the prefix cache; prefetch blocks from disk if that is faster than
        prefill."""
        look_up = partial(self._prefix_cache.match_prefix, seq.tenant, seq.key, seq.max_reused, seq.probe_version)
        seq.match = look_up()
        if absent := [block for block in seq.match.blocks if block.state is None]:
            tokens = seq.match.length - absent[0].start
            if seq.prefetched_tokens or self._prefix_cache.estimate_read_seconds(
                absent
            ) > step_cost.estimate_prefill_seconds(tokens):
                seq.match = look_up(in_ram=True)
            else:
                seq.prefetched_tokens = tokens
                self._prefix_cache.prefetch(absent)

    def _find_leaders(self, seq: Sequence, running: list[Sequence]) -> Leaders:
        leaders = [
            (other, min(count_common_tokens(seq.key, other.key), seq.max_reused))
            for other in running
            if other.tenant == seq.tenant and seq.probe_version in (None, other.probe_version)
        ]
        if self._seq_state.reuse == "snapshots":  # the state already includes tokens behind the end
            leaders = [(other, end) for other, end in leaders if other.computed <= end]
        return sorted(((other, end) for other, end in leaders if end > 0), key=itemgetter(1))

    def _count_shared(self, seq: Sequence, leaders: Leaders) -> int:
        if leaders and leaders[-1][1] >= seq.match.length:
            return leaders[-1][1]
        if self._seq_state.reuse == "anywhere":
            return max((min(end, other.computed) for other, end in leaders), default=0)
        return 0  # restored blocks take cells of their own

    def _restore(self, seq: Sequence) -> None:
        """Restore matched blocks from RAM, behind the shared cells."""
        blocks, length = seq.match
        shared = seq.computed
        for block in blocks:
            start, end = max(block.start, seq.computed), min(block.end, length)
            if start >= end:
                continue
            snapshot = block.snapshots.get(end) if end == length else None
            assert block.state is not None
            if not self._seq_state.restore(seq.seq_id, start, end, block.state, snapshot):
                break
            scores = block.scores[seq.probe_version] if seq.probe_version else None
            seq.append_computed(
                self._cells.take(end - start), None if scores is None else scores[start - block.start :]
            )
        if seq.computed < length and self._seq_state.reuse == "snapshots":  # of no use without its end
            self._free_cells(seq)
        seq.stored = seq.computed
        restored = max(seq.computed - shared, 0)
        from_disk = min(seq.prefetched_tokens, restored)
        self._stats.disk_tokens += from_disk
        self._stats.ram_tokens += restored - from_disk

    # Prefill

    def follow_leaders(self, seq: Sequence) -> None:
        """Share the cells that its leaders have computed meanwhile."""
        while seq.leaders:
            leader, end = seq.leaders[-1]
            if leader.computed < end and seq.computed < end:
                return
            seq.leaders.pop()
            self._share(leader, seq, end)

    def next_chunk_end(self, seq: Sequence, running: list[Sequence]) -> int:
        """Last position at which its next prefill chunk may end."""
        stops = [len(seq.tokens)]
        if self._seq_state.reuse == "snapshots":
            stops += self._snapshot_positions(seq)
            stops += [end for other in running for leader, end in other.leaders if leader is seq]
        return min(stop for stop in stops if stop > seq.computed)

    def store_prompt(self, seq: Sequence) -> None:
        """Store the prompt's newly completed blocks in the prefix cache: those that can be stored at any time only
        once it streams, so that the first token does not wait for them, and a few a step."""
        if self._seq_state.reuse == "snapshots":
            if seq.computed in self._snapshot_positions(seq):
                self._store(seq, seq.computed)
        elif seq.is_streaming:
            most = min(len(seq.job.token_ids), seq.max_stored, seq.stored + MAX_STORED_TOKENS)
            if (end := round_down_to_blocks(min(seq.computed, most))) > seq.stored:
                self._insert(seq, seq.key, end)

    def apply_marks(self, seq: Sequence) -> CacheWrites:
        """Pin the prefixes of the job's cache marks. Returns the tokens that were not cached before."""
        written: Counter[Ttl] = Counter()
        reached = seq.cached_tokens
        for mark in seq.job.cache_marks:
            position = self._effective_position(seq, mark)
            if self._seq_state.reuse == "anywhere" and position > seq.stored:
                self._insert(seq, seq.key, position)
            kept = self._prefix_cache.pin_prefix(seq.tenant, seq.key, position, mark.ttl)
            written[mark.ttl] += max(0, kept - reached)
            reached = max(reached, kept)
        return CacheWrites(written["5m"], written["1h"])

    def _share(self, leader: Sequence, seq: Sequence, end: int) -> None:
        """Share a leader's cells up to ``end``, where that is possible and adds any."""
        start = seq.computed
        if end <= start or (leader.computed != end and self._seq_state.reuse != "anywhere"):
            return
        if self._seq_state.share(leader.seq_id, seq.seq_id, start, end):
            self._cells.share(leader.cells[start:end])
            seq.append_computed(leader.cells[start:end], leader.scores[start:end] if seq.job.probe else None)
            self._stats.shared_tokens += end - start

    def _snapshot_positions(self, seq: Sequence) -> list[int]:
        """Positions within the prompt at which a snapshot of the state is stored."""
        last = min(len(seq.job.token_ids) - 1, seq.max_stored)
        return [last, *(self._effective_position(seq, mark) for mark in seq.job.cache_marks)]

    def _effective_position(self, seq: Sequence, mark: CacheMark) -> int:
        """Position at which a mark takes effect. A prompt's last token is always computed, for its logits: a
        snapshot behind it would be of no use to the same prompt."""
        if self._seq_state.reuse == "snapshots":
            return min(mark.position, len(seq.job.token_ids) - 1, seq.max_stored)
        return min(mark.position, seq.max_stored)

    # Leaving

    def release_sequence(self, seq: Sequence, keep: int, others: list[Sequence]) -> None:
        """Store the first ``keep`` computed tokens, share them with followers, and free the sequence's cells."""
        self._store(seq, keep)
        for other in others:
            self._hand_over(seq, other)
        self._free_cells(seq)

    def retract(self, seq: Sequence, end: int) -> None:
        """Remove tokens behind ``end`` that a preemption stored: the reader did not use them."""
        self._prefix_cache.truncate_prefix(seq.tenant, seq.key, max(end, len(seq.job.token_ids)))

    def _hand_over(self, leader: Sequence, seq: Sequence) -> None:
        """Share a leaving leader's cells with a follower, which inherits its place in the queue."""
        for other, end in seq.leaders:
            if other is leader:
                self._share(leader, seq, min(end, leader.computed))
                seq.queued_at = min(seq.queued_at, leader.queued_at)
        seq.leaders = [(other, end) for other, end in seq.leaders if other is not leader]

    def _free_cells(self, seq: Sequence) -> None:
        """Free the cells of a sequence."""
        self._model.clear_sequence(seq.seq_id)
        self._cells.drop(seq.cells[: seq.computed])
        seq.computed = seq.stored = 0

    def _store(self, seq: Sequence, end: int) -> None:
        """Store the first ``end`` tokens in the prefix cache, as far as they are computed and may be kept."""
        end = min(end, seq.computed, seq.max_stored)
        key = encode_key(seq.tokens[:end])
        seq.stored = 0  # blocks that were evicted meanwhile are stored again: the cells are about to be freed
        self._insert(seq, key, end)
        if end and end == seq.computed and self._seq_state.reuse == "snapshots":
            snapshot = self._seq_state.save_partial(seq.seq_id)
            self._prefix_cache.add_snapshot(seq.tenant, key, end, snapshot)

    def _insert(self, seq: Sequence, key: bytes, end: int) -> None:
        if self._seq_state.reuse != "never":
            scores = (seq.job.probe.version, seq.scores) if seq.job.probe else None
            save = partial(self._seq_state.save_attention, seq.seq_id)
            self._prefix_cache.insert_prefix(seq.tenant, key, end, save, scores, marks=seq.marks, since=seq.stored)
            seq.stored = max(seq.stored, end)
