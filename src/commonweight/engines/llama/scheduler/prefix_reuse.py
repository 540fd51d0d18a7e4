"""What is never computed twice: what other runs compute at the moment, and what the prefix store remembers.

A run that shares a beginning with a running one, its leader, waits until that is computed and takes it over by
reference; if the leader leaves before, it goes on from there itself. What no longer runs goes to the prefix store,
and what comes is looked up there first. Where states cannot be cut, both is possible only at some positions, and
chunks of prompts end there.
"""

from collections import Counter
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from commonweight.engines.contract import CacheMark, Stats, Ttl, Written
from commonweight.engines.llama.blocks import common_tokens, in_whole_blocks, key_of
from commonweight.engines.llama.cells import Cells
from commonweight.engines.llama.native import LoadedModel
from commonweight.engines.llama.pace import Pace
from commonweight.engines.llama.prefixes import NOTHING, Prefixes
from commonweight.engines.llama.run import Run
from commonweight.engines.llama.state import States

Leaders = list[tuple[Run, int]]
"""Runs that compute the beginning of another one, and up to where; the longest last."""


class Beginning(NamedTuple):
    """What a run that waits need not compute, beside what it remembers."""

    leaders: Leaders
    shared: int
    """Tokens whose cells are, or will be, others' as well."""


