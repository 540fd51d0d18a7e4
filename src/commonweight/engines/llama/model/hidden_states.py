"""Hidden states of whole prompts, for compiling heads. Serving needs only scores; see ``probes``."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import llama_cpp.llama_cpp as llama
import numpy as np
import numpy.typing as npt

from commonweight.engines.contract import EngineError
from commonweight.engines.llama.native import Batch, LoadedModel
from commonweight.engines.llama.probes import Taps

Floats = npt.NDArray[np.float32]

ROWS = 384
"""Tokens that are computed at once. More would only make attention walk over more of other prompts' cells."""
SEQUENCES = 48


class NoStatesError(EngineError):
    """The architecture does not show its states."""


class StatesReader:
    """A model of its own, beside any that serves.

    Raises:
        NoStatesError: the model does not show its states.
    """

    def __init__(self, path: Path, window: int, threads: int) -> None:
        self._model = LoadedModel(
            path,
            cells=max(window, ROWS) + ROWS,
            sequences=SEQUENCES,
            batch_rows=ROWS,
            outputs=SEQUENCES,
            threads=threads,
        )
        self._memory = llama.llama_get_memory(self._model.context)
        self._taps = Taps(self._model.context)
        self.layers: int = llama.llama_model_n_layer(self._model.handle)
        self.width: int = llama.llama_model_n_embd(self._model.handle)
        if not self._taps.supported:
            self._model.close()
            raise NoStatesError(f"{path}: this architecture does not show its states")

    def close(self) -> None:
        """Free the weights."""
        self._model.close()

    def read(self, prompts: Sequence[Sequence[int]], layers: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """The number of each prompt and its states, shape ``(tokens, layers, width)``, in any order.

        Of the beginning that all prompts share, states come with none: it is computed once.
        """
        self._taps.select(layers)
        begun = list(prompts[0][: shared(prompts)]) if prompts else []
        batch = Batch(ROWS)
        for at in range(0, len(begun), ROWS):
            batch.clear()
            batch.add(SEQUENCES, at, begun[at : at + ROWS], outputs=1)
            self._model.compute(batch)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        while order:
            together: list[tuple[int, int, int]] = []
            batch.clear()
            while order and len(together) < SEQUENCES:
                rest = list(prompts[order[-1]][len(begun) :])[:ROWS]
                if batch.room < len(rest):
                    break
                sequence, start = len(together), batch.rows
                if begun:
                    llama.llama_memory_seq_cp(self._memory, SEQUENCES, sequence, 0, len(begun))
                batch.add(sequence, len(begun), rest, outputs=1)
                together.append((order.pop(), start, batch.rows))
            self._model.compute(batch)
            for number, start, end in together:
                yield number, self._taps.states(layers, slice(start, end))
            for sequence in range(len(together)):
                self._model.forget(sequence)
        self._model.forget(SEQUENCES)


def shared(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, and have more after."""
    first, shortest = prompts[0], min(map(len, prompts))
    for i in range(shortest - 1):
        if any(prompt[i] != first[i] for prompt in prompts):
            return i
    return shortest - 1
