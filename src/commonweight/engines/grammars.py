"""Constrained decoding with llguidance: compile a grammar, and follow it token by token.

Nothing is masked in advance: a token is drawn freely first, and only if the grammar refuses it is another drawn
from those it allows. What comes out is distributed as if all had been masked (a refused draw is repeated with its
own chance), and free text costs microseconds a token. Where top_k, top_p or min_p cut candidates, the first draw
cuts among all tokens and only the second among those allowed, as llama.cpp's own sampling does.

Forced tokens (no alternative is allowed) are not drawn at all: they are known before they are computed, and go
into one batch.

Source: https://github.com/guidance-ai/llguidance
"""

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from commonweight.llamacpp import api as llama
from commonweight.llamacpp.buffers import read_piece
from commonweight.llamacpp.structs import LLAMA_TOKEN_ATTR_CONTROL, LLAMA_TOKEN_ATTR_USER_DEFINED

TokenIds = npt.NDArray[np.intp]
"""Tokens of the vocabulary, ascending."""
MAX_COMPILED_GRAMMARS = 64
"""Compiled grammars: an agent sends the same one every turn."""


class GrammarError(ValueError):
    """A grammar cannot be compiled or followed; the message says why."""


class GrammarCompileError(GrammarError):
    """A grammar is invalid or too large; nothing has begun."""


class GrammarMatcher:
    """Matcher state of one answer within its grammar."""

    def __init__(self, matcher: LLMatcher, size: int, ends: frozenset[int]) -> None:
        self._matcher = matcher
        self._size = size
        self._ends = ends
        self.forced = self._find_forced_tokens()
        """Forced tokens: those that must come next, up to and including a stop token."""

    def sample_token(self, draw: Callable[[TokenIds | None], int]) -> int:
        """Advance by one token and return it: a forced one, or one from ``draw``.

        ``draw`` draws from all tokens, or from those it is given. Which tokens are forced, and so how often it is
        called, depends on the tokens before alone, not on how many of them were computed at once.

        Raises:
            GrammarError: no token may follow, or the grammar is too complex to follow.
        """
        token = self.forced[0] if self.forced else draw(None)
        if not self.accept_token(token):
            allowed = self.compute_allowed_tokens()
            if self.forced or not self.accept_token(token := draw(allowed)):
                raise self._make_dead_end_error()
        return token

    def validate_tokens(self, draft: list[int]) -> list[int]:
        """The draft tokens before the first that the grammar does not allow."""
        return draft[: self._matcher.validate_tokens(draft)]

    def accept_token(self, token_id: int) -> bool:
        """Advance by a token; returns False, and changes nothing, if the grammar does not allow it."""
        if not self._matcher.try_consume_tokens([token_id]) and not (
            token_id in self._ends and self._matcher.is_accepting()
        ):
            return False
        is_next = self.forced[:1] == [token_id]
        self.forced = (self.forced[1:] if is_next else []) or self._find_forced_tokens()
        return True

    def compute_allowed_tokens(self) -> TokenIds:
        """The tokens that the grammar allows next.

        Raises:
            GrammarError: it allows none.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        if self._matcher.is_accepting():
            allowed[list(self._ends)] = True
        if not (found := np.flatnonzero(allowed)).size:
            raise self._make_dead_end_error()
        return found

    def _make_dead_end_error(self) -> GrammarError:
        reason = self._matcher.get_error().partition("\n")[0] or "nowhere to go"
        return GrammarError(f"no token may follow ({reason})")

    def _find_forced_tokens(self) -> list[int]:
        forced = self.validate_tokens(self._matcher.compute_ff_tokens())
        end = next((i for i, token in enumerate(forced, 1) if token in self._ends), None)
        return forced[:end]


class GrammarCompiler:
    """Compiles grammars for one vocabulary, with an LRU cache."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self.size: int = llama.llama_vocab_n_tokens(vocab)
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()

    @cached_property
    def tokenizer(self) -> LLTokenizer:
        """The vocabulary in llguidance's form. Takes a good part of a second to build."""
        tokens = [self._read_token(token_id) for token_id in range(self.size)]
        # A token id that no model has stands for the end. The job's stop_ids end an answer, and the model's own
        # end tokens may occur within a grammar: llguidance would reserve those that it knows.
        tokenizer: LLTokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]  # not in its stub
            tokens=[*tokens, b""],
            vocab_ptr=self._vocab,
            tokenize_fptr=ctypes.cast(_TOKENIZE, ctypes.c_void_p).value,
            eos_token=self.size,
        )
        return tokenizer

    def _read_token(self, token_id: int) -> bytes:
        """The bytes of a token; those of a special one behind a byte that marks it for llguidance."""
        markup = _read_markup(self._vocab, token_id)
        return read_piece(self._vocab, token_id, special=True) if markup is None else b"\xff" + markup

    def create_matcher(self, grammar: str, ends: frozenset[int], tenant: str) -> GrammarMatcher:
        """Create a matcher at a grammar's start; the stop tokens ``ends`` are allowed where the grammar may end.

        Raises:
            GrammarCompileError: the grammar is invalid or too large.
            GrammarError: there are no ends.
        """
        if not ends:
            raise GrammarError("an answer that is held to a grammar needs stop tokens, or it could not end")
        # By tenant: the time that a call takes shows whether a grammar is compiled already.
        matcher = self._compiled.pop((tenant, grammar), None) or self._compile(grammar)
        self._compiled[tenant, grammar] = matcher
        if len(self._compiled) > MAX_COMPILED_GRAMMARS:
            self._compiled.popitem(last=False)
        return GrammarMatcher(matcher.deep_copy(), self.size, ends)

    def _compile(self, grammar: str) -> LLMatcher:
        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self.tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise GrammarCompileError(f"the grammar cannot be followed: {matcher.get_error().strip()}")
        return matcher


