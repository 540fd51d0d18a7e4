"""Save, restore and share ranges of a sequence's KV cells and recurrent state in llama.cpp.

A memory has up to two parts. Attention keeps a cell for every position: ranges of them can be saved apart and
put together again. Cells of a sliding window and recurrent state belong to one position only (llama.cpp calls
them partial state) and can't be cut: they are kept as a *snapshot* taken at that position.
"""

import ctypes
from typing import Literal

import numpy as np
import numpy.typing as npt

from commonweight.engines.llama.model.native import LlamaBatch, read_floats
from commonweight.llamacpp import api as llama
from commonweight.llamacpp.log import take_errors
from commonweight.llamacpp.structs import LLAMA_STATE_SEQ_FLAGS_NONE, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY

Reuse = Literal["anywhere", "snapshots", "never"]
"""Where a reused prefix may end: after any token, only at a snapshot, or no reuse at all."""

BytesLike = bytes | bytearray | memoryview | npt.NDArray[np.uint8]

_WHOLE, _PARTIAL = LLAMA_STATE_SEQ_FLAGS_NONE, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
_HEADER = 8
"""Bytes in front of every state that llama.cpp writes: a magic number and the sequence it came from."""
_TOLERANCE = 0.02
"""Allowed difference of logits, in their standard deviations: cells lie elsewhere, so sums round differently."""

# Special memories: indexers, compressed or mirrored caches, cells of another model. A handful of tokens does not
# exercise what is special about them, so passing the self-test would prove nothing.
_UNTRIED = {
    *("deepseek32", "deepseek4", "dflash", "dots3note", "gemma4-assistant"),
    *("glm-dsa", "glm5-next", "hy_v4", "minimax-m3", "qwen4exp"),
}


class SequenceState:
    """Saves, restores and shares the state of sequences. ``reuse`` is what this model allows.

    The context needs a unified cache. ``scratch`` is an otherwise unused sequence id below its ``n_seq_max``;
    it is empty between calls. Constructing tries the model with at most 12 rows, and leaves the memory empty.
    Where reuse is ``"never"``, nothing else may be called.

    Raises:
        ValueError: there is no such sequence id as ``scratch``.
        RuntimeError: llama.cpp cannot compute with this context.
    """

    def __init__(self, context: int, model: int, scratch: int) -> None:
        if not 0 <= scratch < llama.llama_n_seq_max(context):
            raise ValueError(f"the context has no sequence {scratch}")
        self._context = context
        self._memory = llama.llama_get_memory(context)
        self._scratch = scratch
        self.reuse: Reuse = "never"
        self._empty_partial = np.empty(0, np.uint8)
        if self._memory and (claims := _list_reuse_candidates(model)):
            self._empty_partial = self._read(scratch, _PARTIAL)
            self._self_test(claims, llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)))

    def save_attention(self, sequence: int, start: int, end: int) -> npt.NDArray[np.uint8]:
        """Serialise the attention cells of positions ``[start, end)``, all of which ``sequence`` must hold.

        Raises:
            RuntimeError: llama.cpp could not write them.
        """
        self._copy(sequence, self._scratch, start, end)
        try:
            if self.reuse == "anywhere":
                return self._read(self._scratch, _WHOLE)
            # A recurrent state came along, megabytes that are not wanted: this lets go of it. Cells of a window
            # stay, and are cut off below.
            self._write(self._scratch, self._empty_partial, _PARTIAL)
            cells = self._read(self._scratch, _WHOLE)
            window = llama.llama_state_seq_get_size_ext(self._context, self._scratch, _PARTIAL)
        finally:
            self._remove(self._scratch)
        kept = len(cells) - (window - _HEADER)
        cells.resize(kept + len(self._empty_partial) - _HEADER, refcheck=False)
        cells[kept:] = self._empty_partial[_HEADER:]
        return cells

    def save_partial(self, sequence: int) -> npt.NDArray[np.uint8]:
        """Serialise the partial state, at the position behind the last computed one. For ``"snapshots"`` only.

        Raises:
            RuntimeError: llama.cpp could not write it.
        """
        return self._read(sequence, _PARTIAL)

    def restore(
        self, sequence: int, start: int, end: int, cells: BytesLike, snapshot: BytesLike | None = None
    ) -> bool:
        """Append saved cells ``[start, end)`` to ``sequence``, which holds ``[0, start)``.

        ``cells`` may hold more positions than that. Where reuse is ``"snapshots"``, the last block comes with the
        snapshot taken at ``end``; until then ``sequence`` can't be computed on.

        Returns:
            False if the memory has no room for all of ``cells`` and ``snapshot``, or they are broken in a way that
            llama.cpp notices; nothing has changed then. It trusts most bytes: check them before.
        """
        try:
            if not self._write(self._scratch, cells, _WHOLE):
                return False
            if snapshot is None:
                self._copy(self._scratch, sequence, start, end)
                return True
            self._remove(self._scratch, 0, start)
            self._remove(self._scratch, end)
            return self._write_partial(sequence, start, snapshot)
        finally:
            self._remove(self._scratch)

    def share(self, source: int, target: int, start: int, end: int) -> bool:
        """Append the cells ``[start, end)`` of ``source`` to ``target``, which holds ``[0, start)``.

        Attention cells are shared by reference. Partial state is copied: llama.cpp does not take back cells of
        a window that two sequences share, even when it has moved on for both.

        Returns:
            False if there is no room for the snapshot; nothing has changed then.

        Raises:
            ValueError: reuse is ``"snapshots"`` and ``source`` does not end at ``end``.
        """
        if self.reuse == "anywhere":
            self._copy(source, target, start, end)
            return True
        if llama.llama_memory_seq_pos_max(self._memory, source) + 1 != end:
            raise ValueError(f"sequence {source} does not end at {end}")
        try:
            self._copy(source, self._scratch, start, end)
            return self._write_partial(target, start, self.save_partial(source))
        finally:
            self._remove(self._scratch)

    def _write_partial(self, sequence: int, start: int, snapshot: BytesLike) -> bool:
        """Write the scratch sequence's cells behind ``[0, start)`` of ``sequence``, then the partial state."""
        # Put together in the scratch sequence, so that nothing is lost if there is no room for the snapshot.
        if start:
            self._copy(sequence, self._scratch, 0, start)
        if not self._write(self._scratch, snapshot, _PARTIAL):
            return False
        self._remove(sequence)
        self._copy(self._scratch, sequence, 0, -1)
        return True

    def _read(self, sequence: int, flags: int) -> npt.NDArray[np.uint8]:
        size = llama.llama_state_seq_get_size_ext(self._context, sequence, flags)
        data = np.empty(size, np.uint8)
        written = llama.llama_state_seq_get_data_ext(self._context, _get_pointer(data), size, sequence, flags)
        if not 0 < written == size:
            raise RuntimeError(f"llama.cpp could not save a sequence: {take_errors() or 'no reason given'}")
        return data

    def _write(self, sequence: int, data: BytesLike, flags: int) -> bool:
        """Replace what ``sequence`` holds, or with ``_PARTIAL`` only that part; False leaves it undefined."""
        array = np.frombuffer(data, np.uint8)
        read: int = llama.llama_state_seq_set_data_ext(
            self._context, _get_pointer(array), len(array), sequence, flags
        )
        if 0 < read == len(array):
            return True
        take_errors()  # reported by the return value; the next failure has messages of its own
        return False

    def _copy(self, source: int, target: int, start: int, end: int) -> None:
        llama.llama_memory_seq_cp(self._memory, source, target, start, end)

    def _remove(self, sequence: int, start: int = -1, end: int = -1) -> None:
        llama.llama_memory_seq_rm(self._memory, sequence, start, end)

    def _self_test(self, claims: tuple[Reuse, ...], vocabulary: int) -> None:
        """Set ``reuse`` to the best kind that reproduces the cold logits on this model."""
        trial = _SelfTest(self._context, 1 if self._scratch == 0 else 0, vocabulary)
        expected = trial.compute_cold()
        for self.reuse in claims:
            try:
                difference = np.abs(trial.compute_restored(self) - expected).max()
            except RuntimeError:
                take_errors()
            else:
                if difference <= _TOLERANCE * expected.std():
                    break
        else:
            self.reuse = "never"
        trial.clear()


