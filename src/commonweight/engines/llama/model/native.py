"""Thin wrappers of llama.cpp's C API: a model with its KV cache, and a batch."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from commonweight.catalog.header import UnreadableModelError, check_header
from commonweight.engines.llama.model.attention_cost import TILE_ROWS, AttentionCost
from commonweight.engines.settings import EngineSettings, KvType
from commonweight.llamacpp import api as llama
from commonweight.llamacpp.log import take_errors
from commonweight.llamacpp.structs import (
    GGML_TYPE_F16,
    GGML_TYPE_Q8_0,
    LLAMA_FLASH_ATTN_TYPE_ENABLED,
    ContextParams,
    NativeBatch,
    ProgressCallback,
)


class CacheFullError(Exception):
    """The KV cache has too few free cells for a batch."""


class LlamaBatch:
    """``llama_batch`` over NumPy arrays: each row is a token at a position of a sequence, with or without logits.

    ``llama_batch_init`` allocates every row's sequence list apart and is filled cell by cell; here the arrays
    are NumPy's and a chunk of prompt is copied in at once.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows = 0
        self.outputs = 0
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._sequence = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        address, stride = self._sequence.ctypes.data, self._sequence.itemsize
        self._sequence_lists = np.arange(address, address + capacity * stride, stride, dtype=np.uintp)
        self.native = NativeBatch(
            n_tokens=0,
            token=self._token.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            embd=None,
            pos=self._position.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._ones.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._sequence_lists.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    @property
    def room(self) -> int:
        """Rows that still fit."""
        return self.capacity - self.rows

    def clear(self) -> None:
        """Remove all rows."""
        self.rows = self.outputs = 0

    def add(self, sequence: int, position: int, token_ids: list[int], *, outputs: int) -> int:
        """Append tokens of a sequence from ``position`` on, the last ``outputs`` with logits. Returns the last."""
        start, end = self.rows, self.rows + len(token_ids)
        self._token[start:end] = token_ids
        self._position[start:end] = np.arange(position, position + len(token_ids))
        self._sequence[start:end] = sequence
        self._output[start : end - outputs] = 0
        self._output[end - outputs : end] = 1
        self.rows = end
        self.outputs += outputs
        return end - 1


MAX_DRAFT_ROWS = 48
"""Maximum of draft rows in a batch, those of all streams together."""
EXTRA_OUTPUTS = TILE_ROWS
"""Rows of a batch that may have logits beside one a sequence: drafts, or scored tokens of prompts. The latter
come in whole attention tiles: in chunks of 48 rows instead of 64 scoring was seen to take more than three times
as long."""
DEFAULT_SETTINGS = EngineSettings()
KV_TYPES: dict[KvType, int] = {"f16": GGML_TYPE_F16, "q8_0": GGML_TYPE_Q8_0}


def read_floats(address: int, count: int) -> npt.NDArray[np.float32]:
    """A view of floats in memory: several times quicker than ``np.ctypeslib.as_array``."""
    memory = (ctypes.c_char * (4 * count)).from_address(address)
    return np.frombuffer(memory, np.float32)  # type: ignore[call-overload, no-any-return]  # it takes any buffer


def make_context_params(
    *, cells: int, sequences: int, batch_rows: int, outputs: int, threads: int, settings: EngineSettings
) -> ContextParams:
    """Context parameters of a :class:`LoadedModel`, which has a scratch sequence beside ``sequences``."""
    params = llama.llama_context_default_params()
    params.n_ctx = cells
    params.n_batch = batch_rows
    # One micro-batch: a second one could overwrite cells of a window that only (rejected) drafts have passed.
    params.n_ubatch = batch_rows
    params.n_seq_max = sequences + 1
    # Only the last row of a prompt, scored rows of prompts and the rows of running streams have logits.
    params.n_outputs_max = max(outputs, sequences + 1)
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = KV_TYPES[settings.kv_type]
    if settings.kv_type != "f16":
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED  # the only kernel that reads such values
    params.kv_unified = True
    # A sliding window keeps only the cells that it needs; see `kv.sequence_state` for prefix reuse then.
    params.swa_full = False
    return params


class LoadedModel:
    """Weights and one unified KV cache of ``cells`` tokens, shared by up to ``sequences`` sequences.

    One more, ``scratch``, is used to move parts of others. A batch has at most ``outputs`` rows with logits.
    """

    def __init__(
        self,
        path: Path,
        *,
        cells: int,
        sequences: int,
        batch_rows: int,
        outputs: int,
        threads: int,
        settings: EngineSettings = DEFAULT_SETTINGS,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        check_header(path)
        take_errors()

        def progress(fraction: float, _: ctypes.c_void_p) -> bool:
            on_progress(fraction)
            return True

        model_params = llama.llama_model_default_params()
        model_params.progress_callback = ProgressCallback(progress)
        self._model = llama.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise UnreadableModelError(f"llama.cpp cannot load {path}: {take_errors() or 'no reason given'}")
        params = make_context_params(
            cells=cells,
            sequences=sequences,
            batch_rows=batch_rows,
            outputs=outputs,
            threads=threads,
            settings=settings,
        )
        self._context = llama.llama_init_from_model(self._model, params)
        if not self._context:
            raise MemoryError(
                f"llama.cpp cannot set up a context of {cells} tokens for {path}: "
                f"{take_errors() or 'no reason given'}; try a smaller --context"
            )
        self.scratch = sequences
        self.threads = self._threads = threads
        """Most that compute."""
        self._settings = settings
        self._memory = llama.llama_get_memory(self._context)
        self.vocab: int = llama.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = llama.llama_vocab_n_tokens(self.vocab)
        self.cells: int = llama.llama_n_ctx(self._context)

    @property
    def context(self) -> int:
        """llama.cpp's handle, for samplers, taps and states."""
        handle: int = self._context
        return handle

    @property
    def handle(self) -> int:
        """llama.cpp's handle of the weights."""
        handle: int = self._model
        return handle

    @property
    def attention_cost(self) -> AttentionCost | None:
        """Cost of a row, where the CPU attends in tiles; None if a GPU may compute, or cells are quantised."""
        if llama.llama_supports_gpu_offload() or self._settings.kv_type != "f16":
            return None
        width: int = llama.llama_model_n_embd(self._model) * llama.llama_model_n_layer(self._model)
        return AttentionCost(llama.llama_model_n_params(self._model), 2 * width)

    @property
    def is_recurrent(self) -> bool:
        """Whether any layer folds all tokens into one state, so that the last ones cannot be taken back."""
        return bool(llama.llama_model_is_recurrent(self._model) or llama.llama_model_is_hybrid(self._model))

    @property
    def confuses_sequences(self) -> bool:
        """Whether llama.cpp is wrong for several sequences in a batch: seen where recurrent layers meet a
        window."""
        return bool(llama.llama_model_is_hybrid(self._model) and llama.llama_model_n_swa(self._model))

    def decode(self, batch: LlamaBatch) -> None:
        """Run the rows. Afterwards logits can be read by row, until the next call.

        Raises:
            CacheFullError: the cells do not suffice; nothing was computed.
            RuntimeError: llama.cpp failed.
        """
        batch.native.n_tokens = batch.rows
        status = llama.llama_decode(self._context, batch.native)
        if status == 1:
            raise CacheFullError
        if status != 0:
            raise RuntimeError(f"llama_decode failed with {status}: {take_errors() or 'no reason given'}")

    def set_threads(self, threads: int) -> None:
        """Set how many threads compute from now on."""
        if threads != self._threads:
            llama.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads

    def get_logits(self, row: int) -> npt.NDArray[np.float32]:
        """The row's logits, shape ``(vocabulary_size,)``: a view that the next :meth:`decode` overwrites."""
        return read_floats(llama.llama_get_logits_ith(self._context, row), self.vocabulary_size)

    def truncate_sequence(self, sequence: int, start: int) -> None:
        """Free a sequence's cells from position ``start`` on."""
        if not llama.llama_memory_seq_rm(self._memory, sequence, start, -1):
            raise RuntimeError("this model's state cannot be cut")

    def clear_sequence(self, sequence: int) -> None:
        """Free all cells of a sequence."""
        llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        """Free everything."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)
