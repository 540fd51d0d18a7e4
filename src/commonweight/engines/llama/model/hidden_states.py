"""Layer inputs (hidden states) of whole prompts, for training heads. Serving needs only scores; see ``probes``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from commonweight.engines.contract import EngineError
from commonweight.engines.llama.model.native import LlamaBatch, LoadedModel
from commonweight.engines.llama.model.probes import LayerTaps
from commonweight.llamacpp import api as llama

BATCH_ROWS = 384
"""Tokens that are computed at once. More would only make attention walk over more of other prompts' cells."""
MAX_SEQUENCES = 48


class NoHiddenStatesError(EngineError):
    """llama.cpp exposes no layer inputs for this architecture."""


class HiddenStateReader:
    """Loads a model, apart from any that serves, and reads its layer inputs.

    Raises:
        NoHiddenStatesError: llama.cpp exposes no layer inputs for this architecture.
    """

    def __init__(self, path: Path, window: int, threads: int) -> None:
        self._model = LoadedModel(
            path,
            cells=max(window, BATCH_ROWS) + BATCH_ROWS,
            sequences=MAX_SEQUENCES,
            batch_rows=BATCH_ROWS,
            outputs=MAX_SEQUENCES,
            threads=threads,
        )
        self._memory = llama.llama_get_memory(self._model.context)
        self._taps = LayerTaps(self._model.context)
        self.layers: int = llama.llama_model_n_layer(self._model.handle)
        self.width: int = llama.llama_model_n_embd(self._model.handle)
        if not self._taps.supported:
            self._model.close()
            raise NoHiddenStatesError(f"{path}: this architecture does not show its states")

    def close(self) -> None:
        """Free the weights."""
        self._model.close()

    def read(
        self, prompts: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Read the index of each prompt and its states, shape ``(tokens, layers, width)``, in any order.

        States of the prefix that all prompts share are left out: it is computed once.
        """
        self._taps.select_layers(layers)
        begun = list(prompts[0][: count_shared_tokens(prompts)]) if prompts else []
        batch = LlamaBatch(BATCH_ROWS)
        for at in range(0, len(begun), BATCH_ROWS):
            batch.clear()
            batch.add(MAX_SEQUENCES, at, begun[at : at + BATCH_ROWS], outputs=1)
            self._model.decode(batch)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        while order:
            together: list[tuple[int, int, int]] = []
            batch.clear()
            while order and len(together) < MAX_SEQUENCES:
                rest = list(prompts[order[-1]][len(begun) :])[:BATCH_ROWS]
                if batch.room < len(rest):
                    break
                sequence, start = len(together), batch.rows
                if begun:
                    llama.llama_memory_seq_cp(self._memory, MAX_SEQUENCES, sequence, 0, len(begun))
                batch.add(sequence, len(begun), rest, outputs=1)
                together.append((order.pop(), start, batch.rows))
            self._model.decode(batch)
            for number, start, end in together:
                yield number, self._taps.read_states(layers, slice(start, end))
            for sequence in range(len(together)):
                self._model.clear_sequence(sequence)
        self._model.clear_sequence(MAX_SEQUENCES)


def count_shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix that leaves every prompt at least one token."""
    first, shortest = prompts[0], min(map(len, prompts))
    for i in range(shortest - 1):
        if any(prompt[i] != first[i] for prompt in prompts):
            return i
    return shortest - 1
