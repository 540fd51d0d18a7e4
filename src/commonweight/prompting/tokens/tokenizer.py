"""llama.cpp's tokenizer of a model: ordinary text without special tokens, and special tokens by their text."""

import ctypes
import itertools
import re
from functools import cached_property

from commonweight.catalog.gguf import Gguf
from commonweight.llamacpp import api as llama
from commonweight.llamacpp.buffers import read_piece
from commonweight.llamacpp.structs import (
    LLAMA_TOKEN_ATTR_CONTROL,
    LLAMA_TOKEN_ATTR_LSTRIP,
    LLAMA_TOKEN_ATTR_RSTRIP,
    LLAMA_TOKEN_ATTR_UNKNOWN,
    LLAMA_TOKEN_ATTR_USER_DEFINED,
    LLAMA_TOKEN_NULL,
    LLAMA_VOCAB_TYPE_BPE,
    LLAMA_VOCAB_TYPE_SPM,
)
from commonweight.prompting.tokens.splitting import TextSplitter

# Pre-tokenizers that llama.cpp implements in code. The others are regular expressions: see splitting.py.
_WITHOUT_REGEX = frozenset(
    {
        *("gpt-2", "llama-bpe", "llama3", "llama-v3", "qwen2", "qwen35", "smollm", "gemma4", "kimi-k2", "lfm2"),
        *("glm4", "chatglm-bpe", "command-r", "starcoder", "refact", "codeshell", "hunyuan", "exaone", "exaone4"),
        *("olmo", "dbrx", "stablelm2", "falcon3", "falcon-h1", "pixtral", "phi-2", "mpt", "smaug-bpe", "megrez"),
        *("deepseek-r1-qwen", "modern-bert", "grok-2", "midm-2.0"),
    }
)

_SPECIAL = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN


class Tokenizer:
    """Tokenizer of an open GGUF. Safe to use from several threads; it lives as long as the file is open."""

    def __init__(self, gguf: Gguf) -> None:
        self._vocab = gguf.vocab
        self.size: int = llama.llama_vocab_n_tokens(self._vocab)
        self.bos_id: int | None = _or_none(llama.llama_vocab_bos(self._vocab))
        self.eos_id: int | None = _or_none(llama.llama_vocab_eos(self._vocab))
        self.adds_bos: bool = llama.llama_vocab_get_add_bos(self._vocab)
        self._pieces: dict[int, bytes] = {}
        self.marks_word_starts: bool = (
            llama.llama_vocab_type(self._vocab) == LLAMA_VOCAB_TYPE_SPM
            and gguf.metadata.get("tokenizer.ggml.add_space_prefix") != "false"
        )
        """Whether the tokenizer puts a space in front of every text (SentencePiece)."""
        self._has_regex: bool = (
            llama.llama_vocab_type(self._vocab) == LLAMA_VOCAB_TYPE_BPE
            and gguf.metadata.get("tokenizer.ggml.pre") not in _WITHOUT_REGEX
        )

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Control tokens, and the user-defined ones that read like markup, by their text.

        User-defined tokens such as runs of spaces or HTML tags are ordinary text to a model; those like
        ``<think>`` or ``<|tool|>`` have structure of their own.
        """
        tokens = {}
        for token_id in range(self.size):
            attributes = self._attributes(token_id)
            text = self.get_token_text(token_id)
            if text and (
                attributes & _SPECIAL or (attributes & LLAMA_TOKEN_ATTR_USER_DEFINED and not _is_plain(text))
            ):
                tokens[text] = token_id
        return tokens

    @cached_property
    def _splitter(self) -> TextSplitter:
        ids = [i for i in range(self.size) if self._attributes(i) & LLAMA_TOKEN_ATTR_USER_DEFINED]
        strips = any(any(self.strips(token_id)) for token_id in ids)
        letters = None
        if llama.llama_vocab_type(self._vocab) == LLAMA_VOCAB_TYPE_SPM:
            # Spaces are written as another character in the vocabulary.
            letters = {" ", *itertools.chain.from_iterable(map(self.get_token_text, range(self.size)))}
        return TextSplitter(
            map(self.get_token_text, ids), strips=strips, has_regex=self._has_regex, letters=letters
        )

    def strips(self, token_id: int) -> tuple[bool, bool]:
        """Whether a special token swallows the space before it, and after it."""
        attributes = self._attributes(token_id)
        return bool(attributes & LLAMA_TOKEN_ATTR_LSTRIP), bool(attributes & LLAMA_TOKEN_ATTR_RSTRIP)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a turn."""
        return frozenset(i for i in range(self.size) if llama.llama_vocab_is_eog(self._vocab, i))

    @cached_property
    def max_token_bytes(self) -> int:
        """Bytes of the longest token."""
        return max(len(self.decode(token_id)) for token_id in range(self.size))

    def get_token_text(self, token_id: int) -> str:
        """The token's text in the vocabulary (``<|im_end|>``), not what it decodes to."""
        text: bytes = llama.llama_vocab_get_text(self._vocab, token_id)
        return text.decode(errors="replace")

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Token ids of ordinary text, in which no control token is recognized.

        ``continues``: the text follows other text, so that the tokenizer puts no space in front.

        Raises:
            DenseTextError: the text would take minutes.
        """
        ids: list[int] = []
        for i, piece in enumerate(self._splitter.split(text)):
            if self.marks_word_starts and (continues or i > 0):
                # NUL is in no token with other characters, so its tokens can be cut off again.
                ids += self._encode("\0" + piece)[len(self._encode("\0")) :]
            else:
                ids += self._encode(piece)
        return ids

    def _encode(self, text: str) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        while True:
            buffer = (ctypes.c_int32 * room)()
            count = llama.llama_tokenize(self._vocab, data, len(data), buffer, room, False, False)
            if count >= 0:
                return list(buffer[:count])
            room = -count

    def decode(self, token_id: int) -> bytes:
        """The bytes of a token, which may end inside a character; none for control tokens."""
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = read_piece(self._vocab, token_id, special=False)
        return piece

    def _attributes(self, token_id: int) -> int:
        attributes: int = llama.llama_vocab_get_attr(self._vocab, token_id)
        return attributes


# Tags in vocabularies with HTML (for example Gemma's).
_HTML_TAG = re.compile(
    r"</?(a|b|blockquote|br|caption|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|s|span|strong|sub|sup"
    r"|table|tbody|td|tfoot|th|thead|tr|u|ul)>"
)


def _is_plain(text: str) -> bool:
    """Whether a user-defined token is text that people write, not structure."""
    return not text.startswith(("<", "[")) or _HTML_TAG.fullmatch(text) is not None


def _or_none(token_id: int) -> int | None:
    return None if token_id == LLAMA_TOKEN_NULL else token_id
