"""Jobs on real servers: what comes of them, and who finds what in the cache."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from peers import Machine

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.engines.contract import (
    Admitted,
    EngineError,
    Finish,
    Job,
    Prefilled,
    Sampling,
    ScoringUnsupportedError,
    Step,
)
from commonweight.engines.grammars import GrammarCompiler
from commonweight.engines.llama import LlamaEngine, WorkerConfig
from commonweight.engines.remote import RemoteEngine
from commonweight.engines.remote.vllm import VllmCompletions, VllmGenerate
from commonweight.engines.settings import RemoteSettings
from commonweight.prompting import Renderer, Tokenizer
from commonweight.runtime.assistant import make_vocabulary

pytest_plugins = "peer_fixtures"

pytestmark = [pytest.mark.elsewhere, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

GREEDY = Sampling(temperature=0)
ENDS = [0, 2]


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


@pytest.fixture(scope="module")
def tokenizer(gguf: Gguf) -> Tokenizer:
    return Tokenizer(gguf)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(gguf: Gguf, machine: Machine, tokenizer: Tokenizer) -> AsyncIterator[RemoteEngine]:
    vocabulary = make_vocabulary(tokenizer, Renderer(tokenizer, ModelCard.from_gguf(gguf).chat_template))
    kind: Any = machine.kind
    settings = RemoteSettings(kind=kind, urls=(machine.url,))
    engine = RemoteEngine(settings, vocabulary, GrammarCompiler(gguf.vocab), b"a key")
    try:
        await engine.start()
        yield engine
    finally:
        await engine.aclose()


async def ran(engine: RemoteEngine | LlamaEngine, job: Job) -> tuple[list[int], list[float], int]:
    """The tokens, their probabilities' logarithms, and how many of the prompt were cached."""
    steps: list[Step] = []
    cached = -1
    async with engine.run(job) as events:
        async for event in events:
            match event:
                case Admitted(cached_tokens):
                    cached = cached_tokens
                case Step():
                    steps.append(event)
                case Finish(cached_tokens=int(late)):
                    cached = late
                case _:
                    pass
    return [step.token_id for step in steps], [step.logprob or 0.0 for step in steps], cached


def chat(tokenizer: Tokenizer, text: str) -> list[int]:
    start, end = tokenizer.special_tokens["<|im_start|>"], tokenizer.special_tokens["<|im_end|>"]
    user, assistant = tokenizer.encode("user\n" + text), tokenizer.encode("assistant\n")
    return [start, *user, end, *tokenizer.encode("\n"), start, *assistant]


async def test_the_model_says_what_it_says_here(engine: RemoteEngine, tokenizer: Tokenizer) -> None:
    prompt = chat(tokenizer, "Count from one to ten.")
    embedded = LlamaEngine(WorkerConfig(path=str(resolve(None)), window=1024, cells=2048, sequences=2, threads=1))
    apart: list[float] = []
    try:
        await embedded.start()
        answer, likely, _ = await ran(embedded, Job(prompt, 16, ENDS, GREEDY, want_logprobs=True))
        for i, here in enumerate(likely):
            # How likely the likeliest token is: which it is, kernels and roundings may decide at a close call.
            _, (there,), _ = await ran(engine, Job(prompt + answer[:i], 1, ENDS, GREEDY, want_logprobs=True))
            apart.append(abs(here - there))
    finally:
        await embedded.aclose()
    assert max(apart) < 0.5
    assert sum(apart) / len(apart) < 0.12


async def test_given_tokens_are_as_likely_there_as_here(
    engine: RemoteEngine, tokenizer: Tokenizer, machine: Machine
) -> None:
    text = chat(tokenizer, "Name the days of the week.") + tokenizer.encode("Monday, Tuesday, Wednesday, Thursday")
    if machine.kind == "llama-server":
        with pytest.raises(ScoringUnsupportedError):
            await anext(engine.score(text))
        return
    embedded = LlamaEngine(WorkerConfig(path=str(resolve(None)), window=1024, cells=2048, sequences=2, threads=1))
    try:
        await embedded.start()
        here, there = [[chunk async for chunk in one.score(text, top=2, start=3)] for one in (embedded, engine)]
    finally:
        await embedded.aclose()
    ours, theirs = (np.array([value for chunk in chunks for value in chunk.logprobs]) for chunks in (here, there))
    apart = np.abs(ours - theirs)
    assert len(apart) == len(text) - 3
    # Kernels and roundings differ most where a token is next to impossible.
    assert apart[ours > -5].max() < 0.5
    assert np.median(apart) < 0.12
    ours, theirs = (np.array([ids[0] for chunk in chunks for ids in chunk.top_ids]) for chunks in (here, there))
    assert np.mean(ours == theirs) > 0.9
    with pytest.raises(EngineError, match="at most 20"):
        await anext(engine.score(text, top=21))


