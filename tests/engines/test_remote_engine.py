"""Engines elsewhere: what becomes of jobs when servers do as they should, and when they do not."""

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest
from fake_upstreams import (
    END,
    PROMPT,
    Act,
    Far,
    answering,
    dying,
    endless,
    engine_at,
    job,
    ran,
    refusing,
    saying,
    silent,
    until,
)
from outcomes import Outcome

from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import (
    Admitted,
    EngineError,
    EngineFullError,
    Prefilled,
    Sampling,
    Step,
)
from commonweight.engines.remote import UpstreamMismatchError, engine
from commonweight.engines.remote import upstream as place

pytest_plugins = "fake_upstream_fixtures"


# What a server turns out to be


async def told(gguf: Gguf, *servers: Far) -> str:
    lines: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        remote = await stack.enter_async_context(engine_at(gguf, *(server.url for server in servers)))
        await remote.start(lines.append)
        return "\n".join(lines)


async def test_what_is_found_out_is_told_in_a_line(gguf: Gguf, far: Far) -> None:
    assert await told(gguf, far) == (
        f"vLLM at {far.url}: far, 1024 tokens, asked at /inference/v1/generate, grammars kept there, "
        "priorities passed on, tokens of 21 texts and the template as here"
    )


async def test_what_a_server_cannot_do_is_done_without(gguf: Gguf, far: Far) -> None:
    far.has_generate = far.keeps_grammars = far.has_priorities = False
    line = await told(gguf, far)
    assert "asked at /v1/completions, grammars kept here, no priorities" in line
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote, job(priority="batch"))
    assert outcome.tokens == [19556, 30, END]
    assert far.asked[0]["return_token_ids"] is True
    assert "priority" not in far.asked[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wrong_text": "1 12 123"}, "serves another model than --model, or another version of it: '1 12 123' is"),
        ({"wrong_text": "<|im_end|>", "template": ""}, "another chat template"),
        ({"template": "<|im_start|>human\n{}<|im_end|>\n"}, "another chat template"),
        ({"key": "secret"}, "wants another --engine-key"),
    ],
)
async def test_a_server_that_is_not_what_it_should_be_is_refused(
    gguf: Gguf, far: Far, changes: dict[str, Any], words: str
) -> None:
    for name, value in changes.items():
        setattr(far, name, value)
    with pytest.raises(UpstreamMismatchError, match=words):
        await told(gguf, far)


async def test_without_any_server_nothing_starts(gguf: Gguf) -> None:
    with pytest.raises(
        UpstreamMismatchError, match=r"no server answers \(http://127.0.0.1:9: ClientConnectorError"
    ):
        async with engine_at(gguf, "http://127.0.0.1:9"):
            pass


async def test_the_least_window_of_all_holds(gguf: Gguf, far: Far, other: Far) -> None:
    other.window = 512
    async with engine_at(gguf, far.url, other.url) as remote:
        assert remote.window == 512
    async with engine_at(gguf, far.url, other.url, context=100) as remote:
        assert remote.window == 100


async def test_a_key_is_sent(gguf: Gguf, far: Far) -> None:
    far.key = "secret"
    async with engine_at(gguf, far.url, server_key="secret") as remote:
        assert (await ran(remote)).tokens == [19556, 30, END]


# Answers


async def test_an_answer(gguf: Gguf, far: Far) -> None:
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote, job(sampling=Sampling(0.5, 7, 0.9, 0.1, 42), want_logprobs=True))
        stats = remote.stats
    assert stats.running == 0
    assert (stats.generated_tokens, stats.prefilled_tokens, stats.remote_tokens) == (3, 3, 3)
    admitted, prefilled, *steps, _ = outcome.events
    assert (admitted, prefilled) == (Admitted(0), Prefilled())
    assert steps == [Step(19556, -1.9556), Step(30, -0.003), Step(END, -0.0002)]
    assert (outcome.finish.reason, outcome.finish.cached_tokens) == ("stop", 3)
    asked = far.asked[0]
    assert asked["token_ids"] == PROMPT
    assert {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 42,
        "logprobs": 0,
    }.items() <= asked["sampling_params"].items()
    assert asked["sampling_params"]["stop_token_ids"] == [0, END]


async def test_nothing_is_made_up_about_the_cache(gguf: Gguf, far: Far) -> None:
    far.cached = None
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote)
        assert (outcome.finish.reason, outcome.finish.cached_tokens) == ("stop", 0)
        assert remote.stats.remote_tokens == 0


async def test_figures_that_never_come_are_not_waited_for(
    gguf: Gguf, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "USAGE_TIMEOUT_SECONDS", 0.05)
    far.answers = [silent([19556, END])]
    async with engine_at(gguf, far.url) as remote:
        assert (await ran(remote)).tokens == [19556, END]


