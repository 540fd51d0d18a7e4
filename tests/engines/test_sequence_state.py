"""Moving ranges of sequences out of llama.cpp's memory and back, on every kind of memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny
from outcomes import starter_path

from commonweight.engines.llama.kv import sequence_state as state
from commonweight.engines.llama.kv.sequence_state import BytesLike, SequenceState
from commonweight.engines.llama.model.native import LlamaBatch, LoadedModel
from commonweight.llamacpp import api as llama

CELLS = 512
LONG = 200
"""Tokens of a long prompt: six windows."""
BLOCK = 64

Logits = npt.NDArray[np.float32]


class Memory:
    """A model and what its sequences hold."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.states = SequenceState(model.context, model.handle, model.scratch)
        self.batch = LlamaBatch(64)
        self.empty_size = self.size(model.scratch)

    def size(self, sequence: int) -> int:
        size: int = llama.llama_state_seq_get_size_ext(self.model.context, sequence, 0)
        return size

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.model.context), False)

    def read(self, sequence: int, tokens: list[int], start: int = 0) -> None:
        """Compute tokens as a prompt."""
        for i in range(0, len(tokens), self.batch.capacity):
            self.batch.clear()
            self.batch.add(sequence, start + i, tokens[i : i + self.batch.capacity], outputs=0)
            self.model.decode(self.batch)

    def go_on(self, start: int, streams: dict[int, list[int]]) -> dict[int, list[Logits]]:
        """Compute tokens one by one, for several sequences that are equally long; the logits behind each."""
        logits: dict[int, list[Logits]] = {sequence: [] for sequence in streams}
        for i in range(len(next(iter(streams.values())))):
            self.batch.clear()
            rows = {
                sequence: self.batch.add(sequence, start + i, [tokens[i]], outputs=1)
                for sequence, tokens in streams.items()
            }
            self.model.decode(self.batch)
            for sequence, row in rows.items():
                logits[sequence].append(self.model.get_logits(row).copy())
        return logits

    def cold(self, prompt: list[int], others: list[int]) -> list[Logits]:
        """What ``others`` come out as behind ``prompt`` when everything is computed. Empties the memory."""
        self.clear()
        self.read(0, prompt)
        logits = self.go_on(len(prompt), {0: others})[0]
        self.clear()
        return logits

    def save(self, sequence: int, end: int) -> tuple[list[tuple[int, int, BytesLike]], BytesLike | None]:
        """All blocks of a sequence that ends at ``end``, the last one partial, and its snapshot if need be."""
        blocks = [(i, min(i + BLOCK, end)) for i in range(0, end, BLOCK)]
        saved: list[tuple[int, int, BytesLike]] = [
            (start, stop, self.states.save_attention(sequence, start, stop).tobytes()) for start, stop in blocks
        ]
        return saved, self.states.save_partial(sequence) if self.states.reuse == "snapshots" else None

    def restore(self, sequence: int, blocks: list[tuple[int, int, BytesLike]], snapshot: BytesLike | None) -> None:
        for start, end, cells in blocks:
            assert self.states.restore(sequence, start, end, cells, snapshot if end == blocks[-1][1] else None)


def load(path: Path, cells: int = CELLS) -> LoadedModel:
    return LoadedModel(path, cells=cells, sequences=4, batch_rows=64, outputs=64, threads=1)


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memory]:
    model = load(tiny.write(tmp_path_factory.mktemp("models"), request.param))
    yield Memory(model)
    model.close()


@pytest.fixture
def memory(loaded: Memory) -> Iterator[Memory]:
    """An empty memory, whose scratch sequence must be empty afterwards, too."""
    loaded.clear()
    yield loaded
    assert loaded.size(loaded.model.scratch) == loaded.empty_size


@pytest.fixture
def attention(tmp_path: Path) -> Iterator[LoadedModel]:
    model = load(tiny.write(tmp_path, "llama"))
    yield model
    model.close()


def random_tokens(seed: int, length: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).integers(3, tiny.VOCABULARY, length).tolist()
    return drawn


PROMPT, ANSWER, OTHER = random_tokens(1, LONG), random_tokens(2, 12), random_tokens(3, 12)


def same(got: list[Logits], expected: list[Logits], tolerance: float = 1e-3) -> bool:
    """Whether logits differ by less than a part of their standard deviation."""
    return all(
        np.abs(one - other).max() < tolerance * other.std() for one, other in zip(got, expected, strict=True)
    )


OTHER_SHAPES = 0.03
"""Where batches have other shapes, or cells lie in another order, sums round differently. A wrong token in reach
changes ten times as much."""


