"""What leaves, what waits, and what a refusal leaves behind."""

import json

from commonweight.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageStart,
    MessageStop,
    StreamEvent,
    TextDelta,
)
from commonweight.messages.response import Message, OutputText, OutputToolUse, Usage
from commonweight.turn.release import ReleaseGate

START = MessageStart(message=Message(id="msg_1", model="m", usage=Usage(input_tokens=1, output_tokens=1)))


def text(index: int, *parts: str, closed: bool = True) -> list[StreamEvent]:
    events: list[StreamEvent] = [ContentBlockStart(index=index, content_block=OutputText())]
    events += [ContentBlockDelta(index=index, delta=TextDelta(text=part)) for part in parts]
    return events + [ContentBlockStop(index=index)] * closed


def call(index: int, *parts: str, closed: bool = True) -> list[StreamEvent]:
    block = OutputToolUse(id="toolu_1", name="weather")
    events: list[StreamEvent] = [ContentBlockStart(index=index, content_block=block)]
    events += [ContentBlockDelta(index=index, delta=InputJsonDelta(partial_json=part)) for part in parts]
    return events + [ContentBlockStop(index=index)] * closed


def test_without_doubt_everything_leaves_at_once() -> None:
    told = ReleaseGate()
    assert told.push([START]) == [START]
    events = text(0, "Hello")
    assert told.push(events) == events
    assert told.message.content[0] == OutputText(text="Hello")


def test_what_is_held_leaves_later_in_its_order() -> None:
    told = ReleaseGate()
    told.push([START])
    first, second = text(0, "a", closed=False), [ContentBlockDelta(index=0, delta=TextDelta(text="b"))]
    assert told.push(first, is_held=True) == []
    assert told.push(second) == [*first, *second]


def test_what_is_held_at_a_refusal_never_leaves() -> None:
    told = ReleaseGate()
    told.push([START, *text(0, "a", closed=False)])
    told.push([ContentBlockDelta(index=0, delta=TextDelta(text="b"))], is_held=True)
    assert told.finish([MessageStop()]) == [ContentBlockStop(index=0), MessageStop()]
    assert told.message.content == [OutputText(text="a")]


def test_nothing_is_closed_that_nobody_saw_opened() -> None:
    told = ReleaseGate()
    told.push([START, *text(0, "a")])
    told.push(text(1, "b", closed=False), is_held=True)
    assert told.finish([MessageStop()]) == [MessageStop()]


def test_calls_leave_whole() -> None:
    told = ReleaseGate(whole_calls=True)
    before, whole = text(0, "I look."), call(1, '{"city": ', '"Kyiv"}')
    leaving = told.push([START, *before, *whole[:-1]])
    assert leaving == [START, *before]
    assert told.push(whole[-1:]) == whole


def test_no_half_of_a_call_is_left_behind() -> None:
    told = ReleaseGate(whole_calls=True)
    told.push([START, *call(0, '{"city": ', closed=False)])
    ended = told.finish([MessageStop()])
    assert ended == [MessageStop()]
    assert told.message.content == []
    assert "city" not in json.dumps([event.model_dump(mode="json") for event in ended])