def _read_markup(vocab: int, token_id: int) -> bytes | None:
    """The text of a special token; None for a token that text may consist of."""
    attributes = llama.llama_vocab_get_attr(vocab, token_id)
    if not attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED):
        return None
    token = read_piece(vocab, token_id, special=True)
    is_markup = attributes & LLAMA_TOKEN_ATTR_CONTROL or (token.startswith(b"<") and token.endswith(b">"))
    return token if is_markup else None


def _tokenize_literal(
    vocab: int,
    text: int,
    length: int,
    tokens: "ctypes._Pointer[ctypes.c_int32]",
    room: int,
    _adds_special: bool,
    _parses_special: bool,
) -> int:
    """``llama_tokenize`` for the literals of grammars, in which a special token's text is ordinary text.

    llama.cpp finds user-defined tokens (``<think>``) in any text. As forced tokens they would lead nowhere: the
    grammar allows special tokens by their ids alone.
    """
    ids: list[int] = []
    for token_id in _encode(vocab, ctypes.string_at(text, length)):
        markup = _read_markup(vocab, token_id)
        ids += [token_id] if markup is None else _spell(vocab, markup)
    if len(ids) > room:
        return -len(ids)
    for i, token_id in enumerate(ids):
        tokens[i] = token_id
    return len(ids)


# It has no state of its own, because llguidance may call it for as long as any grammar is in use.
_TOKENIZE = ctypes.CFUNCTYPE(
    *(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32),
    *(ctypes.POINTER(ctypes.c_int32), ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
)(_tokenize_literal)


def _spell(vocab: int, markup: bytes) -> list[int]:
    """Ordinary tokens for a special token's text: cut in two, it is neither that token nor another."""
    # A tokenizer that puts a space in front of every text puts it before NUL, which is in no token with others.
    before = len(_encode(vocab, b"\0"))
    return [token_id for part in (markup[:1], markup[1:]) for token_id in _encode(vocab, b"\0" + part)[before:]]


def _encode(vocab: int, text: bytes) -> list[int]:
    room = len(text) + 8  # each token has a byte of its own, and there may be some in front
    buffer = (ctypes.c_int32 * room)()
    count = llama.llama_tokenize(vocab, text, len(text), buffer, room, False, False)
    return list(buffer[:count])