def test_what_may_be_reused(memory: Memory, request: pytest.FixtureRequest) -> None:
    expected = "anywhere" if "[llama]" in request.node.name else "snapshots"
    assert memory.states.reuse == expected
    for sequence in range(memory.model.scratch + 1):
        assert memory.size(sequence) == memory.empty_size


def test_blocks_come_back_beside_running_sequences(memory: Memory) -> None:
    expected = memory.cold(PROMPT, ANSWER)
    beside = memory.cold(OTHER * 10, OTHER)
    memory.read(0, PROMPT)
    blocks, snapshot = memory.save(0, LONG)
    memory.go_on(LONG, {0: OTHER})
    memory.model.clear_sequence(0)
    memory.read(2, OTHER * 10)
    memory.restore(1, blocks, snapshot)
    # Two sequences of different lengths, in turns.
    got: list[Logits] = []
    unharmed: list[Logits] = []
    for i, (token, other) in enumerate(zip(ANSWER, OTHER, strict=True)):
        got += memory.go_on(LONG + i, {1: [token]})[1]
        unharmed += memory.go_on(120 + i, {2: [other]})[2]
    assert same(got, expected)
    assert same(unharmed, beside)


def test_what_comes_back_can_be_saved_again(memory: Memory) -> None:
    expected = memory.cold(PROMPT, ANSWER)
    memory.read(0, PROMPT)
    for sequence in (1, 2, 3):
        blocks, snapshot = memory.save(sequence - 1, LONG)
        memory.model.clear_sequence(sequence - 1)
        memory.restore(sequence, blocks, snapshot)
    assert same(memory.go_on(LONG, {3: ANSWER})[3], expected)


def test_the_last_block_may_be_cut(memory: Memory) -> None:
    """The second prompt shares some tokens of the second block, and ends within it."""
    for end in (BLOCK + 1, 100):
        expected = memory.cold(PROMPT[:end], OTHER)
        memory.read(0, PROMPT[:end])
        snapshot = memory.states.save_partial(0) if memory.states.reuse == "snapshots" else None
        memory.read(0, PROMPT[end:], end)
        blocks, _ = memory.save(0, LONG)
        memory.model.clear_sequence(0)
        (_, _, first), (_, _, second), *_ = blocks
        memory.restore(1, [(0, BLOCK, first), (BLOCK, end, second)], snapshot)
        assert same(memory.go_on(end, {1: OTHER})[1], expected)


def test_sharing_while_the_source_goes_on(memory: Memory) -> None:
    expected = {0: memory.cold(PROMPT, ANSWER), 1: memory.cold(PROMPT, OTHER)}
    memory.read(0, PROMPT)
    assert memory.states.share(0, 1, 0, LONG)
    got = memory.go_on(LONG, {0: ANSWER, 1: OTHER})
    assert all(same(got[sequence], expected[sequence], OTHER_SHAPES) for sequence in expected)


def test_sharing_takes_over_what_the_target_does_not_hold(memory: Memory) -> None:
    expected = memory.cold(PROMPT, ANSWER)
    memory.read(0, PROMPT[:BLOCK])
    assert memory.states.share(0, 1, 0, BLOCK)
    memory.read(0, PROMPT[BLOCK:], BLOCK)
    assert memory.states.share(0, 1, BLOCK, LONG)
    memory.model.clear_sequence(0)
    memory.read(0, OTHER * 10)
    assert same(memory.go_on(LONG, {1: ANSWER})[1], expected, OTHER_SHAPES)


def test_a_prefix_handed_on_again_and_again(memory: Memory) -> None:
    expected = memory.cold(PROMPT, ANSWER)
    memory.read(0, PROMPT[:40])
    for i in range(8):
        source, target, end = i % 4, (i + 1) % 4, 40 + 20 * i
        memory.model.clear_sequence(target)
        assert memory.states.share(source, target, 0, end)
        memory.read(source, OTHER, end)
        memory.read(target, PROMPT[end : end + 20], end)
    assert same(memory.go_on(LONG, {0: ANSWER})[0], expected, OTHER_SHAPES)


def test_a_source_that_went_on_cannot_give_its_state(memory: Memory) -> None:
    memory.read(0, PROMPT)
    if memory.states.reuse == "anywhere":
        assert memory.states.share(0, 1, 0, 100)
    else:
        with pytest.raises(ValueError, match="does not end at 100"):
            memory.states.share(0, 1, 0, 100)


