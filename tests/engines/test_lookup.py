"""Guesses are honest quotes, and drafting never costs speed."""

import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.engines.llama.scheduler.lookup import MAX_MATCH_TOKENS, MIN_MATCH_TOKENS, Drafter, Lookup
from commonweight.engines.llama.scheduler.step_cost import StepCostModel

contexts = st.lists(st.integers(0, 2), max_size=36)
limits = st.integers(0, 12)


class TestLookup:
    @given(contexts, limits)
    def test_finds_the_longest_most_recent_match(self, tokens: list[int], limit: int) -> None:
        lookup = Lookup(tokens)
        source, length = longest_match(tokens)
        assert lookup.match() == length
        assert lookup.draft(limit) == (continuation(tokens, source, limit) if length else [])

    @given(st.lists(st.integers(0, 2), max_size=400), limits)
    def test_a_draft_is_what_followed_an_earlier_occurrence(self, tokens: list[int], limit: int) -> None:
        lookup = Lookup(tokens)
        draft, length = lookup.draft(limit), lookup.match()
        assert len(draft) in ((limit,) if length else (0,))
        assert length == 0 or length >= MIN_MATCH_TOKENS
        if length:
            ends = [end for end in range(length, len(tokens)) if tokens[end - length : end] == tokens[-length:]]
            assert draft in [continuation(tokens, end, limit) for end in ends]

    @given(contexts, st.lists(st.tuples(st.integers(1, 9), st.booleans())))
    def test_chunks_and_questions_in_between_change_nothing(
        self, tokens: list[int], chunks: list[tuple[int, bool]]
    ) -> None:
        lookup, position = Lookup(), 0
        for size, asks in chunks:
            lookup.extend(tokens[position : position + size])
            position += size
            if asks:
                lookup.draft(2)
        lookup.extend(tokens[position:])
        assert lookup.draft(8) == Lookup(tokens).draft(8)

    def test_nothing_is_guessed_where_nothing_repeats(self) -> None:
        assert Lookup(range(50)).draft(4) == []
        assert Lookup().draft(4) == []

    def test_generated_tokens_are_context_too(self) -> None:
        lookup = Lookup(range(50))
        lookup.extend([90, 91, 92, 93, 94, 90, 91, 92])
        assert lookup.draft(2) == [93, 94]

    def test_a_loop_is_predicted_past_its_own_end(self) -> None:
        assert Lookup([1, 2, 1, 2, 1]).draft(6) == [2, 1, 2, 1, 2, 1]

    def test_a_match_that_goes_on_grows(self) -> None:
        lookup = Lookup([*range(500), 0, 1, 2])
        for token in range(3, 200):
            assert lookup.draft(1) == [token]
            lookup.extend([token])
        assert lookup.match() == 200


def longest_match(tokens: list[int]) -> tuple[int, int]:
    """Where the longest, most recent match went on, and its length (0: there is none)."""
    best = (0, 0)
    for end in range(MIN_MATCH_TOKENS, len(tokens)):
        length = 0
        while length < min(end, MAX_MATCH_TOKENS) and tokens[end - 1 - length] == tokens[-1 - length]:
            length += 1
        if length >= max(MIN_MATCH_TOKENS, best[1]):
            best = (end, length)
    return best


def continuation(tokens: list[int], source: int, limit: int) -> list[int]:
    """What a model that keeps copying from ``source`` would write."""
    text = list(tokens)
    for position in range(source, source + limit):
        text.append(text[position])
    return text[len(tokens) :]


Cost = Callable[[int], float]


def curve(*points: tuple[int, float]) -> Cost:
    """Seconds by rows, linear between the points and beyond the last."""

    def seconds(rows: int) -> float:
        for (left, low), (right, high) in pairwise(points):
            if rows <= right or right == points[-1][0]:
                return low + (rows - left) / (right - left) * (high - low)
        raise AssertionError

    return seconds


COSTS: dict[str, Cost] = {
    "flat": curve((1, 0.010), (256, 0.0105)),
    "linear": curve((1, 0.010), (2, 0.020)),
    "q8_0": curve((1, 0.007), (8, 0.007 * 8 / 2.9), (16, 0.007 * 16 / 3.2)),
    "q4_1": curve((1, 0.007), (8, 0.007 * 8 / 1.67), (16, 0.007 * 16 / 1.84)),
}
RATES = (0.0, 0.2, 0.5, 0.8, 0.95)
CAP = 15
TOKENS = 1200
WORTHWHILE = {
    ("flat", 0.2): 1.15,
    ("flat", 0.5): 1.8,
    ("flat", 0.8): 3.8,
    ("flat", 0.95): 8.0,
    ("q8_0", 0.5): 1.1,
    ("q8_0", 0.8): 1.5,
    ("q8_0", 0.95): 2.1,
    ("q4_1", 0.8): 1.08,
    ("q4_1", 0.95): 1.3,
}


