"""The prefix store, with states that say which tokens they belong to."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.engines.contract import Ttl
from commonweight.engines.llama.kv import blocks
from commonweight.engines.llama.kv import prefix_cache as prefixes
from commonweight.engines.llama.kv.block_files import compute_fingerprint
from commonweight.engines.llama.kv.blocks import ProbeScores, StateBytes, count_common_tokens, encode_key
from commonweight.engines.llama.kv.disk_tier import DiskTier
from commonweight.engines.llama.kv.prefix_cache import PrefixCache, PrefixMatch

BLOCK = 4
TOKEN_BYTES = 64
"""Of a state, for each token."""
PLENTY = 1 << 30
"""Blocks, or bytes."""
Condition = Callable[[], bool]

Tokens = list[int]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", BLOCK)


class Clock:
    """The store's clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(prefixes, "monotonic", clock)
    return clock


def state_of(tokens: Tokens, start: int, end: int) -> StateBytes:
    """What a model would give: every position's row depends on all tokens up to it."""
    rows = [hash(tuple(tokens[: i + 1])) % (1 << 31) for i in range(start, end)]
    return np.repeat(np.asarray(rows, "<i8"), TOKEN_BYTES // 8).view(np.uint8)


def scores_of(tokens: Tokens, version: str) -> ProbeScores:
    rows = [float(hash((version, *tokens[: i + 1])) % 1000) for i in range(len(tokens))]
    return np.asarray(rows, np.float32).reshape(-1, 1)


class Store:
    """A store, and how a scheduler uses it."""

    def __init__(self, *, blocks: float = PLENTY, snapshots: bool = False, disk: DiskTier | None = None) -> None:
        self.capacity = int(blocks * BLOCK * TOKEN_BYTES)
        self.prefixes = PrefixCache(capacity=self.capacity, needs_snapshots=snapshots, disk=disk)
        self.disk = disk
        self.saved: list[tuple[int, int]] = []

    def insert(
        self,
        tokens: Tokens,
        tenant: str = "",
        *,
        version: str | None = None,
        since: int = 0,
        end: int | None = None,
    ) -> None:
        def save(start: int, end: int) -> StateBytes:
            self.saved.append((start, end))
            return state_of(tokens, start, end)

        scores = (version, scores_of(tokens, version)) if version else None
        end = len(tokens) if end is None else end
        self.prefixes.insert_prefix(tenant, encode_key(tokens), end, save, scores, since=since)
        self.check()

    def snapshot(self, tokens: Tokens, tenant: str = "") -> None:
        """A turn's end: the cells, and what can't be cut."""
        self.insert(tokens, tenant)
        self.prefixes.add_snapshot(tenant, encode_key(tokens), len(tokens), state_of([-1, *tokens], 0, 1))
        self.check()

    def cut(self, tokens: Tokens, end: int, tenant: str = "") -> None:
        self.prefixes.truncate_prefix(tenant, encode_key(tokens), end)
        self.check()

    def match(
        self, tokens: Tokens, tenant: str = "", *, version: str | None = None, limit: int | None = None
    ) -> int:
        """How many tokens are remembered; they are fetched, and must be theirs."""
        limit = len(tokens) if limit is None else limit
        found = self.look_up(tokens, tenant, version, limit)
        for _ in range(20):
            if not (absent := [block for block in found.blocks if block.state is None]):
                break
            self.prefixes.prefetch(absent)
            self.wait(lambda: not any(block.is_loading for block in absent))
            found = self.look_up(tokens, tenant, version, limit)
        else:
            found = self.look_up(tokens, tenant, version, limit, in_ram=True)
        self.prefixes.touch(found.blocks)
        self.check_bytes(found, tokens, version)
        return found.length

    def look_up(
        self, tokens: Tokens, tenant: str, version: str | None, limit: int, in_ram: bool = False
    ) -> PrefixMatch:
        return self.prefixes.match_prefix(tenant, encode_key(tokens), limit, version, in_ram=in_ram)

    def in_ram(self, tokens: Tokens, tenant: str = "") -> int:
        return self.look_up(tokens, tenant, None, len(tokens), in_ram=True).length

    def keep(self, tokens: Tokens, ttl: Ttl = "5m", tenant: str = "") -> int:
        return self.prefixes.pin_prefix(tenant, encode_key(tokens), len(tokens), ttl)

    def wait(self, is_true: "Condition") -> None:
        for _ in range(2000):
            self.prefixes.collect_disk_events()
            if is_true():
                return
            time.sleep(0.001)
        raise AssertionError("the disk does not answer")

    def settle(self) -> None:
        """Until everything that waits to be written is."""
        assert self.disk is not None
        disk = self.disk
        self.wait(lambda: not disk._writes and not disk._forgotten and not disk._touched)
        time.sleep(0.01)
        self.prefixes.collect_disk_events()
        self.check()

    def check(self) -> None:
        """What always holds."""
        prefixes = self.prefixes
        assert prefixes.ram_bytes <= self.capacity
        assert prefixes.ram_bytes == sum(block.size for block in prefixes._blocks.values())
        assert set(prefixes._recent) == {block for block in prefixes._blocks.values() if block.state is not None}
        places = {block: place for place, block in enumerate(prefixes._recent)}
        for block in prefixes._blocks.values():
            parts = [*block.snapshots.values(), *block.scores.values()]
            assert all((part is None) == (block.state is None) for part in parts)
            assert block.state is not None or block.file_bytes
            assert block.parent is not None
            if block.parent in places and block in places:
                assert places[block] < places[block.parent]
            # Shorter blocks have nothing below them.
            assert len(block.tokens) == BLOCK * 4 or not block.children

    def check_bytes(self, found: PrefixMatch, tokens: Tokens, version: str | None) -> None:
        held = b"".join(block.state.tobytes() for block in found.blocks if block.state is not None)
        assert held[: found.length * TOKEN_BYTES] == state_of(tokens, 0, found.length).tobytes()
        if found.blocks:
            assert found.blocks[-1].start < found.length <= found.blocks[-1].end
        if version:
            rows = [block.scores[version] for block in found.blocks]
            scores = np.concatenate([row for row in rows if row is not None] or [np.zeros((0, 1), np.float32)])
            assert scores[: found.length].tolist() == scores_of(tokens[: found.length], version).tolist()
        if self.prefixes._needs_snapshots and found.blocks:
            snapshot = found.blocks[-1].snapshots[found.length]
            assert snapshot is not None
            assert snapshot.tobytes() == state_of([-1, *tokens[: found.length]], 0, 1).tobytes()


def count(start: int, length: int) -> Tokens:
    return list(range(start, start + length))


# Matching

short_prompts = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14), max_size=12)


