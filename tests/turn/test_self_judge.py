"""The served model judges: one word, its probability, and what is cached for whom."""

import contextlib
import math
from collections.abc import AsyncIterator, Iterator

import pytest

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.charter import DEFAULT, parse
from commonweight.engines.contract import (
    Admitted,
    EngineError,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.engines.llama import LlamaEngine, WorkerConfig
from commonweight.engines.llama.engine import PendingJob
from commonweight.guard.judge.judge import JudgeError, JudgeQuestion
from commonweight.prompting import Renderer, Tokenizer
from commonweight.turn.self_judge import SelfJudge
from fakes import FakeEngine

PRINCIPLE = parse(DEFAULT.read_bytes()).principles[0]


class Sure(FakeEngine):
    """An engine that finds the words as likely as it is told, and the token that ends them certain."""

    is_ready = True

    def __init__(self, end: int, window: int = 4096, **likely: float) -> None:
        self.stats = Stats()
        self.window = window
        self.jobs: list[Job] = []
        self._end, self._likely = end, likely

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator["Sure"]:
        self.jobs.append(job)
        word = next(word for word in ("yes", "no") if word in (job.grammar or ""))
        if word not in self._likely:
            raise EngineError("it fell over")
        events: list[EngineEvent] = [Admitted(0), Prefilled(), Step(7, self._likely[word]), Step(self._end, -9.0)]
        self._events = iter([*events, Finish("stop", Timings(0, 0, 0))])
        yield self

    def __aiter__(self) -> "Sure":
        return self

    async def __anext__(self) -> EngineEvent:
        for event in self._events:
            return event
        raise StopAsyncIteration

    def truncate(self, position: int) -> None:
        raise AssertionError("everything was used")


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


def judge_of(gguf: Gguf, engine: Sure | LlamaEngine) -> SelfJudge:
    tokenizer = Tokenizer(gguf)
    return SelfJudge(
        Renderer(tokenizer, ModelCard.from_gguf(gguf).chat_template), engine, sorted(tokenizer.end_ids)
    )


async def test_the_two_words_share_what_is_likely(gguf: Gguf) -> None:
    engine = Sure(min(Tokenizer(gguf).end_ids), yes=math.log(0.3), no=math.log(0.1))
    judge = judge_of(gguf, engine)
    assert await judge(JudgeQuestion(PRINCIPLE, "Hello?", "", tenant="north")) == pytest.approx(0.75)
    assert [job.tenant for job in engine.jobs] == ["north", "north"]
    assert all(job.probe is None for job in engine.jobs)


async def test_an_engine_that_fails_is_no_verdict(gguf: Gguf) -> None:
    with pytest.raises(JudgeError):
        await judge_of(gguf, Sure(min(Tokenizer(gguf).end_ids), yes=-1.0))(JudgeQuestion(PRINCIPLE, "Hello?", ""))


async def test_a_question_that_does_not_fit_is_no_verdict(gguf: Gguf) -> None:
    engine = Sure(min(Tokenizer(gguf).end_ids), window=100, yes=-1.0, no=-1.0)
    with pytest.raises(JudgeError, match="window"):
        await judge_of(gguf, engine)(JudgeQuestion(PRINCIPLE, "Hello?", ""))
    assert not engine.jobs


async def test_a_principle_is_read_once_for_a_tenant(gguf: Gguf, monkeypatch: pytest.MonkeyPatch) -> None:
    cached: list[int] = []

    put = PendingJob.put

    def watched(run: PendingJob, event: EngineEvent | EngineError) -> None:
        if isinstance(event, Admitted):
            cached.append(event.cached_tokens)
        put(run, event)

    monkeypatch.setattr(PendingJob, "put", watched)
    engine = LlamaEngine(
        WorkerConfig(path=str(ModelCard.from_gguf(gguf).path), window=1024, cells=4096, sequences=2, threads=1)
    )
    judge = judge_of(gguf, engine)
    await engine.start()
    try:
        first = await judge(JudgeQuestion(PRINCIPLE, "How does bread rise?", "", tenant="north"))
        again = await judge(JudgeQuestion(PRINCIPLE, "How does bread rise?", "", tenant="north"))
        await judge(JudgeQuestion(PRINCIPLE, "Why is the sky blue at noon?", "", tenant="north"))
        await judge(JudgeQuestion(PRINCIPLE, "How does bread rise?", "", tenant="south"))
    finally:
        await engine.aclose()
    assert 0 < first < 1
    assert again == pytest.approx(first, abs=0.05)
    fresh, word, *_, other_question, _, other_tenant, _ = cached
    assert fresh == other_tenant == 0
    assert word > other_question > 100  # the principle; and with it the question, for the second word