def _list_reuse_candidates(model: int) -> tuple[Reuse, ...]:
    """List the kinds of reuse to test, the best first; empty where a self-test of a few tokens cannot tell."""
    name = ctypes.create_string_buffer(64)
    llama.llama_model_meta_val_str(model, b"general.architecture", name, len(name))
    if name.value.decode() in _UNTRIED or llama.llama_model_has_encoder(model):
        return ()
    has_state = llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model)
    if has_state or llama.llama_model_n_swa(model):
        return ("snapshots",)
    return ("anywhere", "snapshots")


class _SelfTest:
    """Compares logits of three tokens computed cold with those after the first two were restored.

    Raises:
        RuntimeError: llama.cpp could not compute, save or restore them.
    """

    def __init__(self, context: int, sequence: int, vocabulary: int) -> None:
        self._context = context
        self._sequence = sequence
        self._vocabulary = vocabulary
        self._batch = LlamaBatch(2)
        self._tokens = [vocabulary * i // 6 for i in range(1, 6)]

    def clear(self) -> None:
        """Empty the memory."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), False)

    def compute_cold(self) -> npt.NDArray[np.float32]:
        """Compute the logits after the third token. Three rows."""
        first, second, third, *_ = self._tokens
        self._compute(0, first, second)
        return self._compute(2, third)

    def compute_restored(self, states: SequenceState) -> npt.NDArray[np.float32]:
        """Compute them with two tokens restored after the sequence continued with others. At most five rows."""
        first, second, third, *others = self._tokens
        self.clear()
        self._compute(0, first, second)
        snapshot = None
        if states.reuse == "anywhere":
            self._compute(2, *others)
            # This block is cut when it is restored.
            blocks = states.save_attention(self._sequence, 0, 1), states.save_attention(self._sequence, 1, 4)
        else:
            snapshot = states.save_partial(self._sequence)
            blocks = states.save_attention(self._sequence, 0, 1), states.save_attention(self._sequence, 1, 2)
            self._compute(2, others[0])
        self.clear()
        if not (
            states.restore(self._sequence, 0, 1, blocks[0])
            and states.restore(self._sequence, 1, 2, blocks[1], snapshot)
        ):
            raise RuntimeError("llama.cpp does not restore what it saved")
        return self._compute(2, third)

    def _compute(self, position: int, *token_ids: int) -> npt.NDArray[np.float32]:
        """Compute the logits after the last token, shape ``(vocabulary,)``."""
        self._batch.clear()
        row = self._batch.add(self._sequence, position, list(token_ids), outputs=1)
        self._batch.native.n_tokens = self._batch.rows
        if llama.llama_decode(self._context, self._batch.native) != 0:
            raise RuntimeError("llama.cpp cannot compute a few tokens")
        return read_floats(llama.llama_get_logits_ith(self._context, row), self._vocabulary).copy()


def _get_pointer(data: npt.NDArray[np.uint8]) -> "ctypes._Pointer[ctypes.c_uint8]":
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