@given(short_prompts, st.lists(st.integers(0, 1), min_size=1, max_size=16), st.integers(0, 16))
def test_the_longest_prefix_of_all_that_were_inserted_is_found(
    prompts: list[Tokens], key: Tokens, limit: int
) -> None:
    store = Store()
    for tokens in prompts:
        store.insert(tokens)
    limit = min(limit, len(key))
    expected = max(
        (count_common_tokens(encode_key(key[:limit]), encode_key(tokens)) for tokens in prompts), default=0
    )
    assert store.match(key, limit=limit) == expected


@given(short_prompts, st.lists(st.integers(0, 1), min_size=1, max_size=16))
def test_only_where_a_snapshot_was_taken(prompts: list[Tokens], key: Tokens) -> None:
    store = Store(snapshots=True)
    for tokens in prompts:
        store.snapshot(tokens)
    assert store.match(key) == max((len(tokens) for tokens in prompts if key[: len(tokens)] == tokens), default=0)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=14), st.sampled_from([None, "v1", "v2"])))
)
def test_with_a_probe_only_what_has_its_scores(prompts: list[tuple[Tokens, str | None]]) -> None:
    store = Store()
    for tokens, version in prompts:
        store.insert(tokens, version=version)
        if version:
            assert store.match([*tokens, 2], version=version) == len(tokens)
        # Scores are of whole blocks: others may have had theirs computed along.
        assert store.match(tokens, version="v3") == 0