class Recall:
    """Brings runs to where they need to compute, and keeps what they have computed."""

    def __init__(self, model: LoadedModel, states: States, prefixes: Prefixes, cells: Cells, stats: Stats) -> None:
        self._model = model
        self._states = states
        self._prefixes = prefixes
        self._cells = cells
        self._stats = stats

    # Before it runs

    def find(self, run: Run, running: list[Run], pace: Pace) -> Beginning:
        """Look for what is there of a run that waits. Afterwards it may be waiting for the disk, too."""
        if self._states.reuse == "never":
            return Beginning([], 0)
        self._look_up(run, pace)
        leaders = self._leaders(run, running)
        return Beginning(leaders, self._shared(run, leaders))

    def begin(self, run: Run, leaders: Leaders) -> None:
        """Give a run that has just got its sequence all that is there."""
        if self._states.reuse == "anywhere":
            for leader, end in leaders:
                self._share(leader, run, min(end, leader.computed))
        if not leaders or leaders[-1][1] < run.remembered.length:
            self._restore(run)
        run.leaders = [(leader, end) for leader, end in leaders if end > run.computed]
        self._prefixes.touch(run.remembered.blocks)
        run.remembered = NOTHING

    def _look_up(self, run: Run, pace: Pace) -> None:
        """Find what is remembered of the run; have the disk read what only it holds, if that is worth it."""
        look_up = partial(self._prefixes.match, run.tenant, run.key, len(run.tokens) - 1, run.version)
        run.remembered = look_up()
        if absent := [block for block in run.remembered.blocks if block.state is None]:
            tokens = run.remembered.length - absent[0].start
            if run.fetched or self._prefixes.seconds_to_read(absent) > pace.seconds_to_prefill(tokens):
                run.remembered = look_up(in_ram=True)
            else:
                run.fetched = tokens
                self._prefixes.fetch(absent)

    def _leaders(self, run: Run, running: list[Run]) -> Leaders:
        leaders = [
            (other, min(common_tokens(run.key, other.key), len(run.tokens) - 1))
            for other in running
            if other.tenant == run.tenant and run.version in (None, other.version)
        ]
        if self._states.reuse == "snapshots":  # what lies behind the end is in the state already
            leaders = [(other, end) for other, end in leaders if other.computed <= end]
        return sorted(((other, end) for other, end in leaders if end > 0), key=itemgetter(1))

    def _shared(self, run: Run, leaders: Leaders) -> int:
        if leaders and leaders[-1][1] >= run.remembered.length:
            return leaders[-1][1]
        if self._states.reuse == "anywhere":
            return max((min(end, other.computed) for other, end in leaders), default=0)
        return 0  # what comes from RAM takes cells of its own

    def _restore(self, run: Run) -> None:
        """Bring back from RAM what is remembered of the run, behind what it shares."""
        blocks, length = run.remembered
        shared = run.computed
        for block in blocks:
            start, end = max(block.start, run.computed), min(block.end, length)
            if start >= end:
                continue
            snapshot = block.snapshots.get(end) if end == length else None
            assert block.state is not None
            if not self._states.restore(run.sequence, start, end, block.state, snapshot):
                break
            scores = block.scores[run.version] if run.version else None
            run.grow(self._cells.take(end - start), None if scores is None else scores[start - block.start :])
        if run.computed < length and self._states.reuse == "snapshots":  # of no use without its end
            self._let_go(run)
        run.stored = run.computed
        restored = max(run.computed - shared, 0)
        from_disk = min(run.fetched, restored)
        self._stats.disk_tokens += from_disk
        self._stats.ram_tokens += restored - from_disk

    # While it runs

    def follow(self, run: Run) -> None:
        """Take over what its leaders have computed meanwhile."""
        while run.leaders:
            leader, end = run.leaders[-1]
            if leader.computed < end and run.computed < end:
                return
            run.leaders.pop()
            self._share(leader, run, end)

    def next_stop(self, run: Run, running: list[Run]) -> int:
        """Where a chunk of its prompt ends at the latest."""
        stops = [len(run.tokens)]
        if self._states.reuse == "snapshots":
            stops += self._snapshot_positions(run)
            stops += [end for other in running for leader, end in other.leaders if leader is run]
        return min(stop for stop in stops if stop > run.computed)

    def store_prompt(self, run: Run) -> None:
        """Remember the blocks of the prompt that have just been completed."""
        if self._states.reuse == "snapshots":
            if run.computed in self._snapshot_positions(run):
                self._remember(run, run.computed)
        elif (end := in_whole_blocks(min(run.computed, len(run.job.token_ids)))) > run.stored:
            self._insert(run, run.key, end)

    def mark(self, run: Run) -> Written:
        """Keep what the job's marks ask for. Returns what is kept that was not there before."""
        written: Counter[Ttl] = Counter()
        reached = run.cached
        for mark in run.job.cache_marks:
            position = self._position(run, mark)
            if self._states.reuse == "anywhere" and position > run.stored:
                self._insert(run, run.key, position)
            kept = self._prefixes.keep(run.tenant, run.key, position, mark.ttl)
            written[mark.ttl] += max(0, kept - reached)
            reached = max(reached, kept)
        return Written(written["5m"], written["1h"])

    def _share(self, leader: Run, run: Run, end: int) -> None:
        """Take over what a leader has computed up to ``end``, if that is of any use."""
        start = run.computed
        if end <= start or (leader.computed != end and self._states.reuse != "anywhere"):
            return
        if self._states.share(leader.sequence, run.sequence, start, end):
            self._cells.share(leader.cells[start:end])
            run.grow(leader.cells[start:end], leader.scores[start:end] if run.job.probe else None)
            self._stats.shared_tokens += end - start

    def _snapshot_positions(self, run: Run) -> list[int]:
        """Where what cannot be cut is taken while the prompt is read, because it will be needed there."""
        return [len(run.job.token_ids) - 1, *(self._position(run, mark) for mark in run.job.cache_marks)]

    def _position(self, run: Run, mark: CacheMark) -> int:
        """Where a mark takes effect. A prompt's last token is always computed, so that something can be drawn:
        a snapshot behind it would be of no use to the same prompt."""
        if self._states.reuse == "snapshots":
            return min(mark.position, len(run.job.token_ids) - 1)
        return mark.position

    # When it leaves

    def leave(self, run: Run, keep: int, others: list[Run]) -> None:
        """Remember the first ``keep`` tokens that are computed, hand on to its followers and free its cells."""
        self._remember(run, keep)
        for other in others:
            self._hand_on(run, other)
        self._let_go(run)

    def retract(self, run: Run, end: int) -> None:
        """Forget what was stored of its answer behind ``end`` when it was preempted: it was not used."""
        self._prefixes.cut(run.tenant, run.key, max(end, len(run.job.token_ids)))

    def _hand_on(self, leader: Run, run: Run) -> None:
        """The leader goes: who waited for it takes what there is, and its place."""
        for other, end in run.leaders:
            if other is leader:
                self._share(leader, run, min(end, leader.computed))
                run.place = min(run.place, leader.place)
        run.leaders = [(other, end) for other, end in run.leaders if other is not leader]

    def _let_go(self, run: Run) -> None:
        """Free its cells."""
        self._model.forget(run.sequence)
        self._cells.drop(run.cells[: run.computed])
        run.computed = run.stored = 0

    def _remember(self, run: Run, end: int) -> None:
        """Store the first ``end`` of its tokens, as far as they are computed."""
        end = min(end, run.computed)
        key = key_of(run.tokens[:end])
        run.stored = 0  # what has been given up meanwhile is stored again: it will not be there for long
        self._insert(run, key, end)
        if end and end == run.computed and self._states.reuse == "snapshots":
            snapshot = self._states.snapshot(run.sequence)
            self._prefixes.add_snapshot(run.tenant, key, end, snapshot)

    def _insert(self, run: Run, key: bytes, end: int) -> None:
        if self._states.reuse != "never":
            scores = (run.job.probe.version, run.scores) if run.job.probe else None
            save = partial(self._states.save, run.sequence)
            self._prefixes.insert(run.tenant, key, end, save, scores, marks=run.marks, since=run.stored)
            run.stored = max(run.stored, end)