async def test_a_prompt_is_read_in_advance(gguf: Gguf, far: Far) -> None:
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote, job(max_tokens=0))
        assert outcome.tokens == []
        assert outcome.finish.reason == "length"
        assert far.asked[0]["sampling_params"]["max_tokens"] == 1
        # There is no room to draw even one: nobody is asked.
        assert (await ran(remote, job(token_ids=[5] * 1024, max_tokens=0))).tokens == []
        assert len(far.asked) == 1
        with pytest.raises(ValueError, match="window"):
            await ran(remote, job(token_ids=[5] * 1024, max_tokens=1))


async def test_answers_end_at_their_limit(gguf: Gguf, far: Far) -> None:
    async with engine_at(gguf, far.url) as remote:
        outcome = await ran(remote, job(max_tokens=2))
        assert (outcome.tokens, outcome.finish.reason) == ([19556, 30], "length")
        far.answers = [endless(30)]
        outcome = await ran(remote, job(max_tokens=4))
        assert (outcome.tokens, outcome.finish.reason) == ([30] * 4, "length")


async def test_a_stop_token_that_is_not_shown(gguf: Gguf, far: Far) -> None:
    stopped = b'data: {"choices":[{"token_ids":[30],"finish_reason":"stop"}]}\n\n'
    far.answers = [saying(stopped)]
    async with engine_at(gguf, far.url) as remote:
        assert (await ran(remote)).tokens == [30, 0]


# Who is who


async def test_tenants_have_caches_of_their_own(gguf: Gguf, far: Far) -> None:
    async with engine_at(gguf, far.url) as remote, engine_at(gguf, far.url) as elsewhere:
        for one, tenant in ((remote, "alice"), (remote, "bob"), (elsewhere, "alice"), (remote, "")):
            await ran(one, job(tenant=tenant))
    alice, bob, again, nobody = (body["cache_salt"] for body in far.asked)
    assert alice == again
    assert len({alice, bob, nobody}) == 3
    assert "alice" not in alice
    assert len(nobody) == 43


async def test_a_conversation_stays_in_one_place(gguf: Gguf, far: Far, other: Far) -> None:
    async with engine_at(gguf, far.url, other.url) as remote:
        for number in range(20):
            for turn in range(3):
                await ran(remote, job(session=f"conversation {number}", token_ids=PROMPT * (turn + 1)))
    counts = Counter([*far.sessions, *other.sessions])
    assert len(counts) == 20
    assert set(far.sessions).isdisjoint(other.sessions)
    assert min(len(far.asked), len(other.asked)) >= 12
    assert not any("conversation" in (name or "") for name in counts)


async def test_a_full_place_is_passed_over(gguf: Gguf, far: Far, other: Far) -> None:
    far.answers, other.answers = [silent()] * 9, [silent()] * 9
    async with engine_at(gguf, far.url, other.url) as remote, contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(remote.run(job(session="the same")))
        async with asyncio.timeout(5):
            while len(far.asked) + len(other.asked) < 8:
                await asyncio.sleep(0.01)
        assert sorted([len(far.asked), len(other.asked)]) == [3, 5]


# Faults


def broken() -> list[Act]:
    return [
        refusing(500),
        refusing(503),
        refusing(429),
        dying(),
        saying(b"data: {not json\n\n"),
        saying(b'data: {"choices": 7}\n\n'),
        saying(b'data: {"error": {"message": "boom"}}\n\n'),
        saying(b'data: {"choices":[{"token_ids":[99999]}]}\n\n'),
        saying(b'data: {"choices":[{"token_ids":[-1]}]}\n\n'),
        saying(b'data: {"choices":[{"token_ids":[],"finish_reason":"abort"}]}\n\n'),
        saying(b""),
        saying(b"x" * (place.MAX_LINE_BYTES + 1)),
        silent(),
    ]


@pytest.mark.parametrize("number", range(len(broken())))
async def test_what_has_produced_nothing_is_tried_elsewhere(gguf: Gguf, far: Far, other: Far, number: int) -> None:
    far.answers, other.answers = [broken()[number]], []
    async with engine_at(gguf, far.url, other.url, read_timeout=0.3) as remote:
        for session in range(100):  # until one goes to the broken place first
            outcome = await ran(remote, job(session=str(session)))
            assert outcome.tokens == [19556, 30, END]
            if not far.answers:
                break
        assert not far.answers
        assert sum(isinstance(event, Admitted) for event in outcome.events) == 1
        assert remote.is_ready