# A recurrent model has a state a sequence: there is always room.
@pytest.mark.parametrize("loaded", [name for name in tiny.ARCHITECTURES if name != "mamba"], indirect=True)
def test_no_room_changes_nothing(memory: Memory) -> None:
    expected = {0: memory.cold(PROMPT[:BLOCK], ANSWER), 1: memory.cold(PROMPT[:BLOCK], OTHER)}
    memory.read(0, PROMPT)
    blocks, snapshot = memory.save(0, LONG)
    memory.clear()
    memory.read(0, PROMPT[:BLOCK])
    memory.read(1, PROMPT[:BLOCK])
    memory.read(2, (PROMPT * 2)[: CELLS - 2 * BLOCK - 40])
    # 40 cells are left.
    assert not memory.states.restore(1, BLOCK, 2 * BLOCK, blocks[1][2], snapshot)
    assert not memory.states.restore(3, 0, BLOCK, blocks[0][2], snapshot)
    got = memory.go_on(BLOCK, {0: ANSWER, 1: OTHER})
    assert all(same(got[sequence], expected[sequence], OTHER_SHAPES) for sequence in expected)


def test_broken_bytes_are_refused(memory: Memory) -> None:
    """What can be noticed; flipped bits can't, so whoever keeps blocks keeps checksums."""
    expected = memory.cold(PROMPT[:BLOCK], ANSWER)
    memory.read(0, PROMPT[: 2 * BLOCK])
    blocks, snapshot = memory.save(0, 2 * BLOCK)
    memory.clear()
    memory.read(0, PROMPT[:BLOCK])
    cells = blocks[1][2]
    broken = [cells[:length] for length in (0, 1, 7, 8, 12, 15, len(cells) // 2, len(cells) - 1)]
    broken += [bytes(cells) + b"\0", b"\xff" * len(cells), b"\0" * len(cells)]
    for data in broken:
        assert not memory.states.restore(1, BLOCK, 2 * BLOCK, data, snapshot)
        assert not memory.states.restore(0, BLOCK, 2 * BLOCK, data)
    if snapshot is not None:
        for data in (snapshot[:0], snapshot[:9], snapshot[:-1], b"\xff" * len(snapshot)):
            assert not memory.states.restore(0, BLOCK, 2 * BLOCK, memoryview(bytes(cells)), data)
    assert same(memory.go_on(BLOCK, {0: ANSWER})[0], expected)


# A recurrent state can't be taken back.
@pytest.mark.parametrize("loaded", ["llama", "gemma3"], indirect=True)
def test_rejected_drafts_leave_the_window_whole(memory: Memory) -> None:
    """They are taken back before anything else is computed: cells that only they had passed are still there."""
    expected = memory.cold(PROMPT, ANSWER * 4)
    for sequence in (0, 1):
        memory.read(sequence, PROMPT)
    got: list[Logits] = []
    for i, token in enumerate(ANSWER * 4):
        memory.batch.clear()
        rows = [memory.batch.add(s, LONG + i, [token, *OTHER[:8]], outputs=9) for s in (0, 1)]
        memory.model.decode(memory.batch)
        got.append(memory.model.get_logits(rows[0] - 8).copy())
        for sequence in (0, 1):
            memory.model.truncate_sequence(sequence, LONG + i + 1)
    assert same(got, expected, OTHER_SHAPES)


def test_scratch_must_exist(attention: LoadedModel) -> None:
    for scratch in (-1, attention.scratch + 1):
        with pytest.raises(ValueError, match="no sequence"):
            SequenceState(attention.context, attention.handle, scratch)


def test_memories_of_their_own_kind_are_left_alone(
    attention: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_UNTRIED", {"llama"})
    assert SequenceState(attention.context, attention.handle, attention.scratch).reuse == "never"


def test_claims_that_do_not_hold_are_given_up(attention: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = SequenceState._copy

    def copy_everything(states: SequenceState, source: int, target: int, start: int, end: int) -> None:
        copy(states, source, target, *((start, -1) if states.reuse == "anywhere" else (start, end)))

    def restore_nothing(*_: object) -> bool:
        return True

    with monkeypatch.context() as cannot_be_cut:
        cannot_be_cut.setattr(SequenceState, "_copy", copy_everything)
        memory = Memory(attention)
    assert memory.states.reuse == "snapshots"
    test_blocks_come_back_beside_running_sequences(memory)
    test_sharing_while_the_source_goes_on(memory)
    monkeypatch.setattr(SequenceState, "restore", restore_nothing)
    memory.clear()
    assert Memory(attention).states.reuse == "never"


def test_the_starter_model() -> None:
    model = load(starter_path())
    memory = Memory(model)
    assert memory.states.reuse == "anywhere"
    prompt, answer = PROMPT[:100], ANSWER[:3]
    expected = memory.cold(prompt[:90], answer)
    memory.read(0, prompt)
    blocks, snapshot = memory.save(0, 100)
    memory.model.clear_sequence(0)
    memory.restore(1, [blocks[0], (BLOCK, 90, blocks[1][2])], snapshot)
    # The tokens were read in batches of other sizes: 100 in two, and 90.
    assert same(memory.go_on(90, {1: answer})[1], expected, OTHER_SHAPES)
    model.close()