def test_scores_come_beside_cells_that_are_there() -> None:
    store = Store()
    store.insert(count(0, 10))
    store.saved.clear()
    store.insert(count(0, 10), version="v1")
    store.insert(count(0, 10), version="v2")
    assert store.saved == []
    assert store.match(count(0, 12), version="v1") == store.match(count(0, 12), version="v2") == 10


def test_a_longer_block_takes_the_place_of_a_shorter_one() -> None:
    store = Store()
    for length in (5, 6, 7, 8, 9, 3):
        store.insert(count(0, length))
    assert sorted((block.start, block.end) for block in store.prefixes._blocks.values()) == [
        (0, 4),
        (4, 8),
        (8, 9),
    ]
    assert store.prefixes.ram_bytes == 9 * TOKEN_BYTES


def test_snapshots_outlive_the_shorter_block_that_they_came_with() -> None:
    store = Store(snapshots=True)
    store.snapshot(count(0, 5))
    store.snapshot(count(0, 7))
    store.insert(count(0, 9))
    for length, expected in ((5, 5), (6, 5), (7, 7), (9, 7)):
        assert store.match(count(0, length)) == expected


def test_tenants_see_nothing_of_each_other() -> None:
    store = Store()
    store.insert(count(0, 9), "one")
    assert store.match(count(0, 9), "other") == store.match(count(0, 9)) == 0
    store.insert(count(0, 9), "other")
    store.prefixes._unload(next(iter(store.prefixes._recent)))
    assert store.match(count(0, 9), "other") == 9


def test_what_a_running_job_stored_and_lost_is_not_saved_again() -> None:
    store = Store(blocks=2)
    for end in (4, 8, 12, 16):
        store.insert(count(0, 18), since=end - 4, end=end)
    assert store.saved == [(0, 4), (4, 8), (8, 12)]
    assert store.match(count(0, 18)) == 8


@pytest.mark.parametrize("since", [5, 7, 8, 9])
def test_a_job_goes_on_storing_in_the_middle_of_a_block(since: int) -> None:
    """It had so many tokens from the store, or had stored so many for a mark."""
    store = Store()
    store.insert(count(0, 9), end=since)
    store.insert(count(0, 15), since=since)
    assert store.match(count(0, 15)) == 15


# Taking back


@given(short_prompts, st.lists(st.integers(0, 1), min_size=1, max_size=14), st.integers(0, 14))
def test_of_what_is_cut_only_the_beginning_is_found(prompts: list[Tokens], key: Tokens, end: int) -> None:
    store = Store()
    for tokens in [*prompts, key]:
        store.insert(tokens)
    store.cut(key, end)
    shared = [count_common_tokens(encode_key(key), encode_key(tokens)) for tokens in prompts]
    # What others have had as well may stay; what has only its beginning in common with it must.
    assert min(end, len(key)) <= store.match(key) <= max(min(end, len(key)), *shared, 0)
    for tokens, common in zip(prompts, shared, strict=True):
        assert common > end or store.match(tokens) == len(tokens)


def test_a_cut_takes_along_what_belongs_to_the_end() -> None:
    store = Store(snapshots=True)
    for length in (6, 9, 11):
        store.snapshot(count(0, length))
    store.insert(count(0, 11), version="v1")
    store.cut(count(0, 11), 10)
    assert [store.match(count(0, length)) for length in (8, 10, 11)] == [6, 9, 9]
    assert store.match(count(0, 11), version="v1") == 9
    store.cut(count(0, 11), 8)
    assert store.match(count(0, 11)) == 6


def test_a_mark_stays_on_what_is_left(clock: Clock) -> None:
    store = Store(blocks=4)
    store.insert(count(0, 7))
    store.keep(count(0, 7))
    store.cut(count(0, 7), 6)
    store.insert(count(100, 16))
    assert store.in_ram(count(0, 7)) == 6


