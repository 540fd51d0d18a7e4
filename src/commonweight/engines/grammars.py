"""Grammars that hold an answer to a form, token by token.

Nothing is masked in advance: a token is drawn freely first, and only if the grammar refuses it is another drawn
from those it allows. What comes out is distributed as if all had been masked (a refused draw is repeated with its
own chance), and free text costs microseconds a token. Where top_k, top_p or min_p cut candidates, the first draw
cuts among all tokens and only the second among those allowed, as llama.cpp's own sampling does.

What has to come next is not drawn at all: those tokens are known before they are computed, and go into one batch.

Source: https://github.com/guidance-ai/llguidance
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property

import llama_cpp.llama_cpp as llama
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab

TokenIds = npt.NDArray[np.intp]
"""Tokens of the vocabulary, ascending."""
MAX_COMPILED_GRAMMARS = 64
"""Compiled grammars: an agent sends the same one every turn."""


class GrammarError(ValueError):
    """This grammar cannot be followed; the message says why."""


class Guide:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, size: int, ends: frozenset[int]) -> None:
        self._matcher = matcher
        self._size = size
        self._ends = ends
        self.forced = self._look_ahead()
        """The tokens that come next, as far as there is no choice; at the latest an end is the last."""

    def choose_token(self, draw: Callable[[TokenIds | None], int]) -> int:
        """Go on with the next token, and return it: one that is forced, or one that is drawn.

        ``draw`` draws from all tokens, or from those it is given. Which tokens are forced, and so how often it is
        called, depends on the tokens before alone, not on how many of them were computed at once.

        Raises:
            GrammarError: no token may follow, or the grammar is too complex to follow.
        """
        token = self.forced[0] if self.forced else draw(None)
        if not self.try_accept(token):
            allowed = self.find_allowed()
            if self.forced or not self.try_accept(token := draw(allowed)):
                raise self._dead_end()
        return token

    def accept_prefix(self, draft: list[int]) -> list[int]:
        """The guesses up to the first that the grammar does not allow."""
        return draft[: self._matcher.validate_tokens(draft)]

    def try_accept(self, token_id: int) -> bool:
        """Go on with a token; False, and nothing changes, if the grammar does not allow it."""
        if not self._matcher.try_consume_tokens([token_id]) and not (
            token_id in self._ends and self._matcher.is_accepting()
        ):
            return False
        is_next = self.forced[:1] == [token_id]
        self.forced = (self.forced[1:] if is_next else []) or self._look_ahead()
        return True

    def find_allowed(self) -> TokenIds:
        """The tokens that may come next.

        Raises:
            GrammarError: there are none.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        if self._matcher.is_accepting():
            allowed[list(self._ends)] = True
        if not (found := np.flatnonzero(allowed)).size:
            raise self._dead_end()
        return found

    def _dead_end(self) -> GrammarError:
        reason = self._matcher.get_error().partition("\n")[0] or "nowhere to go"
        return GrammarError(f"no token may follow ({reason})")

    def _look_ahead(self) -> list[int]:
        forced = self.accept_prefix(self._matcher.compute_ff_tokens())
        end = next((i for i, token in enumerate(forced, 1) if token in self._ends), None)
        return forced[:end]


class GrammarCompiler:
    """Compiles grammars for one vocabulary."""

    def __init__(self, vocab: llama.llama_vocab_p) -> None:
        self._vocab = vocab
        self.size: int = llama.llama_vocab_n_tokens(vocab)
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()

    @cached_property
    def tokenizer(self) -> LLTokenizer:
        """The vocabulary as grammars see it. Takes a good part of a second to make."""
        # A token that no model has stands for the end. Which tokens end an answer is the job's to say, and any of
        # the model's own may have its place within a grammar: llguidance takes none of those it knows as ends.
        return lltokenizer_from_vocab(self._vocab, n_vocab=self.size + 1, eos_token=self.size)

    def start_guide(self, grammar: str, ends: frozenset[int], tenant: str) -> Guide:
        """A guide at the beginning of a grammar; ``ends`` are allowed where it may end, or names them.

        Raises:
            GrammarError: it is no grammar, or a too large one, or there are no ends.
        """
        if not ends:
            raise GrammarError("an answer that is held to a grammar needs stop tokens, or it could not end")
        # By tenant: that a grammar is compiled already can be told from the time it takes.
        matcher = self._compiled.pop((tenant, grammar), None) or self._compile(grammar)
        self._compiled[tenant, grammar] = matcher
        if len(self._compiled) > MAX_COMPILED_GRAMMARS:
            self._compiled.popitem(last=False)
        return Guide(matcher.deep_copy(), self.size, ends)

    def _compile(self, grammar: str) -> LLMatcher:
        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(self.tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise GrammarError(f"the grammar cannot be followed: {matcher.get_error().strip()}")
        return matcher
