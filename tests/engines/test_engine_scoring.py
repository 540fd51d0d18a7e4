"""``Engine.score`` across the process boundary, on the starter model."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from driving import STARTER_NOISE, counting, words
from outcomes import GREEDY, WINDOW, outcome, starter_options, starter_tokenizer

from commonweight.engines.contract import ALL_TOKENS, EngineError, Job, Scored
from commonweight.engines.llama import LlamaEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = words(900, 21)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaEngine]:
    engine = LlamaEngine(starter_options())
    await engine.start()
    yield engine
    await engine.aclose()


async def scored(engine: LlamaEngine, token_ids: list[int], **options: Any) -> list[Scored]:
    return [chunk async for chunk in engine.score(token_ids, **options)]


async def idle(engine: LlamaEngine) -> None:
    async with asyncio.timeout(30):
        while engine.stats.running or engine.stats.waiting:
            await asyncio.sleep(0.01)


async def test_an_answer_is_as_likely_as_generation_says(engine: LlamaEngine) -> None:
    prompt = counting(1, 40)
    answer = await outcome(engine, Job(prompt, 30, sampling=GREEDY, want_logprobs=True))
    chunks = await scored(engine, prompt + answer.tokens, start=len(prompt), top=1)
    given = [value for chunk in chunks for value in chunk.logprobs]
    assert np.abs(np.array(given) - np.array(answer.logprobs)).max() < STARTER_NOISE
    top = [ids[0] for chunk in chunks for ids in chunk.top_ids]
    assert sum(map(int.__eq__, top, answer.tokens)) >= 28  # all but close calls


async def test_many_at_once_beside_an_answer(engine: LlamaEngine) -> None:
    texts = [words(120 + 30 * seed, seed) for seed in range(6)]
    answering = asyncio.create_task(outcome(engine, Job(counting(1, 40), 60, sampling=GREEDY)))
    many = await asyncio.gather(*(scored(engine, text) for text in texts))
    answer = await answering
    assert len(answer.tokens) == 60
    for text, chunks in zip(texts, many, strict=True):
        positions = [chunk.start + i for chunk in chunks for i in range(len(chunk.logprobs))]
        assert positions == list(range(1, len(text)))


async def test_whole_rows_cross_in_megabytes(engine: LlamaEngine) -> None:
    chunks = await scored(engine, LONG[:200], top=ALL_TOKENS)
    rows = np.frombuffer(b"".join(chunk.rows or b"" for chunk in chunks), "<f4").reshape(199, -1)
    assert rows.shape[1] == starter_tokenizer().size
    assert np.abs(np.exp(rows.astype(np.float64)).sum(1) - 1).max() < 1e-4


async def test_leaving_cancels(engine: LlamaEngine) -> None:
    async with aclosing(engine.score(LONG)) as chunks:
        async for chunk in chunks:
            assert chunk.start == 1
            break
    await idle(engine)
    assert not engine._jobs


async def test_bad_input(engine: LlamaEngine) -> None:
    for token_ids, options in (([5], {}), ([5, 6], {"start": 2}), ([5, 6], {"top": -2}), ([5] * (WINDOW + 1), {})):
        with pytest.raises(ValueError, match=r"token|start|top"):
            await scored(engine, token_ids, **options)
    for token_ids, options in (([5, 1 << 20], {}), ([5, 6], {"top": 1 << 20})):
        with pytest.raises(EngineError, match="vocabulary"):
            await scored(engine, token_ids, **options)
    assert sum(len(chunk.logprobs) for chunk in await scored(engine, [5] * WINDOW)) == WINDOW - 1


async def test_a_killed_process_fails_what_was_begun_and_computes_what_waited() -> None:
    engine = LlamaEngine(starter_options(sequences=1))
    await engine.start()
    try:
        begun = engine.score(LONG)
        first = await anext(begun)
        waiting = asyncio.create_task(scored(engine, LONG[:100]))
        await asyncio.sleep(0)
        assert engine.pid
        os.kill(engine.pid, signal.SIGKILL)
        positions = [*range(first.start, first.start + len(first.logprobs))]
        with pytest.raises(EngineError, match="stopped unexpectedly"):
            async for chunk in begun:
                positions += range(chunk.start, chunk.start + len(chunk.logprobs))
        assert positions == list(range(1, len(positions) + 1))
        chunks = await waiting
        assert [chunk.start for chunk in chunks] == [1, 65]
    finally:
        await engine.aclose()