class TestDrafter:
    @pytest.mark.parametrize("streams", [1, 8])
    @pytest.mark.parametrize("rate", RATES)
    @pytest.mark.parametrize("model", COSTS)
    def test_drafting_never_loses(self, model: str, rate: float, streams: int) -> None:
        """Simulated tokens a second against those without drafts, from a cold start, with noisy timings."""
        gain = speedup(COSTS[model], [guessable_text(rate, seed) for seed in range(streams)])
        assert gain >= 0.98
        if streams == 1:
            assert gain >= WORTHWHILE.get((model, rate), 0.98)

    @pytest.mark.parametrize("model", COSTS)
    def test_changing_luck_does_not_lose_either(self, model: str) -> None:
        gain = speedup(COSTS[model], [guessable_text(0.0, 1, then=0.9), guessable_text(0.95, 2, then=0.05)])
        assert gain >= 0.98

    def test_text_without_copies_costs_no_rows(self) -> None:
        drafter = Drafter(Lookup(range(1000)))
        for token in range(2000, 2200):
            drafter.extend([token])
            assert drafter.propose(1, 1, StepCostModel(), CAP).token_ids == []

    def test_a_copy_soon_reaches_the_cap(self) -> None:
        pace = observed(COSTS["flat"], 32)
        drafter = Drafter(Lookup([*range(1000), 5000]))
        sizes = []
        for token in range(40):
            drafter.extend([token])
            sizes.append(len(drafter.propose(1, 1, pace, CAP).token_ids))
        assert sizes[:2] == [0, 0]
        assert min(sizes[8:]) == CAP

    def test_a_draft_respects_its_cap_and_tells_its_gain(self) -> None:
        pace = observed(COSTS["flat"], 32)
        drafter = Drafter(Lookup([1, 2, 3] * 20))
        assert drafter.propose(1, 1, pace, 0).token_ids == []
        draft = drafter.propose(1, 1, pace, 2)
        assert draft.token_ids == [1, 2]
        assert 0 < draft.gain <= 2

    def test_a_long_step_is_no_reason_to_draft(self) -> None:
        """Where rows cost their full price, a draft takes from the prompt beside it what it gives."""
        pace = observed(COSTS["linear"], 300)
        drafter = Drafter(Lookup([1, 2, 3] * 20))
        assert drafter.propose(129, 129, pace, CAP).token_ids == []


def observed(cost: Cost, rows: int) -> StepCostModel:
    pace = StepCostModel()
    for size in range(1, rows + 1):
        pace.observe(size, size, cost(size))
    return pace


@cache
def guessable_text(rate: float, seed: int, then: float | None = None) -> tuple[list[int], list[int]]:
    """A prompt and an output in which there is always a guess, right with probability ``rate`` (in the second
    half ``then``): with so few different tokens every trigram has occurred before."""
    rng = random.Random(seed)
    prompt = [rng.randrange(5) for _ in range(3000)]
    lookup, output = Lookup(prompt), []
    for position in range(TOKENS):
        chance = rate if then is None or position < TOKENS / 2 else then
        guess = lookup.draft(1)[0]
        token = guess if rng.random() < chance else (guess + rng.randrange(1, 5)) % 5
        output.append(token)
        lookup.extend([token])
    return prompt, output


def speedup(cost: Cost, texts: list[tuple[list[int], list[int]]]) -> float:
    """Runs the texts side by side, as the scheduler would, until the first ends."""
    rng = random.Random(7)
    pace = StepCostModel()
    pace.observe(513, 1, cost(513))
    drafters = [Drafter(Lookup(prompt)) for prompt, _ in texts]
    done = [0] * len(texts)
    seconds = 0.0
    while max(done) < TOKENS - CAP:
        rows, progress = len(texts), float(len(texts))
        drafts = []
        for drafter in drafters:
            draft = drafter.propose(rows, progress, pace, CAP)
            rows += len(draft.token_ids)
            progress += draft.gain
            drafts.append(draft.token_ids)
        for stream, (draft_ids, (_, output)) in enumerate(zip(drafts, texts, strict=True)):
            start = done[stream]
            drawn = [output[start]]
            while len(drawn) <= len(draft_ids) and draft_ids[len(drawn) - 1] == drawn[-1]:
                drawn.append(output[start + len(drawn)])
            drafters[stream].extend(drawn)
            done[stream] += len(drawn)
        seconds += cost(rows)
        disturbed = 20.0 if rng.random() < 0.02 else 1.0
        pace.observe(rows, rows, cost(rows) * disturbed * rng.gauss(1.0, 0.05))
    return sum(done) / seconds / (len(texts) / cost(len(texts)))
