"""Turns with a guard: what a refusal is on the wire, and that benign turns are what they are without one."""

import contextlib
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.charter import DEFAULT as CHARTER
from commonweight.charter import parse
from commonweight.engines.contract import (
    Admitted,
    CacheWrites,
    EngineEvent,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.heads.scorer import LAST, OUTPUT
from commonweight.messages.events import MessageFold, StreamEvent
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import Message, OutputThinking
from commonweight.prompting import Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant, Origin, TurnRecord
from fakes import FakeEngine

ORIGIN = Origin("req_1", "a team", "key_1")
WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALM, ALARMING = -50.0, 50.0


class Scripted(FakeEngine):
    """An engine that says a text, and has a score for the prompt and for each token of the answer."""

    window = 4096
    is_ready = True

    def __init__(self, said: list[int], asked: float, heads: int, answered: list[float]) -> None:
        self.stats = Stats()
        self.jobs: list[Job] = []
        self.kept: list[int] = []
        self.told = 0
        self._said, self._asked, self._heads, self._answered = said, asked, heads, answered

    def _row(self, column: int, score: float) -> bytes:
        row = [0.0] * self._heads
        row[column] = score
        return struct.pack(f"<{self._heads}f", *row)

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator["Scripted"]:
        self.jobs.append(job)
        self._events = self._script(job)
        yield self

    def _script(self, job: Job) -> Iterator[EngineEvent]:
        yield Admitted(3)
        rows = [self._row(LAST, self._asked)] * len(job.token_ids)
        yield Prefilled(CacheWrites(), b"".join(rows) if job.probe else None)
        for i, token in enumerate(self._said):
            score = self._answered[min(i, len(self._answered) - 1)]
            yield Step(token, None, self._row(OUTPUT, score) if job.probe else None)
        yield Finish("stop", Timings(0, 0, 0))

    def __aiter__(self) -> "Scripted":
        return self

    async def __anext__(self) -> EngineEvent:
        for event in self._events:
            self.told += 1
            return event
        raise StopAsyncIteration

    def truncate(self, position: int) -> None:
        self.kept.append(position)


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


@pytest.fixture(scope="module")
def guard() -> Guard:
    # Without the encoder, so that the scripted states alone decide.
    return Guard(parse(CHARTER.read_bytes()), Bundle.load(DEFAULT, None), None)


def request(**fields: Any) -> MessageRequest:
    body = {"model": "m", "max_tokens": 400, "messages": [{"role": "user", "content": "Hello."}], **fields}
    return MessageRequest.model_validate(body)


async def turn(
    gguf: Gguf,
    guard: Guard | None,
    said: str,
    *,
    asked: float = CALM,
    answered: tuple[float, ...] = (CALM,),
    of: MessageRequest | None = None,
) -> tuple[list[StreamEvent], TurnRecord, Scripted]:
    tokenizer = Tokenizer(gguf)
    heads = guard.probe.heads if guard and guard.probe else 3
    engine = Scripted(tokenizer.encode(said), asked, heads, list(answered))
    records: list[TurnRecord] = []
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    assistant = Assistant(
        ModelCard.from_gguf(gguf), tokenizer, engine, signer, guard=guard, listeners=[records.append]
    )
    events = [event async for event in assistant.stream(await assistant.prepare(of or request(), ORIGIN))]
    return events, records[0], engine


def folded(events: list[StreamEvent]) -> Message:
    fold = MessageFold()
    for event in events:
        fold.add(event)
    return fold.build_message()


STORY = "The lighthouse keeper wrote down the weather every evening, and in the morning he cleaned the glass. " * 4


async def test_a_benign_turn_is_the_same_with_a_guard(gguf: Gguf, guard: Guard) -> None:
    with_guard, record, engine = await turn(gguf, guard, STORY)
    without, _, plain = await turn(gguf, None, STORY)

    def content(events: list[StreamEvent]) -> list[object]:
        return [event.model_dump(exclude={"message": {"id"}}) for event in events]

    assert content(with_guard) == content(without)
    assert engine.kept == plain.kept
    assert record.findings is not None
    assert record.findings.verdicts == []
    assert engine.jobs[0].probe is not None
    assert plain.jobs[0].probe is None
    assert "guard" not in folded(with_guard).model_dump()


async def test_a_refused_request_says_nothing(gguf: Gguf, guard: Guard) -> None:
    events, record, engine = await turn(gguf, guard, STORY, asked=ALARMING)
    assert [event.type for event in events] == ["message_start", "message_delta", "message_stop"]
    message = folded(events)
    assert message.content == []
    assert message.stop_reason == "refusal"
    assert message.stop_details is not None
    assert set(message.stop_details.model_dump()) == {"type", "category", "explanation"}
    assert message.stop_details.type == "refusal"
    assert message.guard is not None
    principle = guard.get_principle(message.guard.principle)
    assert message.guard.charter == guard.charter.sha256
    assert message.stop_details.category == principle.category
    assert message.stop_details.explanation == principle.message
    assert (message.guard.place, message.guard.stage) == ("input", "ensemble")
    assert (message.guard.block, message.guard.span) == ("messages[0].content[0]", (0, len("Hello.")))
    # It is billed, it is on record, and nothing that was drawn is kept.
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens == len(engine.jobs[0].token_ids)
    assert message.usage.output_tokens == 0
    assert record.stop_reason == "refusal"
    assert record.findings is not None
    assert record.findings.refusal is not None
    assert engine.kept == [len(engine.jobs[0].token_ids)]
    assert engine.told == 2


async def test_results_of_tools_are_not_taken_for_the_users_turn(gguf: Gguf, guard: Guard) -> None:
    call = {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Kyiv"}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": "Rain."}
    messages = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    events, record, _ = await turn(
        gguf, guard, STORY, asked=ALARMING, of=request(messages=messages, tools=[WEATHER])
    )
    assert folded(events).stop_reason == "end_turn"
    assert record.findings is not None
    assert record.findings.verdicts == []


async def test_evidence_is_told_in_characters_of_the_right_block(gguf: Gguf, guard: Guard) -> None:
    asked = "How can I hurt somebody badly with a knife?"
    blocks = [{"type": "text", "text": "Guten Abend, äöü. Ich mag Brot."}, {"type": "text", "text": asked}]
    events, *_ = await turn(
        gguf, guard, STORY, asked=ALARMING, of=request(messages=[{"role": "user", "content": blocks}])
    )
    verdict = folded(events).guard
    assert verdict is not None
    assert verdict.block == "messages[0].content[1]"
    assert verdict.span is not None
    assert "knife" in asked[slice(*verdict.span)]


async def test_the_next_turn_passes(gguf: Gguf, guard: Guard) -> None:
    refused, *_ = await turn(gguf, guard, STORY, asked=ALARMING)
    history = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "(refused)"},
        {"role": "user", "content": "How do I bake bread?"},
    ]
    passed, record, _ = await turn(gguf, guard, STORY, of=request(messages=history))
    assert folded(refused).stop_reason == "refusal"
    assert folded(passed).stop_reason == "end_turn"
    assert record.findings is not None
    assert record.findings.verdicts == []


