"""Answers of engines elsewhere that are held to a grammar, there or here."""

import random
from collections import Counter
from typing import Any

import pytest
from fake_upstreams import END, Far, answering, engine_at, job, ran, refusing, saying
from outcomes import starter_tokenizer

from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import EngineError, GrammarRefusedError

pytest_plugins = "fake_upstream_fixtures"

YES_OR_NO = 'start: "yes" | "no"'


async def test_grammars_go_to_servers_that_keep_them(gguf: Gguf, far: Far) -> None:
    far.words = lambda _: [10407, END]
    async with engine_at(gguf, far.url) as remote:
        assert (await ran(remote, job(grammar=YES_OR_NO))).tokens == [10407, END]
    assert far.asked[0]["sampling_params"]["structured_outputs"] == {"grammar": YES_OR_NO}
    assert far.asked[0]["reasoning_ended"] is True


async def test_grammars_are_kept_here_for_those_that_do_not(gguf: Gguf, far: Far) -> None:
    far.keeps_grammars = False
    far.words = lambda body: [19556, 30, 10407, END]
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote, job(grammar='start: ("yes" | "no") " indeed, my friend"'))
    tokenizer = starter_tokenizer()
    assert b"".join(map(tokenizer.decode, outcome.tokens)) == b"yes indeed, my friend"
    assert outcome.tokens[-1] in (0, END)
    # A free draw, and one among what is allowed; the rest was known. Likewise the end, of which there are two.
    free, only, free_again, only_ends = (body["sampling_params"] for body in far.asked)
    assert "allowed_token_ids" not in free | free_again
    assert 10407 in only["allowed_token_ids"]
    assert only_ends["allowed_token_ids"] == [0, END]
    assert (only["max_tokens"], only_ends["max_tokens"]) == (1, 1)
    assert free_again["max_tokens"] == 16 - len(outcome.tokens) + 1


async def test_what_is_drawn_again_is_as_likely_as_if_all_else_were_masked(gguf: Gguf, far: Far) -> None:
    chance = random.Random(7)
    yes, no = 10407, starter_tokenizer().encode("no")[0]
    likely = {yes: 0.1, no: 0.3, 19556: 0.6}

    def draw(body: dict[str, Any]) -> list[int]:
        if body["token_ids"][-1] in (yes, no):
            return [END]
        allowed = body["sampling_params"].get("allowed_token_ids") or list(likely)
        names = [token for token in likely if token in allowed]
        return [chance.choices(names, [likely[token] for token in names])[0], END]

    far.keeps_grammars = False
    far.words = draw
    counts: Counter[int] = Counter()
    async with engine_at(gguf, far.url) as remote:
        for _ in range(400):
            counts[(await ran(remote, job(grammar=YES_OR_NO))).tokens[0]] += 1
    assert set(counts) == {yes, no}
    assert 0.18 < counts[yes] / 400 < 0.32  # a quarter; four standard deviations are 0.087


async def test_how_likely_words_are_is_asked_without_the_servers_grammar(gguf: Gguf, far: Far) -> None:
    # What it says with one is how likely they are among what that allows.
    far.words = lambda body: [19556, 10407, END]
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote, job(grammar='start: "yes"', want_logprobs=True))
    assert outcome.tokens == [10407, END]
    assert outcome.logprobs[0] == pytest.approx(-1.0407)
    assert not any("structured_outputs" in body["sampling_params"] for body in far.asked)


async def test_servers_that_do_not_keep_to_what_is_allowed(gguf: Gguf, far: Far) -> None:
    far.keeps_grammars = False
    far.answers = [
        answering([19556]),
        saying(b'data: {"choices":[{"token_ids":[30],"finish_reason":"length"}]}\n\n'),
    ]
    async with engine_at(gguf, far.url) as remote:
        with pytest.raises(EngineError):
            await ran(remote, job(grammar=YES_OR_NO))


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_an_answer_that_has_begun_is_not_begun_elsewhere(
    gguf: Gguf, far: Far, other: Far, status: int
) -> None:
    for server in (far, other):
        server.keeps_grammars = False
        server.answers = [answering([10407, 30]), refusing(status)]
    async with engine_at(gguf, far.url, other.url) as remote:
        with pytest.raises(EngineError, match="in the middle"):
            await ran(remote, job(grammar='start: "yes" /[a-c]+/'))
    assert sorted([len(far.asked), len(other.asked)]) == [0, 2]


async def test_servers_that_end_before_there_is_an_answer(gguf: Gguf, far: Far) -> None:
    far.keeps_grammars = False
    far.answers = [saying(b'data: {"choices":[{"token_ids":[],"finish_reason":"length"}]}\n\n')]
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote, job(grammar=YES_OR_NO))
    assert outcome.tokens == []
    assert outcome.finish.reason == "length"
    assert len(far.asked) == 1


async def test_a_prompt_is_read_in_advance_whatever_its_answer_is_held_to(gguf: Gguf, far: Far) -> None:
    far.keeps_grammars = False
    async with engine_at(gguf, far.url) as remote:
        assert (await ran(remote, job(grammar=YES_OR_NO, max_tokens=0))).tokens == []
    assert len(far.asked) == 1


async def test_a_grammar_that_is_none(gguf: Gguf, far: Far) -> None:
    far.keeps_grammars = False
    async with engine_at(gguf, far.url) as remote:
        with pytest.raises(GrammarRefusedError, match="cannot be followed"):
            await ran(remote, job(grammar="start: nonsense"))
        assert (await ran(remote)).tokens == [19556, 30, END]
