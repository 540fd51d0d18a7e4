"""Every turn leaves a record, however it ends: what it cost, and how long its parts took."""

import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.engines.contract import (
    Admitted,
    CacheWrites,
    EngineError,
    EngineEvent,
    EngineFullError,
    Finish,
    Job,
    Prefilled,
    Stats,
    Step,
    Timings,
)
from commonweight.messages.errors import ApiError, OverloadedError
from commonweight.messages.events import MessageDelta, MessageStart
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant, Origin, TurnListener, TurnRecord
from commonweight.turn.record import GAP_BUCKETS_SECONDS, Stopwatch, TokenGaps
from fakes import FakeEngine

FINISH = Finish("stop", Timings(0, 0, 0))
WORD = Step(400)
REQUEST = MessageRequest.model_validate(
    {"model": "anything", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello."}]}
)
ORIGIN = Origin("req_1", "a team", "key_1", "batch")


class Scripted(FakeEngine):
    """An engine that tells what it is given, and then fails if that ends with an error."""

    window = 4096
    is_ready = True

    def __init__(self, events: list[EngineEvent | Exception]) -> None:
        self.stats = Stats()
        self.jobs: list[Job] = []
        self._events = events

    @contextlib.asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator["Scripted"]:
        self.jobs.append(job)
        self._left = iter(self._events)
        if isinstance(self._events[0], EngineFullError):
            raise self._events[0]
        yield self

    def __aiter__(self) -> "Scripted":
        return self

    async def __anext__(self) -> EngineEvent:
        for event in self._left:
            if isinstance(event, Exception):
                raise event
            return event
        raise StopAsyncIteration

    def truncate(self, position: int) -> None:
        pass


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


def assistant(
    gguf: Gguf, *events: EngineEvent | Exception, listeners: Sequence[TurnListener] = ()
) -> tuple[Assistant, list[TurnRecord]]:
    records: list[TurnRecord] = []
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    engine = Scripted(list(events))
    made = Assistant(
        ModelCard.from_gguf(gguf), Tokenizer(gguf), engine, signer, listeners=[*listeners, records.append]
    )
    return made, records


async def run(made: Assistant, most: int = 1000) -> int:
    """Read so many events at most; how many there were."""
    turn = await made.prepare(REQUEST, ORIGIN)
    count = 0
    async with contextlib.aclosing(made.stream(turn)) as events:
        async for _ in events:
            count += 1
            if count == most:
                break
    return count


async def test_a_turn_that_comes_to_its_end(gguf: Gguf) -> None:
    made, records = assistant(gguf, Admitted(3), Prefilled(CacheWrites(2, 1)), WORD, WORD, WORD, FINISH)
    await run(made)
    [told] = records
    assert (told.origin, told.model, told.served_by) == (ORIGIN, "anything", made.card.id)
    assert (told.outcome, told.stop_reason, told.error) == ("end_turn", "end_turn", None)
    usage = told.usage
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens, usage.output_tokens) == (3, 3, 3)
    times = told.times
    assert times.queue is not None
    assert times.prefill is not None
    assert times.first_token is not None
    assert times.prepare + times.queue + times.prefill <= times.first_token <= times.total
    assert sum(times.gaps.counts) == 2
    message = told.message()
    assert message is not None
    assert message.content
    assert told.request is REQUEST


async def test_what_was_cached_may_be_known_only_in_the_end(gguf: Gguf) -> None:
    made, records = assistant(
        gguf, Admitted(0), Prefilled(), WORD, Finish("stop", Timings(0, 0, 0), cached_tokens=3)
    )
    turn = await made.prepare(REQUEST, ORIGIN)
    async with contextlib.aclosing(made.stream(turn)) as stream:
        events = [event async for event in stream]
    whole = len(turn.prompt.token_ids)
    begun = next(event.message.usage for event in events if isinstance(event, MessageStart))
    ended = next(event.usage for event in events if isinstance(event, MessageDelta))
    assert (begun.cache_read_input_tokens, begun.input_tokens) == (0, whole)
    assert (ended.cache_read_input_tokens, ended.input_tokens) == (3, whole - 3)
    assert records[0].usage == ended