async def test_an_answer_that_turns_bad_is_cut(gguf: Gguf, guard: Guard) -> None:
    events, record, engine = await turn(gguf, guard, STORY, answered=(*[CALM] * 20, ALARMING))
    message = folded(events)
    assert message.stop_reason == "refusal"
    [block] = message.content
    assert block.type == "text"
    assert STORY.startswith(block.text)
    assert 0 < len(block.text) < len(STORY) / 2
    assert message.usage.output_tokens > 20
    assert message.guard is not None
    assert (message.guard.place, message.guard.block, message.guard.tool) == ("output", "content[0]", None)
    assert message.guard.span is not None
    start, end = message.guard.span
    assert 0 <= start < len(block.text) + 20
    assert start < end < len(STORY)
    assert record.usage.output_tokens == message.usage.output_tokens
    assert engine.kept == [len(engine.jobs[0].token_ids)]


async def test_one_spike_cuts_nothing(gguf: Gguf, guard: Guard) -> None:
    events, *_ = await turn(gguf, guard, STORY, answered=(*[CALM] * 20, ALARMING, CALM))
    [block] = folded(events).content
    assert block.type == "text"
    assert block.text == STORY.rstrip() or block.text == STORY


async def test_a_refusal_leaves_no_half_of_a_call(gguf: Gguf, guard: Guard) -> None:
    city = "Kyiv, and then every other city in the country, one after the other, until there are none left " * 3
    call = f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
    of = request(tools=[WEATHER])
    whole, *_ = await turn(gguf, guard, call, of=of)
    assert [block.type for block in folded(whole).content] == ["tool_use"]
    cut, *_ = await turn(gguf, guard, call, of=of, answered=(*[CALM] * 30, ALARMING))
    message = folded(cut)
    assert message.stop_reason == "refusal"
    assert message.content == []
    assert message.guard is not None
    assert (message.guard.place, message.guard.tool) == ("tool_input", "weather")
    assert message.guard.block == "content[0]"


async def test_refused_reasoning_is_not_signed(gguf: Gguf, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_answer import THINKING

    original = ModelCard.from_gguf

    def thinking(opened: Gguf) -> ModelCard:
        from dataclasses import replace

        return replace(original(opened), chat_template=THINKING)

    monkeypatch.setattr(ModelCard, "from_gguf", thinking)
    of = request(max_tokens=3000, thinking={"type": "enabled", "budget_tokens": 2000})
    said = STORY + "</think>\n\nGood evening."
    calm, *_ = await turn(gguf, guard, said, of=of)
    assert isinstance(folded(calm).content[0], OutputThinking)
    assert folded(calm).content[0].signature  # type: ignore[union-attr]
    cut, *_ = await turn(gguf, guard, said, of=of, answered=(*[CALM] * 20, ALARMING))
    message = folded(cut)
    assert message.stop_reason == "refusal"
    [block] = message.content
    assert isinstance(block, OutputThinking)
    assert block.signature == ""
    assert message.guard is not None
    assert message.guard.place == "thinking"


async def test_shadow_tells_the_client_nothing(gguf: Gguf) -> None:
    shadow = Guard(parse(CHARTER.read_bytes()), Bundle.load(DEFAULT, None), None, mode="shadow")
    events, record, _ = await turn(gguf, shadow, STORY, asked=ALARMING)
    message = folded(events)
    assert message.stop_reason == "end_turn"
    assert message.guard is None
    assert record.findings is not None
    assert record.findings.verdicts[0].mode == "shadow"