@pytest.mark.parametrize(
    "act",
    [
        dying([19556]),
        silent([19556]),
        answering([19556], ends=None),
        saying(b'data: {"choices":[{"token_ids":[19556]}]}\n\ndata: {"error": "boom"}\n\n'),
        saying(b'data: {"choices":[{"token_ids":[19556]}]}\n\ndata: {"choices":[{"token_ids":[49152]}]}\n\n'),
    ],
)
async def test_what_has_begun_ends_with_an_error_and_is_not_repeated(
    gguf: Gguf, far: Far, other: Far, act: Act
) -> None:
    far.answers, other.answers = [act], [act]
    outcome = Outcome()
    async with engine_at(gguf, far.url, other.url, read_timeout=0.3) as remote:
        with pytest.raises(EngineError, match="failed in the middle of the answer"):
            async with remote.run(job()) as events:
                async for event in events:
                    outcome.events.append(event)
    assert outcome.tokens == [19556]
    assert len(far.asked) + len(other.asked) == 1


async def test_a_wrong_request_is_nobodys_fault_but_ours(gguf: Gguf, far: Far, other: Far) -> None:
    far.answers, other.answers = [refusing(400)], [refusing(400)]
    async with engine_at(gguf, far.url, other.url) as remote:
        with pytest.raises(EngineError, match="refused the request") as caught:
            await ran(remote)
        assert not isinstance(caught.value, EngineFullError)
        assert len(far.asked) + len(other.asked) == 1


async def test_all_full(gguf: Gguf, far: Far) -> None:
    far.answers = [refusing(503)] * 9
    async with engine_at(gguf, far.url) as remote:
        for _ in range(9):  # to be full is no failure
            with pytest.raises(EngineFullError, match="full"):
                await ran(remote)
        assert (await ran(remote)).tokens == [19556, 30, END]


async def test_a_server_that_fails_again_and_again_is_left_alone(
    gguf: Gguf, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.answers = [refusing(500)] * place.MAX_CONSECUTIVE_FAILURES
    async with engine_at(gguf, far.url) as remote:
        for _ in range(place.MAX_CONSECUTIVE_FAILURES + 5):
            with pytest.raises(EngineFullError, match="None of the servers"):
                await ran(remote)
        assert len(far.asked) == place.MAX_CONSECUTIVE_FAILURES
        assert not remote.is_ready
        monkeypatch.setattr(remote._pool.upstreams[0], "_now", lambda: 1e12)
        assert remote.is_ready
        assert (await ran(remote)).tokens == [19556, 30, END]


async def test_a_server_that_goes_and_comes_back(gguf: Gguf) -> None:
    far = Far()
    async with contextlib.AsyncExitStack() as stack:
        async with far.running():
            remote = await stack.enter_async_context(engine_at(gguf, far.url, health_interval=0.05))
            await ran(remote)
        port = int(far.url.rpartition(":")[2])
        await until(lambda: not remote.is_ready)
        with pytest.raises(EngineFullError):
            await ran(remote)
        # As another one, it is not used.
        far.wrong_text = "1 12 123"
        async with far.running(port):
            await asyncio.sleep(0.3)
            assert not remote.is_ready
            far.wrong_text = None
            await until(lambda: remote.is_ready)
            assert (await ran(remote)).tokens == [19556, 30, END]
            far.is_healthy = False
            await until(lambda: not remote.is_ready)


async def test_a_server_may_come_later(gguf: Gguf, far: Far, caplog: pytest.LogCaptureFixture) -> None:
    late = Far()
    async with late.running():
        port = int(late.url.rpartition(":")[2])
    async with engine_at(gguf, far.url, late.url, health_interval=0.05) as remote:
        assert f"not there yet: {late.url}" in caplog.text
        late.window = 512
        async with late.running(port):
            await until(lambda: "has a context of 512 tokens, not 1024" in caplog.text)
            late.window = 2048
            await until(lambda: all(one.is_available for one in remote._pool.upstreams))


async def test_clients_that_leave(gguf: Gguf, far: Far) -> None:
    far.answers = [silent([19556])]
    async with engine_at(gguf, far.url) as remote:
        async with remote.run(job()) as events:
            async for event in events:
                if isinstance(event, Step):
                    break
            events.truncate(3)
        await until(lambda: far.hung_up == 1)
        assert remote.stats.running == 0
        assert (await ran(remote)).tokens == [19556, 30, END]


async def test_what_runs_when_the_engine_closes_fails(gguf: Gguf, far: Far) -> None:
    far.answers = [silent([19556])]
    async with engine_at(gguf, far.url) as remote, remote.run(job()) as events:
        async for event in events:
            if isinstance(event, Step):
                break
        await remote.aclose()
        with pytest.raises(EngineError, match="shutting down"):
            await anext(aiter(events))
        with pytest.raises(EngineError, match="shutting down"):
            await ran(remote)
        await until(lambda: far.hung_up == 1)


async def test_there_is_a_limit_to_jobs(gguf: Gguf, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_JOBS", 1)
    far.answers = [silent()]
    async with engine_at(gguf, far.url) as remote, remote.run(job()):
        with pytest.raises(EngineFullError, match="1 requests"):
            await ran(remote)
