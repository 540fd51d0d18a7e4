"""The embedded engine as a whole: a real process, a real model."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest
import pytest_asyncio
from outcomes import GREEDY, WINDOW, Outcome, outcome, starter_options, starter_tokenizer

from commonweight.engines.contract import (
    EngineError,
    EngineFullError,
    Finish,
    GrammarRefusedError,
    Job,
    Sampling,
    Step,
)
from commonweight.engines.llama import LlamaEngine, LoadError, WorkerConfig
from commonweight.engines.llama import engine as engine_module

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = Job(token_ids=[1, 9690, 198], max_tokens=900, sampling=GREEDY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaEngine]:
    """A small engine on the starter model."""
    engine = LlamaEngine(starter_options())
    await engine.start()
    yield engine
    await engine.aclose()


COUNTING = starter_tokenizer().encode("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23")


async def test_a_job_brings_its_events_in_order(engine: LlamaEngine) -> None:
    result = await outcome(engine, Job(token_ids=COUNTING, max_tokens=7, sampling=GREEDY))
    result.check_order()
    assert len(result.tokens) == 7
    assert result.finish.reason == "length"
    assert min(msgspec.structs.astuple(result.finish.timings)) >= 0


async def test_a_stop_token_is_the_last_step(engine: LlamaEngine) -> None:
    free = (await outcome(engine, Job(token_ids=COUNTING, max_tokens=12, sampling=GREEDY))).tokens
    stop = free[6]
    result = await outcome(engine, Job(token_ids=COUNTING, max_tokens=12, stop_ids=[stop], sampling=GREEDY))
    assert result.tokens == free[: free.index(stop) + 1]
    assert result.finish.reason == "stop"


async def test_no_tokens_asked_for_only_reads_the_prompt(engine: LlamaEngine) -> None:
    result = await outcome(engine, Job(token_ids=COUNTING, max_tokens=0))
    result.check_order()
    assert result.tokens == []
    assert result.finish.reason == "length"


async def test_a_prompt_of_several_chunks_and_one_token(engine: LlamaEngine) -> None:
    whole = await outcome(engine, Job(token_ids=(COUNTING * 20)[:700], max_tokens=3, sampling=GREEDY))
    assert len(whole.tokens) == 3
    single = await outcome(engine, Job(token_ids=[1], max_tokens=3, sampling=GREEDY))
    assert len(single.tokens) == 3


async def test_the_window_can_be_filled_to_the_last_token(engine: LlamaEngine) -> None:
    prompt = (COUNTING * 40)[: WINDOW - 2]
    result = await outcome(engine, Job(token_ids=prompt, max_tokens=2, sampling=GREEDY))
    assert len(result.tokens) == 2
    with pytest.raises(ValueError, match="window"):
        await outcome(engine, Job(token_ids=prompt, max_tokens=3))
    with pytest.raises(ValueError, match="at least one token"):
        await outcome(engine, Job(token_ids=[], max_tokens=3))


async def test_greedy_takes_the_likeliest_and_knows_how_likely(engine: LlamaEngine) -> None:
    result = await outcome(engine, Job(token_ids=COUNTING, max_tokens=9, sampling=GREEDY, want_logprobs=True))
    assert len(result.logprobs) == 9
    # A model that has read "1 2 3 ... 23" is all but sure of what follows.
    assert all(-1 < logprob <= 0 for logprob in result.logprobs)
    text = b"".join(starter_tokenizer().decode(token) for token in result.tokens)
    assert text.decode().split()[:2] == ["24", "25"]


async def test_a_seed_draws_the_same_alone_and_in_company(engine: LlamaEngine) -> None:
    def job(seed: int) -> Job:
        return Job(token_ids=COUNTING, max_tokens=16, sampling=Sampling(temperature=0.3, seed=seed))

    alone = await outcome(engine, job(7))
    together = await asyncio.gather(*(outcome(engine, job(seed)) for seed in (7, 8, 7)))
    assert together[0].tokens == together[2].tokens == alone.tokens


async def test_without_a_seed_draws_differ(engine: LlamaEngine) -> None:
    job = Job(token_ids=[1, 9690, 198], max_tokens=24)
    drawn = {tuple((await outcome(engine, job)).tokens) for _ in range(3)}
    assert len(drawn) == 3


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=1e-38), Sampling(top_k=1), Sampling(top_p=0.0), Sampling(min_p=1.0)]
)
async def test_narrow_sampling_leaves_only_the_likeliest(engine: LlamaEngine, sampling: Sampling) -> None:
    greedy = await outcome(engine, Job(token_ids=COUNTING, max_tokens=8, sampling=GREEDY))
    narrow = await outcome(engine, Job(token_ids=COUNTING, max_tokens=8, sampling=sampling))
    assert narrow.tokens == greedy.tokens


DEAD_END = 'start: "1 2 3 4 5 6 7 8 9 10" /[ab]{12}/ NOTHING\nNOTHING: /fg/ & ~/fg/\n'


async def test_answers_with_grammars(engine: LlamaEngine) -> None:
    def held(grammar: str) -> Job:
        return Job(token_ids=COUNTING, max_tokens=200, stop_ids=[2], grammar=grammar)

    free = outcome(engine, Job(token_ids=COUNTING, max_tokens=20, sampling=GREEDY))
    number, refused, failed, counted = await asyncio.gather(
        outcome(engine, held("start: / [0-9]{2,4}/")),
        outcome(engine, held("start: number")),
        outcome(engine, held(DEAD_END)),
        free,
        return_exceptions=True,
    )
    assert isinstance(number, Outcome)
    assert number.finish.reason == "stop"
    text = b"".join(starter_tokenizer().decode(token) for token in number.tokens[:-1])
    assert 10 <= int(text) <= 9999
    assert isinstance(refused, GrammarRefusedError)
    assert 'unknown name: "number"' in str(refused)
    assert type(failed) is EngineError
    assert "held to its grammar" in str(failed)
    assert isinstance(counted, Outcome)
    assert len(counted.tokens) == 20
    assert not engine._jobs
    while engine.stats.running:
        await asyncio.sleep(0.01)


async def test_what_was_drawn_before_a_failure_arrives(engine: LlamaEngine) -> None:
    result = Outcome()

    async def read() -> None:
        async with engine.run(Job(token_ids=COUNTING, max_tokens=200, stop_ids=[2], grammar=DEAD_END)) as events:
            async for event in events:
                result.events.append(event)

    with pytest.raises(EngineError, match="held to its grammar"):
        await read()
    text = b"".join(starter_tokenizer().decode(token) for token in result.tokens).decode()
    assert re.fullmatch("1 2 3 4 5 6 7 8 9 10[ab]{12}", text)


async def test_more_jobs_than_sequences_all_finish(engine: LlamaEngine) -> None:
    jobs = [Job(token_ids=COUNTING[:n], max_tokens=12, sampling=GREEDY) for n in range(5, 16)]
    results = await asyncio.gather(*(outcome(engine, job) for job in jobs))
    for result in results:
        result.check_order()
        assert len(result.tokens) == 12


async def test_leaving_the_block_cancels(engine: LlamaEngine) -> None:
    async with engine.run(LONG) as events:
        async for event in events:
            if isinstance(event, Step):
                break
    # Four sequences: were the cancelled ones still running, the last of these would wait for 900 tokens.
    for _ in range(8):
        async with engine.run(LONG) as events:
            async for event in events:
                if isinstance(event, Step):
                    break
    assert not engine._jobs
    result = await outcome(engine, Job(token_ids=COUNTING, max_tokens=4, sampling=GREEDY))
    assert result.finish.timings.queued < result.finish.timings.prefill + 60


async def test_an_idle_engine_sleeps(engine: LlamaEngine) -> None:
    process = psutil.Process(engine.pid)
    await outcome(engine, Job(token_ids=COUNTING, max_tokens=4))
    before = process.cpu_times().user
    await asyncio.sleep(1)
    assert process.cpu_times().user - before < 0.5


async def test_too_many_jobs_are_told_so(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_JOBS", 1)
    async with engine.run(LONG):
        with pytest.raises(EngineFullError):
            await outcome(engine, LONG)
    assert len((await outcome(engine, Job(token_ids=COUNTING, max_tokens=2))).tokens) == 2


async def test_a_killed_process_fails_what_runs_and_comes_back() -> None:
    engine = LlamaEngine(starter_options())
    await engine.start()
    try:
        first_pid = engine.pid
        assert first_pid is not None

        async def killed_in_mid_stream() -> None:
            async with engine.run(LONG) as events:
                async for event in events:
                    if isinstance(event, Step):
                        os.kill(first_pid, signal.SIGKILL)

        with pytest.raises(EngineError, match="restarted"):
            await killed_in_mid_stream()
        # Sent while the process is down: it waits, and is done by the next one.
        result = await outcome(engine, Job(token_ids=COUNTING, max_tokens=5, sampling=GREEDY))
        assert len(result.tokens) == 5
        assert engine.pid not in (None, first_pid)
    finally:
        await engine.aclose()


async def test_a_model_that_vanished_fails_waiting_jobs_but_never_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_RESTART_DELAY_SECONDS", 0.2)
    options = starter_options()
    link = tmp_path / "model.gguf"
    link.symlink_to(options.path)
    engine = LlamaEngine(msgspec.structs.replace(options, path=str(link)))
    await engine.start()
    try:
        link.unlink()
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="log says why") as failure:
            await outcome(engine, LONG)
        assert str(tmp_path) not in str(failure.value)
        assert "cannot read" in caplog.text
        link.symlink_to(options.path)
        while not engine.is_ready:
            await asyncio.sleep(0.01)
        assert len((await outcome(engine, Job(token_ids=COUNTING, max_tokens=2))).tokens) == 2
    finally:
        await engine.aclose()


async def test_closing_ends_the_process_and_fails_what_runs() -> None:
    engine = LlamaEngine(starter_options())
    progress: list[float] = []
    await engine.start(progress.append)
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert engine.pid is not None
    process = psutil.Process(engine.pid)

    async def closed_in_mid_stream() -> None:
        async with engine.run(LONG) as events:
            async for event in events:
                if isinstance(event, Step):
                    await engine.aclose()
                assert not isinstance(event, Finish)

    with pytest.raises(EngineError, match="shutting down"):
        await closed_in_mid_stream()
    assert not process.is_running()
    with pytest.raises(EngineError, match="shutting down"):
        await outcome(engine, LONG)


async def test_closing_while_it_loads_does_not_wait_for_it() -> None:
    engine = LlamaEngine(starter_options())
    starting = asyncio.create_task(engine.start())
    while engine.pid is None:
        await asyncio.sleep(0)
    process = psutil.Process(engine.pid)
    await engine.aclose()
    assert not process.is_running()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)


async def test_a_crash_fails_only_what_was_running() -> None:
    engine = LlamaEngine(starter_options(sequences=1))
    await engine.start()
    try:
        begun = asyncio.Event()

        async def running() -> None:
            async with engine.run(LONG) as events:
                async for _ in events:
                    begun.set()

        first = asyncio.create_task(running())
        await begun.wait()
        queued = [asyncio.create_task(outcome(engine, Job(token_ids=COUNTING, max_tokens=n))) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="restarted"):
            await first
        assert [len(result.tokens) for result in await asyncio.gather(*queued)] == [2, 3, 4]
    finally:
        await engine.aclose()


async def test_an_engine_that_cannot_be_spawned_again_is_tried_again(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_RESTART_DELAY_SECONDS", 0.2)
    assert engine.pid is not None
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nonexistent/python")
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineError):
            await outcome(engine, LONG)
        with pytest.raises(EngineError, match="log says why"):
            await outcome(engine, LONG)
    assert len((await outcome(engine, Job(token_ids=COUNTING, max_tokens=2))).tokens) == 2


async def test_a_job_that_cannot_travel_harms_only_itself(engine: LlamaEngine) -> None:
    with pytest.raises(OverflowError):
        await outcome(engine, Job(token_ids=COUNTING, max_tokens=2, sampling=Sampling(top_k=10**30)))
    assert not engine._jobs
    assert len((await outcome(engine, Job(token_ids=COUNTING, max_tokens=2))).tokens) == 2


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
async def test_what_is_no_model_is_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    engine = LlamaEngine(WorkerConfig(path=str(path), window=64, cells=64, sequences=1, threads=1))
    with pytest.raises(LoadError, match=r"broken\.gguf"):
        await engine.start()
    await engine.aclose()


async def test_the_process_leaves_with_its_parent() -> None:
    chosen = starter_options()
    script = (
        "import asyncio, sys, msgspec\n"
        "from commonweight.engines.llama import LlamaEngine\n"
        f"from {type(chosen).__module__} import {type(chosen).__name__} as Chosen\n"
        "async def main():\n"
        "    engine = LlamaEngine(msgspec.json.decode(sys.argv[1], type=Chosen))\n"
        "    await engine.start()\n"
        "    print(engine.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    options = msgspec.json.encode(chosen).decode()
    parent = subprocess.Popen([sys.executable, "-c", script, options], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(timeout=30)
