"""Grammars that hold an answer to a form, token by token.

Nothing is masked in advance: a token is drawn freely first, and only if the grammar refuses it is another drawn
from those it allows. What comes out is distributed as if all had been masked (a refused draw is repeated with its
own chance), and free text costs a microsecond a token.

Source: https://github.com/guidance-ai/llguidance
"""

from collections import OrderedDict
from functools import cached_property

import llama_cpp.llama_cpp as llama
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab

MOST_KEPT = 64
"""Compiled grammars: an agent sends the same one every turn."""


class GrammarError(ValueError):
    """This grammar cannot be followed; the message says why."""


class Guide:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, size: int, ends: frozenset[int]) -> None:
        self._matcher = matcher
        self._size = size
        self._ends = ends

    def take(self, token_id: int) -> bool:
        """Go on with a token that was drawn; False, and nothing changes, if the grammar does not allow it."""
        if token_id in self._ends:  # the matcher takes none where nothing else may follow
            return bool(self._matcher.is_accepting())
        return self._matcher.try_consume_tokens([token_id]) == 1

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, by their ids.

        Raises:
            GrammarError: the grammar is at its end, or too complex to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._size].view(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            raise GrammarError(self._matcher.get_error() or "no token may follow")
        return allowed

    def forced(self) -> list[int]:
        """The tokens that must come next, as far as there is no choice."""
        return list(self._matcher.compute_ff_tokens())

    def checked(self, draft: list[int]) -> list[int]:
        """The guesses up to the first that the grammar does not allow."""
        return draft[: self._matcher.validate_tokens(draft)] if draft else draft


class Grammars:
    """Compiles grammars for one vocabulary."""

    def __init__(self, vocab: llama.llama_vocab_p) -> None:
        self._vocab = vocab
        self._size: int = llama.llama_vocab_n_tokens(vocab)
        self._ends = frozenset(i for i in range(self._size) if llama.llama_vocab_is_eog(vocab, i))
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    @cached_property
    def tokenizer(self) -> LLTokenizer:
        """The vocabulary as grammars see it. Takes a good part of a second to make."""
        return lltokenizer_from_vocab(self._vocab, eos_token=sorted(self._ends))

    def guide(self, grammar: str) -> Guide:
        """A guide at the beginning of a grammar.

        Raises:
            GrammarError: it is no grammar, or a too large one.
        """
        matcher = self._compiled.get(grammar)
        if matcher is None:
            matcher = LLMatcher(self.tokenizer, grammar)
            if matcher.is_error():
                raise GrammarError(f"the grammar cannot be followed: {matcher.get_error()}")
            self._compiled[grammar] = matcher
            if len(self._compiled) > MOST_KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(grammar)
        return Guide(matcher.deep_copy(), self._size, self._ends)