# Giving up


def test_the_least_recently_used_leaves_first_its_end_before_its_beginning() -> None:
    store = Store(blocks=5)
    store.insert(count(0, 8))
    store.insert(count(100, 8))
    assert store.match(count(0, 8)) == 8
    store.insert(count(200, 8))
    assert [store.in_ram(count(start, 8)) for start in (0, 100, 200)] == [8, 4, 8]
    store.insert(count(300, 4))
    assert [store.in_ram(count(start, 8)) for start in (0, 100, 200, 300)] == [8, 0, 8, 4]


def test_a_shared_beginning_stays_as_long_as_any_of_its_ends() -> None:
    store = Store(blocks=4)
    store.insert(count(0, 4) + count(100, 4))
    store.insert(count(0, 4) + count(200, 4))
    store.insert(count(300, 8))
    assert store.in_ram(count(0, 4) + count(100, 4)) == 4
    assert store.in_ram(count(0, 4) + count(200, 4)) == 8


def test_marks_outlive_what_is_unmarked_and_yield_when_nothing_else_is_left() -> None:
    store = Store(blocks=4)
    store.insert(count(0, 8))
    assert store.keep(count(0, 8)) == 8
    for start in range(100, 1000, 100):
        store.insert(count(start, 8))
    assert store.in_ram(count(0, 8)) == 8
    assert store.in_ram(count(900, 8)) == 8
    store.keep(count(900, 8))
    store.insert(count(2000, 8))
    # The newest is unmarked and gives way.
    assert [store.in_ram(count(start, 8)) for start in (0, 900, 2000)] == [8, 8, 0]
    store = Store(blocks=4)
    for start in (0, 100, 200):
        store.insert(count(start, 8))
        store.keep(count(start, 8))
    store.insert(count(300, 8))
    assert store.prefixes.ram_bytes == store.capacity


@pytest.mark.parametrize(("ttl", "seconds"), [("5m", 300), ("1h", 3600)])
def test_marks_end_after_their_time_and_use_renews_them(clock: Clock, ttl: Ttl, seconds: int) -> None:
    store = Store(blocks=4)
    store.insert(count(0, 8))
    store.keep(count(0, 8), ttl)
    for _ in range(3):
        clock.now += seconds - 1
        assert store.match(count(0, 8)) == 8
    clock.now += seconds - 1
    store.insert(count(100, 16))
    assert store.in_ram(count(0, 8)) == 8
    clock.now += 2
    store.insert(count(200, 16))
    assert store.in_ram(count(0, 8)) == 0


def test_of_two_marks_the_longer_counts(clock: Clock) -> None:
    store = Store(blocks=4)
    store.insert(count(0, 8))
    store.keep(count(0, 8), "1h")
    store.keep(count(0, 8), "5m")
    clock.now += 3000
    store.insert(count(100, 16))
    assert store.in_ram(count(0, 8)) == 8


def test_a_mark_goes_over_to_the_longer_block(clock: Clock) -> None:
    store = Store(blocks=4)
    store.insert(count(0, 6))
    store.keep(count(0, 6))
    store.insert(count(0, 8))
    store.insert(count(100, 16))
    assert store.in_ram(count(0, 8)) == 8


def test_a_mark_counts_what_is_there() -> None:
    store = Store()
    store.insert(count(0, 10))
    assert [store.keep(count(0, length)) for length in (0, 3, 4, 9, 10, 11, 30)] == [0, 3, 4, 9, 10, 8, 8]
    assert store.keep(count(50, 5)) == 0


tokens = st.lists(st.integers(0, 1), min_size=1, max_size=20)
operations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "match", "keep", "snapshot", "cut"]), tokens, st.sampled_from(["", "other"])
    ),
    max_size=25,
)


