"""What the embedded engine remembers, through its process: later turns, restarts, crashes, what is not kept."""

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest
from outcomes import GREEDY, outcome, starter_options, starter_tokenizer

from commonweight.engines.contract import CacheMark, CacheWrites, EngineError, Job, Probe, Step
from commonweight.engines.llama import LlamaEngine

COUNTING = starter_tokenizer().encode(" ".join(map(str, range(1, 400))))


async def started(**options: object) -> LlamaEngine:
    engine = LlamaEngine(starter_options(**options))
    await engine.start()
    return engine


async def test_a_second_turn_computes_its_new_tokens_and_no_more() -> None:
    engine = await started()
    try:
        first = await outcome(engine, Job(COUNTING[:300], 20, sampling=GREEDY))
        assert first.cached == 0
        second = await outcome(engine, Job([*COUNTING[:300], *first.tokens, 11, 12, 13], 4, sampling=GREEDY))
        # The last token that was drawn had never been computed.
        assert second.cached == 300 + 19
        assert engine.stats.prefilled_tokens == 300 + 4
        assert engine.stats.ram_tokens == 319
        assert engine.stats.generated_tokens == 24
        assert engine.stats.ram_bytes > 0
        other = await outcome(engine, Job(COUNTING[:300], 1, tenant="somebody else"))
        assert other.cached == 0
    finally:
        await engine.aclose()


async def test_marks_are_accounted_for() -> None:
    engine = await started()
    try:
        marks = [CacheMark(100), CacheMark(280, "1h")]
        first = await outcome(engine, Job(COUNTING[:300], 1, cache_marks=marks))
        assert first.prefilled.written == CacheWrites(five_minutes=100, one_hour=180)
        second = await outcome(engine, Job(COUNTING[:320], 1, cache_marks=[*marks, CacheMark(310)]))
        assert (second.cached, second.prefilled.written) == (300, CacheWrites(five_minutes=10))
    finally:
        await engine.aclose()


async def test_tokens_that_nobody_used_are_not_kept() -> None:
    engine = await started()
    try:
        async with engine.run(Job(COUNTING[:100], 200, sampling=GREEDY)) as generation:
            drawn = []
            async for event in generation:
                if isinstance(event, Step):
                    drawn.append(event.token_id)
                if len(drawn) == 30:
                    break
            generation.truncate(110)
        again = await outcome(engine, Job([*COUNTING[:100], *drawn], 1, sampling=GREEDY))
        assert again.cached == 110
    finally:
        await engine.aclose()


async def test_a_prefix_outlives_the_process(tmp_path: Path) -> None:
    disk = {"disk_folder": str(tmp_path), "disk_bytes": 1 << 30}
    first = await started(**disk)
    answer = await outcome(first, Job(COUNTING[:600], 12, sampling=GREEDY, want_logprobs=True))
    await first.aclose()
    second = await started(**disk)
    try:
        assert second.stats.disk_bytes > 0
        again = await outcome(second, Job(COUNTING[:600], 12, sampling=GREEDY, want_logprobs=True))
        assert again.cached == 599
        assert (second.stats.disk_tokens, second.stats.prefilled_tokens) == (599, 1)
        assert again.tokens == answer.tokens
        assert again.logprobs == pytest.approx(answer.logprobs, abs=0.15)
    finally:
        await second.aclose()


async def test_a_crash_forgets_nothing_that_had_reached_the_disk(tmp_path: Path) -> None:
    engine = await started(disk_folder=str(tmp_path), disk_bytes=1 << 30)
    try:
        await outcome(engine, Job(COUNTING[:600], 1, sampling=GREEDY))
        while len(list(tmp_path.rglob("*.kv"))) < 3:
            await asyncio.sleep(0.02)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        while engine.is_ready:
            await asyncio.sleep(0.01)
        assert (await outcome(engine, Job(COUNTING[:600], 1, sampling=GREEDY))).cached == 599
    finally:
        await engine.aclose()


async def test_waiting_for_the_disk_does_not_spin(tmp_path: Path) -> None:
    disk = {"disk_folder": str(tmp_path), "disk_bytes": 1 << 30}
    first = await started(**disk)
    await outcome(first, Job(COUNTING[:600], 1))
    await first.aclose()
    engine = await started(**disk)
    try:
        assert engine.pid is not None
        process = psutil.Process(engine.pid)
        await outcome(engine, Job(COUNTING[:600], 1))
        before = process.cpu_times().user
        await asyncio.sleep(1)
        assert process.cpu_times().user - before < 0.5
    finally:
        await engine.aclose()


async def test_jobs_that_are_not_for_this_model_are_refused_and_others_go_on() -> None:
    engine = await started()
    try:
        wrong = Probe("wrong", layers=[3], heads=2, weights=bytes(12))
        with pytest.raises(EngineError, match="wrong"):
            await outcome(engine, Job(COUNTING[:20], 2, probe=wrong))
        with pytest.raises(EngineError, match="vocabulary"):
            await outcome(engine, Job([1, 10**6], 2))
        right = Probe("right", layers=[3, 9], heads=2, weights=bytes(2 * 576 * 2 * 4))
        result = await outcome(engine, Job(COUNTING[:20], 2, probe=right))
        assert result.prefilled.scores == bytes(20 * 2 * 4)
        assert [event.scores for event in result.events if isinstance(event, Step)] == [bytes(2 * 4)] * 2
    finally:
        await engine.aclose()


async def test_the_figures_come_to_rest() -> None:
    engine = await started()
    try:
        async with engine.run(Job(COUNTING[:50], 500)) as generation:
            async for event in generation:
                if isinstance(event, Step):
                    break
            assert engine.stats.running == 1
            assert engine.stats.cells_used >= 50
        while engine.stats.running:
            await asyncio.sleep(0.01)
        assert (engine.stats.waiting, engine.stats.cells_used, engine.stats.cells) == (0, 0, 4096)
        assert engine.stats.steps > 0
        assert engine.stats.step_seconds > 0
    finally:
        await engine.aclose()
