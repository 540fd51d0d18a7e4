"""What any way of computing must come close to: one cold pass."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from commonweight.engines.contract import Probe
from commonweight.engines.llama.model.native import LlamaBatch, LoadedModel
from commonweight.engines.llama.model.probes import LayerTaps

Floats = npt.NDArray[np.floating[Any]]


class Reference:
    """Reads tokens in a context of its own."""

    def __init__(self, path: Path, longest: int, probe: Probe | None = None) -> None:
        self._model = LoadedModel(path, cells=longest, sequences=1, batch_rows=64, outputs=64, threads=1)
        self._longest = longest
        self._probe = probe
        self._taps = LayerTaps(self._model.context)
        if probe:
            self._taps.select_layers(probe.layers)

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def read(self, tokens: list[int], start: int) -> tuple[Floats, Floats]:
        """Log-probabilities behind each token from ``start`` on, and the probe's scores of all."""
        assert len(tokens) <= self._longest
        batch = LlamaBatch(64)
        logprobs: list[Floats] = []
        scores: list[Floats] = []
        for begin in range(0, len(tokens), batch.capacity):
            piece = tokens[begin : begin + batch.capacity]
            outputs = min(max(begin + len(piece) - start, 0), len(piece))
            batch.clear()
            last = batch.add(0, begin, piece, outputs=outputs)
            self._model.decode(batch)
            if self._probe:
                scores.append(self._taps.compute_scores(self._probe, slice(0, len(piece))))
            for row in range(last + 1 - outputs, last + 1):
                logits = self._model.get_logits(row).astype(np.float64)
                logits -= logits.max()
                logprobs.append(logits - np.log(np.exp(logits).sum()))
        self._model.clear_sequence(0)
        return np.stack(logprobs), np.concatenate(scores) if scores else np.zeros((len(tokens), 0))


def random_probe(layers: list[int], width: int, version: str = "random", seed: int = 0) -> Probe:
    """Three heads of random weights."""
    weights = np.random.default_rng(seed).normal(size=(len(layers), width, 3)).astype("<f4")
    return Probe(version=version, layers=layers, heads=3, weights=weights.tobytes())