@given(operations, st.sampled_from([0, 0.5, 1, 2.5, 6]), st.booleans())
def test_under_pressure_nothing_is_ever_wrong(
    happenings: list[tuple[str, Tokens, str]], blocks: float, snapshots: bool
) -> None:
    store = Store(blocks=blocks, snapshots=snapshots)
    for name, key, tenant in happenings:
        if name == "insert":
            store.insert(key, tenant, version="v1" if len(key) % 3 == 0 else None)
        elif name == "snapshot":
            store.snapshot(key, tenant)
        elif name == "match":
            store.match(key, tenant)
        elif name == "cut":
            store.cut(key, len(key) // 2, tenant)
        else:
            store.keep(key, "5m", tenant)
        store.check()


# Disk


class Folder:
    """Where several stores live, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stores: list[Store] = []

    def open(self, *, blocks: float = PLENTY, snapshots: bool = False, capacity: int = PLENTY) -> Store:
        disk = DiskTier(self._path, compute_fingerprint(test=1), capacity=capacity, wake=lambda: None)
        self._stores.append(Store(blocks=blocks, snapshots=snapshots, disk=disk))
        return self._stores[-1]

    def close(self) -> None:
        for store in self._stores:
            store.prefixes.close()

    def files(self) -> list[Path]:
        return sorted(self._path.rglob("*.kv"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.close()


def test_a_restart_finds_everything(folder: Folder) -> None:
    store = folder.open()
    store.insert(count(0, 10), version="v1")
    store.insert(count(0, 6) + count(100, 8), "other")
    store.prefixes.close()
    again = folder.open()
    assert again.prefixes.ram_bytes == 0
    assert again.match(count(0, 12), version="v1") == 10
    assert again.match(count(0, 12), version="v2") == 0
    assert again.match(count(0, 6) + count(100, 8), "other") == 14
    assert again.match(count(0, 10), "third") == 0


def test_a_restart_finds_snapshots(folder: Folder) -> None:
    store = folder.open(snapshots=True)
    store.snapshot(count(0, 6))
    store.snapshot(count(0, 11))
    store.prefixes.close()
    again = folder.open(snapshots=True)
    assert [again.match(count(0, length)) for length in (5, 6, 10, 11, 14)] == [0, 6, 6, 11, 11]


def test_what_leaves_ram_is_read_again(folder: Folder) -> None:
    store = folder.open(blocks=3.5)
    store.insert(count(0, 12), version="v1")
    store.settle()
    store.insert(count(100, 12))
    store.settle()
    assert store.in_ram(count(0, 12)) == 0
    assert store.match(count(0, 12), version="v1") == 12
    assert store.in_ram(count(100, 12)) == 0
    assert store.match(count(100, 12)) == 12


def test_what_leaves_ram_before_it_is_written_is_read_again(folder: Folder) -> None:
    store = folder.open(blocks=3)
    store.insert(count(0, 12))
    store.insert(count(100, 12))
    assert store.match(count(0, 12)) == 12


def test_less_ram_than_a_prompt(folder: Folder) -> None:
    store = folder.open(blocks=2.5)
    store.insert(count(0, 40))
    store.settle()
    assert store.match(count(0, 40)) >= 8
    assert store.prefixes.ram_bytes <= store.capacity


def test_a_block_that_is_lost_takes_with_it_what_stands_on_it(folder: Folder) -> None:
    store = folder.open()
    store.insert(count(0, 12))
    store.prefixes.close()
    again = folder.open()
    found = again.look_up(count(0, 12), "", None, 12)
    (file,) = (path for path in folder.files() if path.stem == found.blocks[1].name)
    file.write_bytes(b"?" * file.stat().st_size)
    again.prefixes.prefetch(found.blocks)
    again.wait(lambda: not any(block.is_loading for block in found.blocks))
    assert again.look_up(count(0, 12), "", None, 12).length == 4
    again.settle()
    assert [path.stem for path in folder.files()] == [found.blocks[0].name]
    again.insert(count(0, 12))
    assert again.match(count(0, 12)) == 12


def test_a_restart_finds_what_a_cut_has_left(folder: Folder) -> None:
    store = folder.open()
    store.insert(count(0, 11), version="v1")
    store.cut(count(0, 11), 10)
    store.prefixes.close()
    again = folder.open()
    assert again.match(count(0, 11), version="v1") == 10
    again.prefixes.close()
    third = folder.open()
    third.cut(count(0, 10), 9)  # what is not in RAM can't be shortened, and goes
    assert third.match(count(0, 11)) == 8


def test_a_long_chain_is_forgotten_at_once(folder: Folder) -> None:
    store = folder.open()
    long = count(0, 1200 * BLOCK)
    store.insert(long)
    store.prefixes._remove(store.look_up(long, "", None, 4).blocks[0])
    assert store.match(long) == 0
    store.check()


def test_scores_that_were_on_disk_only_are_not_taken_for_there(folder: Folder) -> None:
    store = folder.open()
    store.insert(count(0, 8), version="v1")
    store.prefixes.close()
    again = folder.open()
    again.insert(count(0, 8), version="v2")
    assert again.match(count(0, 8), version="v2") == 8
    assert again.match(count(0, 8), version="v1") in (0, 8)
    again.check()


def test_snapshots_that_were_on_disk_only_are_not_taken_for_there(folder: Folder) -> None:
    store = folder.open(snapshots=True)
    store.snapshot(count(0, 6))
    store.prefixes.close()
    again = folder.open(snapshots=True)
    again.snapshot(count(0, 8))
    assert again.match(count(0, 8)) == 8
    assert again.match(count(0, 7)) in (0, 6)
    again.check()


def test_what_was_computed_meanwhile_is_not_replaced_by_what_was_read(folder: Folder) -> None:
    store = folder.open()
    store.insert(count(0, 4), version="v1")
    store.prefixes.close()
    again = folder.open()
    (block,) = again.look_up(count(0, 4), "", None, 4).blocks
    again.prefixes.prefetch([block])
    again.insert(count(0, 4), version="v2")
    again.wait(lambda: not block.is_loading)
    assert again.match(count(0, 4), version="v2") == 4
    again.check()


def test_the_disk_forgets_before_it_overflows(folder: Folder) -> None:
    store = folder.open(blocks=2, capacity=4000)
    for start in range(0, 1000, 100):
        store.insert(count(start, 8))
        store.settle()
        assert store.prefixes.disk_bytes <= 4000
    remembered = [store.match(count(start, 8)) for start in range(0, 1000, 100)]
    assert remembered[-1] == 8
    assert remembered[0] == 0


@settings(max_examples=30)
@given(
    happenings=operations, blocks=st.sampled_from([0, 1, 2.5, 6]), snapshots=st.booleans(), seed=st.integers(0, 9)
)
def test_with_a_disk_below_nothing_is_ever_wrong(
    tmp_path_factory: pytest.TempPathFactory,
    happenings: list[tuple[str, Tokens, str]],
    blocks: float,
    snapshots: bool,
    seed: int,
) -> None:
    draw = random.Random(seed)
    folder = Folder(tmp_path_factory.mktemp("disk"))
    capacity = draw.choice([1500, PLENTY])
    store = folder.open(blocks=blocks, snapshots=snapshots, capacity=capacity)
    for name, key, tenant in happenings:
        if draw.random() < 0.1:
            store.prefixes.close()
            store = folder.open(blocks=blocks, snapshots=snapshots, capacity=capacity)
        if name == "insert":
            store.insert(key, tenant, version=draw.choice([None, "v1", "v2"]))
        elif name == "snapshot":
            store.snapshot(key, tenant)
        elif name == "match":
            store.match(key, tenant, version=draw.choice([None, "v1", "v2"]))
        elif name == "cut":
            store.cut(key, len(key) // 2, tenant)
        else:
            store.keep(key, "1h", tenant)
        if draw.random() < 0.3:
            store.settle()
        store.prefixes.collect_disk_events()
        store.check()
    folder.close()
