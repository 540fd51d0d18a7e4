"""Packs rows into sequences of tokens, in an order that the seed and the step alone determine."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from commonweight.workshop.training.dataset import Row, read_rows
from commonweight.workshop.training.settings import DOCUMENT_END, TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Tokens = npt.NDArray[np.uint32]


class PackedRows:
    """Tokens of all rows, each row behind the token that ends documents; an endless stream of them, by epochs.

    Any batch is computed from its number, so that a resumed run needs no position but the step.
    """

    def __init__(self, data: Path, split: str, tokenizer: "PreTrainedTokenizerFast", seed: int) -> None:
        self.row_ids: list[str] = []
        self.text_bytes = 0
        pieces: list[Tokens] = []
        end = tokenizer.convert_tokens_to_ids(DOCUMENT_END)
        for row in read_rows(data, split):
            ids, size = encode_row(row, tokenizer)
            self.row_ids.append(row.row_id)
            self.text_bytes += size
            pieces.append(np.array([end, *ids], dtype=np.uint32))
        if not pieces:
            raise TrainingError(f"the dataset has no {split} rows of text or messages")
        self.tokens = np.concatenate(pieces)
        self.ends = np.cumsum([len(piece) for piece in pieces])
        self.seed = seed
        self._epoch = -1

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, start: int, count: int) -> tuple[Tokens, list[str]]:
        """Tokens of the endless stream from a position, and the ids of the rows they come from, in order."""
        parts, ids = [], []
        while count:
            epoch, offset = divmod(start, len(self.tokens))
            self._shuffle(epoch)
            at = int(np.searchsorted(self._order_ends, offset, side="right"))
            row = int(self._order[at])
            left = int(self._order_ends[at]) - offset
            end = int(self.ends[row])
            part = self.tokens[end - left : min(end, end - left + count)]
            parts.append(part)
            ids.append(self.row_ids[row])
            start += len(part)
            count -= len(part)
        return np.concatenate(parts), ids

    def _shuffle(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.row_ids))
            lengths = np.diff(self.ends, prepend=0)
            self._order_ends = np.cumsum(lengths[self._order])
            self._epoch = epoch


def encode_row(row: Row, tokenizer: "PreTrainedTokenizerFast") -> tuple[list[int], int]:
    """Tokens of a row, and the bytes of its text. A text that spells a control token is text all the same."""
    if row.messages is None:
        text = row.text or ""
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True), len(text.encode())
    text = tokenizer.apply_chat_template(row.messages, tokenize=False)
    return tokenizer.encode(text, add_special_tokens=False), len(text.encode())


def count_token_bytes(tokenizer: "PreTrainedTokenizerFast", vocab_size: int) -> npt.NDArray[np.int64]:
    """Bytes of text that each token stands for: none for control tokens."""
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(range(min(vocab_size, len(tokenizer)))))
    sizes = [0 if i in special else len(token) for i, token in enumerate(tokens)]  # a character for each byte
    return np.array(sizes + [0] * (vocab_size - len(sizes)), dtype=np.int64)


def digest_rows(row_ids: list[str]) -> str:
    """Digest of the ids of a batch's rows, in their order."""
    return hashlib.sha256("\n".join(row_ids).encode()).hexdigest()[:16]