async def test_an_answer_is_held_to_a_grammar(engine: RemoteEngine, tokenizer: Tokenizer) -> None:
    grammar = 'start: "I like " ("\N{GRINNING FACE}" | "tea") /[a-c]{3}/ "!"'
    for seed in range(6):
        job = Job(chat(tokenizer, "Say something."), 40, ENDS, Sampling(seed=seed), grammar)
        tokens, _, _ = await ran(engine, job)
        text = b"".join(map(tokenizer.decode, tokens)).decode()
        assert text[:7] == "I like "
        assert text.removeprefix("I like ").removeprefix("tea").removeprefix("\N{GRINNING FACE}")[3:] == "!"
        assert tokens[-1] in ENDS


async def test_words_are_as_likely_as_they_are_without_a_grammar(
    engine: RemoteEngine, tokenizer: Tokenizer
) -> None:
    prompt = chat(tokenizer, "Is water wet? Answer with yes or no.")
    likely = []
    for word in ("yes", "no"):
        job = Job(prompt, 4, ENDS, GREEDY, f'start: "{word}"', want_logprobs=True)
        tokens, logprobs, _ = await ran(engine, job)
        assert b"".join(map(tokenizer.decode, tokens)).decode() == word
        likely.append(logprobs[0])
    assert all(logprob < -0.05 for logprob in likely)
    assert likely[0] != likely[1]


async def test_a_prompt_is_read_in_advance(engine: RemoteEngine, tokenizer: Tokenizer) -> None:
    prompt = chat(tokenizer, " ".join(secrets.token_hex(4) for _ in range(60)))
    assert (await ran(engine, Job(prompt, 0, ENDS, GREEDY)))[0] == []
    assert (await ran(engine, Job(prompt, 2, ENDS, GREEDY)))[2] > len(prompt) / 2


async def test_only_a_tenant_finds_its_own_prefixes(
    engine: RemoteEngine, tokenizer: Tokenizer, machine: Machine
) -> None:
    prompt = chat(tokenizer, " ".join(secrets.token_hex(4) for _ in range(60)))

    async def cached(tenant: str) -> int:
        return (await ran(engine, Job(prompt, 2, ENDS, GREEDY, tenant=tenant)))[2]

    assert await cached("alice") < 32
    if machine.kind == "vllm":
        assert await cached("alice") > len(prompt) / 2  # in whole blocks
    assert await cached("bob") < 32
    assert await cached("") < 32
    # llama-server has one cache for everybody. There have been two now, so that nobody gets anything from it.
    assert (await cached("") > len(prompt) / 2) == (machine.kind == "vllm")


async def test_a_whole_window(engine: RemoteEngine) -> None:
    full = [4093] * (engine.window - 1)
    tokens, _, _ = await ran(engine, Job(full, 1, ENDS, GREEDY))
    assert len(tokens) <= 1
    assert (await ran(engine, Job([*full, 4093], 0, ENDS, GREEDY)))[0] == []


async def test_whoever_leaves_is_not_computed_for(
    engine: RemoteEngine, tokenizer: Tokenizer, machine: Machine
) -> None:
    job = Job(chat(tokenizer, "Tell me a very long story."), 3000, [], Sampling(seed=1))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            events = await stack.enter_async_context(engine.run(job))
            async for event in events:
                if isinstance(event, Prefilled):
                    break
        assert await busy(machine) > 0
    async with asyncio.timeout(10):
        while await busy(machine):
            await asyncio.sleep(0.1)


async def busy(machine: Machine) -> int:
    """How many jobs a server works on, in its own words."""
    async with httpx.AsyncClient(base_url=machine.url) as client:
        if machine.kind == "llama-server":
            return sum(slot["is_processing"] for slot in (await client.get("/slots")).json())
        lines = (await client.get("/metrics")).text.splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running")))


async def test_completions_will_do(engine: RemoteEngine, tokenizer: Tokenizer) -> None:
    (place,) = engine._pool.upstreams
    known = place.backend
    if not isinstance(known, VllmGenerate):
        pytest.skip("not vLLM")
    job = Job(chat(tokenizer, "Name three colours."), 16, ENDS, GREEDY, want_logprobs=True)
    held = replace_grammar(job, 'start: "red, " /[a-z]{4}/')
    expected = [await ran(engine, one) for one in (job, held)]
    try:
        place.backend = VllmCompletions(known.model, known.supports_grammars, known.supports_priorities)
        found = [await ran(engine, one) for one in (job, held)]
    finally:
        place.backend = known
    assert [tokens for tokens, _, _ in found] == [tokens for tokens, _, _ in expected]
    assert found[0][1] == pytest.approx(expected[0][1], abs=0.1)


def replace_grammar(job: Job, grammar: str) -> Job:
    return Job(job.token_ids, job.max_tokens, job.stop_ids, job.sampling, grammar)
