"""Speculative decoding by prompt lookup: draft tokens from earlier occurrences of the context's last n-gram.

Edits repeat files, answers quote their documents, tool calls repeat paths. The tokens that followed an earlier
occurrence of the context's last few tokens are a draft that costs no model (prompt lookup decoding, Apoorv Saxena
2023). The draft is computed in the same batch as the stream's own row, and tokens are drawn row by row while they
equal it, which leaves the distribution of the output as it was (speculative sampling, Leviathan et al. 2023, Chen
et al. 2023, in the special case of a draft that is certain of itself).

:class:`Lookup` finds draft tokens, :class:`Drafter` decides how many of them are worth their rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

from commonweight.engines.llama.scheduler.step_cost import StepCostModel

MIN_MATCH_TOKENS = 3
"""Tokens of the context's end that must have occurred before."""
MAX_MATCH_TOKENS = 64
"""Tokens by which occurrences are compared; more tell nothing new."""
MAX_CANDIDATES = 32
"""Most recent occurrences that are compared."""

HIT_RATE_DECAY = 0.97
"""Weight of a past draft token relative to the one after it: about the last 30 count."""
COST_MARGIN = 1.2
"""Factor on the estimated cost of drafted rows: doubtful drafts are left out."""
MIN_CHANCE = 0.02
"""Draft tokens less likely than this to be reached and accepted are left out."""


class Lookup:
    """Index of one request's context: earlier occurrences of its last tokens.

    Building costs a fraction of a microsecond a token; a very long prompt may be given in the chunks in which it
    is computed. Occurrences of a trigram are chained, as LZ77 coders do; a match goes on from where it was as long
    as the context follows it, and is searched for again where it does not.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._tokens: list[int] = []
        # By trigram: where its last occurrence went on. By that position: where the occurrence before went on.
        self._latest: dict[tuple[int, ...], int] = {}
        self._earlier = [0] * MIN_MATCH_TOKENS
        self._source = 0
        self._matched = 0
        self.extend(tokens)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Add tokens of the prompt, or generated ones."""
        tokens, latest, earlier = self._tokens, self._latest, self._earlier
        tokens.extend(token_ids)
        # A trigram is entered once its next token is known, so the context's end never finds itself.
        start = len(earlier)
        window = tokens[start - MIN_MATCH_TOKENS :]
        for position, trigram in enumerate(zip(window, window[1:], window[2:-1], strict=False), start):
            earlier.append(latest.get(trigram, 0))
            latest[trigram] = position
        self._follow(token_ids)

    def match(self) -> int:
        """Length of the longest match: tokens at the context's end that also stand before the draft; 0 for no
        draft.

        Of the last :data:`MAX_CANDIDATES` occurrences of the last :data:`MIN_MATCH_TOKENS` tokens the one that
        agrees with the context furthest back, up to :data:`MAX_MATCH_TOKENS` tokens, and of equals the most
        recent.
        """
        if not self._matched:
            self._search()
        return self._matched

    def draft(self, limit: int) -> list[int]:
        """The ``limit`` tokens that followed the matched occurrence; none where nothing matches.

        An occurrence less than ``limit`` tokens ago overlaps what it predicts, and is repeated.
        """
        if not self.match():
            return []
        followed = self._tokens[self._source : self._source + limit]
        return (followed * -(-limit // len(followed)))[:limit] if followed else []

    def _follow(self, token_ids: Sequence[int]) -> None:
        """Keep the match if the new tokens, which are in the context by now, equal its prediction."""
        if self._matched:
            count = len(token_ids)
            if self._tokens[self._source : self._source + count] == list(token_ids):
                self._source += count
                self._matched += count
            else:
                self._matched = 0

    def _search(self) -> None:
        tokens, best = self._tokens, 0
        position = self._latest.get(tuple(tokens[-MIN_MATCH_TOKENS:]), 0)
        for _ in range(MAX_CANDIDATES):
            if not position or best == MAX_MATCH_TOKENS:
                break
            # Whatever is to be better agrees one token further back; most candidates fail here.
            if best < position and tokens[position - 1 - best] == tokens[-1 - best]:
                length = self._agreement(position)
                if length > best:
                    best, self._source = length, position
            position = self._earlier[position]
        self._matched = best

    def _agreement(self, position: int) -> int:
        """How many tokens before ``position`` are those at the context's end; the trigram is known to be."""
        tokens, length = self._tokens, MIN_MATCH_TOKENS
        furthest = min(position, MAX_MATCH_TOKENS)
        while length < furthest and tokens[position - 1 - length] == tokens[-1 - length]:
            length += 1
        return length


class Draft(NamedTuple):
    """Draft tokens, and the expected number of them that will be accepted."""

    token_ids: list[int]
    gain: float


class Drafter:
    """Chooses the draft length of one request at each step, so that speculation never costs speed.

    The acceptance rate is learned from *every* generated token, by comparing it with what the lookup would
    have said, whether or not it was drafted. So text that is not copied costs no rows, and text that turns into
    a copy is noticed at once. Long matches hold more often than short ones and are counted apart.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        # Prior: two draft tokens of each class, rejected half as often as those of the class before.
        self._right = [2.0 - 0.5**group for group in range(_classify_length(MAX_MATCH_TOKENS) + 1)]
        self._guessed = [2.0] * len(self._right)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Learn from generated tokens."""
        for token in token_ids:
            length = self._lookup.match()
            if length:
                self._count(length, self._lookup.draft(1) == [token])
            self._lookup.extend((token,))

    def propose(self, rows: int, progress: float, step_cost: StepCostModel, cap: int) -> Draft:
        """The draft of at most ``cap`` tokens with which the whole batch makes most progress a second.

        ``rows`` are planned so far, this request's own included. ``progress`` is the expected number of useful
        rows among them: all rows of prompts and one of each stream, and the gain of each draft planned before.
        Counting prompts in means that a draft never pays merely because a step is long anyway.
        """
        length = self._lookup.match()
        if not length or cap < 1:
            return Draft([], 0.0)
        base = step_cost.estimate_step_seconds(rows)
        best_rate, best_count, best_gain = progress / base, 0, 0.0
        chance, gain = 1.0, 0.0
        for count in range(1, min(cap, step_cost.max_rows_to_try(rows) - rows) + 1):
            chance *= self._hold_rate(length + count - 1)
            if chance < MIN_CHANCE:
                break
            gain += chance
            rate = (progress + gain) / (
                base + COST_MARGIN * (step_cost.estimate_step_seconds(rows + count) - base)
            )
            if rate > best_rate:
                best_rate, best_count, best_gain = rate, count, gain
        return Draft(self._lookup.draft(best_count), best_gain)

    def _count(self, length: int, is_right: bool) -> None:
        group = _classify_length(length)
        self._right[group] = HIT_RATE_DECAY * self._right[group] + is_right
        self._guessed[group] = HIT_RATE_DECAY * self._guessed[group] + 1.0

    def _hold_rate(self, length: int) -> float:
        """Probability that the token predicted by a match of ``length`` tokens is accepted."""
        group = _classify_length(length)
        return self._right[group] / self._guessed[group]


def _classify_length(length: int) -> int:
    """Lengths are alike within a factor of two; the shortest are class 0."""
    return min(length, MAX_MATCH_TOKENS).bit_length() - MIN_MATCH_TOKENS.bit_length()
