"""Scoring through servers elsewhere: vLLM's log-probabilities of prompts, and what is refused."""

from typing import Any

import numpy as np
import pytest
from fake_upstreams import END, PROMPT, Far, dying, engine_at, likely, refusing, saying, silent, until

from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import (
    ALL_TOKENS,
    Admitted,
    EngineError,
    Finish,
    Job,
    Prefilled,
    Scored,
    Scoring,
    ScoringUnsupportedError,
)
from commonweight.engines.remote import RemoteEngine
from commonweight.engines.remote import scoring as remote_scoring
from commonweight.engines.remote.llama_server import LlamaServerCompletion

pytest_plugins = "fake_upstream_fixtures"

LONG = [4093, *range(3, 203)]


async def scored(engine: RemoteEngine, token_ids: list[int], **options: Any) -> list[Scored]:
    return [chunk async for chunk in engine.score(token_ids, **options)]


def expected(token_ids: list[int], start: int = 1) -> list[float]:
    return [likely(position)[token_ids[position]] for position in range(start, len(token_ids))]


@pytest.mark.parametrize("has_generate", [True, False])
async def test_scores_and_top_tokens(gguf: Gguf, far: Far, has_generate: bool) -> None:
    far.has_generate = has_generate
    async with engine_at(gguf, far.url) as engine:
        chunks = await scored(engine, LONG, top=4, start=5)
    assert [chunk.start for chunk in chunks] == [5, 69, 133, 197]
    assert [value for chunk in chunks for value in chunk.logprobs] == pytest.approx(expected(LONG, 5))
    ids = [ids for chunk in chunks for ids in chunk.top_ids]
    assert ids == [np.argsort(-likely(position))[:4].tolist() for position in range(5, len(LONG))]
    top = [values for chunk in chunks for values in chunk.top_logprobs]
    assert top == [pytest.approx(-np.sort(-likely(position))[:4]) for position in range(5, len(LONG))]


async def test_events_come_in_the_order_of_the_contract(gguf: Gguf, far: Far) -> None:
    async with (
        engine_at(gguf, far.url) as engine,
        engine.run(Job(PROMPT, 0, scoring=Scoring(), tenant="a", priority="batch")) as run,
    ):
        events = [event async for event in run]
        assert engine.stats.prefilled_tokens == len(PROMPT)
        assert engine.stats.running == 0
    assert [type(event) for event in events] == [Admitted, Scored, Prefilled, Finish]
    assert isinstance(events[1], Scored)
    assert events[1].logprobs == pytest.approx(expected(PROMPT))
    (body,) = far.asked
    assert body["priority"] > 0
    assert len(body["cache_salt"]) > 20
    assert "stream" not in body


async def test_whole_rows(gguf: Gguf, far: Far) -> None:
    far.max_logprobs = 1 << 20
    async with engine_at(gguf, far.url) as engine:
        (chunk,) = await scored(engine, PROMPT[:4], top=ALL_TOKENS, start=2)
    rows = np.frombuffer(chunk.rows or b"", "<f4").reshape(2, -1)
    assert np.abs(rows - np.stack([likely(2), likely(3)])).max() < 1e-5
    assert not chunk.top_ids


async def test_more_than_a_server_gives_says_how_many_it_does(gguf: Gguf, far: Far) -> None:
    async with engine_at(gguf, far.url) as engine:
        with pytest.raises(EngineError, match=r"at most 20 .* not 21"):
            await scored(engine, PROMPT, top=21)
        with pytest.raises(EngineError, match=r"at most 20 .* not the whole vocabulary"):
            await scored(engine, PROMPT, top=ALL_TOKENS)
        assert len(await scored(engine, PROMPT, top=20)) == 1


async def test_what_is_wrong_is_not_sent(gguf: Gguf, far: Far) -> None:
    async with engine_at(gguf, far.url) as engine:
        for token_ids, options in (([5], {}), (PROMPT, {"start": 6}), (PROMPT, {"top": -2}), ([5] * 1025, {})):
            with pytest.raises(ValueError, match=r"token|start|top"):
                await scored(engine, token_ids, **options)
        with pytest.raises(EngineError, match="at most 1023 tokens"):
            await scored(engine, [5] * 1024)
    assert not far.asked


async def test_llama_server_is_not_asked(gguf: Gguf, far: Far) -> None:
    async with engine_at(gguf, far.url) as engine:
        engine._pool.upstreams[0].backend = LlamaServerCompletion([])
        with pytest.raises(ScoringUnsupportedError, match="llama-server gives no log-probabilities"):
            await scored(engine, PROMPT)
    assert not far.asked


@pytest.mark.parametrize("act", [refusing(503), dying(), saying(b"no JSON"), saying(b'{"choices": [{}]}')])
async def test_the_next_server_is_asked(gguf: Gguf, far: Far, other: Far, act: Any) -> None:
    async with engine_at(gguf, far.url, other.url) as engine:
        first, second = engine._pool.rank_upstreams(engine._make_session_id(Job(PROMPT, 0)))
        next(one for one in (far, other) if one.url == first.url).answers = [act]
        (chunk,) = await scored(engine, PROMPT)
        assert chunk.logprobs == pytest.approx(expected(PROMPT))
        assert len(far.asked) == len(other.asked) == 1
        assert second.running == first.running == 0


async def test_what_is_missing_is_no_score(gguf: Gguf, far: Far) -> None:
    entry = b'{"19556": {"logprob": -1.0}}'
    for told in (b"[]", b"[null]", b"[null, %b, null]" % entry, b"[null, %b, %b]" % (entry, entry)):
        far.answers = [saying(b'{"choices": [], "prompt_logprobs": %b}' % told)]
        async with engine_at(gguf, far.url) as engine:
            with pytest.raises(EngineError, match="server"):
                await scored(engine, [1, 19556, END])


async def test_a_response_that_is_too_large(gguf: Gguf, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_scoring, "MAX_RESPONSE_BYTES", 1 << 12)
    async with engine_at(gguf, far.url) as engine:
        with pytest.raises(EngineError, match="score fewer tokens"):
            await scored(engine, LONG, top=20)
        assert await scored(engine, PROMPT)


async def test_leaving_ends_the_request(gguf: Gguf, far: Far) -> None:
    far.answers = [silent()]
    async with engine_at(gguf, far.url) as engine:
        async with engine.run(Job(PROMPT, 0, scoring=Scoring())):
            await until(lambda: bool(far.asked))
        await until(lambda: far.hung_up == 1)
        assert engine.stats.running == 0