@pytest.mark.parametrize(
    "again",
    [
        {"content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {
            "content": "Hi",
            "more": [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go on."}],
        },
    ],
)
async def test_a_conversation_is_known_by_how_it_begins(gguf: Gguf, again: dict[str, Any]) -> None:
    made, _ = assistant(gguf, Admitted(0), Prefilled(), FINISH)

    async def session(content: object, more: Sequence[object] = (), origin: Origin = ORIGIN) -> str:
        messages = [{"role": "user", "content": content}, *more]
        request = MessageRequest.model_validate({"model": "any", "max_tokens": 5, "messages": messages})
        return (await made.prepare(request, origin)).job.session

    first = await session("Hi")
    assert await session(**again) == first
    assert await session("Hello") != first
    assert await session("Hi", origin=Origin(session="theirs")) == "theirs"


async def test_whose_it_is_decides_what_the_engine_is_told(gguf: Gguf) -> None:
    made, _ = assistant(gguf, Admitted(0), Prefilled(), FINISH)
    await run(made)
    assert isinstance(made.engine, Scripted)
    [job] = made.engine.jobs
    assert (job.tenant, job.priority) == ("a team", "batch")


@pytest.mark.parametrize(
    ("events", "raised", "error"),
    [
        ([EngineFullError("full")], OverloadedError, "overloaded_error"),
        ([EngineError("broke")], ApiError, "api_error"),
        ([Admitted(0), RuntimeError("internals")], RuntimeError, "api_error"),
    ],
)
async def test_a_turn_that_fails_before_its_prompt_is_read_costs_nothing(
    gguf: Gguf, events: list[Any], raised: type[Exception], error: str
) -> None:
    made, records = assistant(gguf, *events)
    with pytest.raises(raised):
        await run(made)
    [told] = records
    assert (told.outcome, told.error, told.stop_reason) == ("error", error, None)
    assert (told.usage.input_tokens, told.usage.output_tokens) == (0, 0)
    assert told.message() is None
    assert told.times.first_token is None


async def test_a_turn_that_fails_later_costs_what_was_done(gguf: Gguf) -> None:
    made, records = assistant(gguf, Admitted(0), Prefilled(), WORD, WORD, EngineError("broke"))
    with pytest.raises(ApiError):
        await run(made)
    [told] = records
    assert told.outcome == "error"
    assert told.usage.input_tokens > 0
    assert told.usage.output_tokens == 2
    assert told.message() is not None


async def test_a_client_that_leaves_is_no_error(gguf: Gguf) -> None:
    made, records = assistant(gguf, Admitted(0), Prefilled(), WORD, WORD, FINISH)
    assert await run(made, most=2) == 2
    [told] = records
    assert (told.outcome, told.stop_reason, told.error) == ("cancelled", None, None)
    assert told.usage.input_tokens > 0


async def test_a_listener_that_fails_changes_nothing(gguf: Gguf, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: TurnRecord) -> None:
        raise ValueError

    made, records = assistant(gguf, Admitted(0), Prefilled(), WORD, FINISH, listeners=[broken])
    await run(made)
    assert len(records) == 1
    assert "a listener failed" in caplog.text


def test_a_record_does_not_show_content(gguf: Gguf) -> None:
    hidden = {field.name for field in TurnRecord.__dataclass_fields__.values() if not field.repr}
    assert hidden == {"request", "message"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as its last element."""
    times = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: times[-1])
    return times


def test_tokens_that_come_together_share_the_wait_before_them(clock: list[float]) -> None:
    watch = Stopwatch()
    # The first token, then four at once after 0.4 s, then one after 3 s.
    for now in (100.5, 100.9, 100.9001, 100.9002, 100.9003, 103.9):
        clock.append(now)
        watch.mark_event(WORD)
    gaps = watch.read_times().gaps
    waits = {(*GAP_BUCKETS_SECONDS, float("inf"))[i]: count for i, count in enumerate(gaps.counts) if count}
    assert waits == {0.15: 4, 5.0: 1}
    assert gaps.seconds == pytest.approx(3.4)


def test_gaps_are_counted_up_to_the_ends_of_their_classes() -> None:
    gaps, more = TokenGaps(), TokenGaps()
    gaps.add(GAP_BUCKETS_SECONDS[0], 1)
    more.add(2 * GAP_BUCKETS_SECONDS[0] + 0.001, 2)
    more.add(1000, 1)
    gaps.merge(more)
    assert (gaps.counts[0], gaps.counts[1], gaps.counts[-1]) == (1, 2, 1)
    assert gaps.seconds == pytest.approx(1000 + 3 * GAP_BUCKETS_SECONDS[0] + 0.001)
