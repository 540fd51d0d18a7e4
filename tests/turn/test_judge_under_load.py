"""Eight doubtful streams on eight places, with the served model as judge: none waits for another's end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.charter import DEFAULT as CHARTER
from commonweight.charter import parse
from commonweight.engines.contract import EngineError, EngineEvent, Finish, Job
from commonweight.engines.llama import LlamaEngine, WorkerConfig
from commonweight.engines.llama.engine import PendingJob
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.judge.judge import JudgeQuestion
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.runtime.assistant import JUDGE_PLACES
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant, Origin, TurnRecord
from commonweight.turn.self_judge import SelfJudge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLACES = 8
TOKENS = 90
"""Of each answer: there is a question about it after 9 tokens, and after 64 more."""


class WatchedEngine(LlamaEngine):
    """The embedded engine, which notes when streams have been generated to their end."""

    def __init__(self, config: WorkerConfig, order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(config)
        self._order, self._monkeypatch = order, monkeypatch

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[PendingJob]:
        async with super().run(job) as pending:
            put = pending.put

            def watch(event: EngineEvent | EngineError) -> None:
                if isinstance(event, Finish):
                    self._order.append("ended")
                put(event)

            if job.probe is not None:  # questions have none
                self._monkeypatch.setattr(pending, "put", watch)
            yield pending


def make_doubtful(bundle: Bundle) -> Bundle:
    """A bundle for which every answer is in doubt, and none is harmful for sure."""
    states = bundle.manifest.output["states"].model_copy(update={"low": -1e6, "high": 1e6, "points": {}})
    output = {**bundle.manifest.output, "states": states}
    return Bundle(bundle.manifest.model_copy(update={"output": output}), bundle.tensors)


def request(number: int) -> MessageRequest:
    question = f"Tell me a long story about loaf number {number}, with many chapters."
    return MessageRequest.model_validate(
        {
            "model": "m",
            "max_tokens": TOKENS,
            "temperature": 0,
            "messages": [{"role": "user", "content": question}],
        }
    )


@pytest.mark.parametrize("tenants", [1, PLACES])
async def test_doubtful_streams_do_not_stall_each_other(
    tenants: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    records: list[TurnRecord] = []
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        card, tokenizer = ModelCard.from_gguf(gguf), Tokenizer(gguf)
        config = WorkerConfig(
            path=str(card.path),
            window=2048,
            cells=16384,
            sequences=PLACES + JUDGE_PLACES,
            reserved=JUDGE_PLACES,
            threads=1,
        )
        engine = WatchedEngine(config, order, monkeypatch)
        judge = SelfJudge(Renderer(tokenizer, card.chat_template), engine, sorted(tokenizer.end_ids))

        async def ask(question: JudgeQuestion) -> float:
            # What so small a model says does not matter here, but that it says it.
            assert 0 <= await judge(question) <= 1
            order.append("answered")
            return 0.0

        guard = Guard(
            parse(CHARTER.read_bytes()),
            make_doubtful(Bundle.load(DEFAULT, None)),
            None,
            judge=ask,
            judge_seconds=300,
        )
        signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
        assistant = Assistant(card, tokenizer, engine, signer, guard=guard, listeners=[records.append])

        async def stream(number: int) -> None:
            turn = await assistant.prepare(request(number), Origin(tenant=f"team {number % tenants}"))
            # It goes on to its last token.
            turn = replace(turn, job=msgspec.structs.replace(turn.job, stop_ids=[]))
            async with contextlib.aclosing(assistant.stream(turn)) as events:
                async for _ in events:
                    pass

        await engine.start()
        try:
            await asyncio.gather(*map(stream, range(PLACES)))
        finally:
            await engine.aclose()
    assert [one.stop_reason for one in records] == ["max_tokens"] * PLACES
    assert all(one.findings is not None and one.findings.escalated for one in records)
    assert "no verdict" not in caplog.text
    assert order.count("answered") >= 2 * PLACES
    # A question is answered before any stream has been generated to its end, and so left a place.
    assert "ended" not in order[: order.index("answered")]
