"""The message that a stream tells is its folded events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Ending,
    MessageDelta,
    MessageFold,
    MessageStart,
    MessageStop,
    Ping,
    StreamEvent,
    TextDelta,
)
from commonweight.messages.response import Message, OutputText, Usage

counts = st.integers(0, 10**6)
usages = st.builds(Usage, input_tokens=counts, output_tokens=counts, cache_read_input_tokens=counts)
endings = st.builds(
    Ending,
    stop_reason=st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded"]),
    stop_sequence=st.none() | st.text(),
    stop_details=st.none() | st.dictionaries(st.text(), st.text()),
)
blocks = st.lists(st.tuples(st.text(max_size=3), st.lists(st.text(max_size=5), max_size=5)), max_size=4)


def told(texts: list[tuple[str, list[str]]], start: Usage, ends: list[tuple[Ending, Usage]]) -> list[StreamEvent]:
    """A stream of text blocks, each with what it starts with and the pieces that follow."""
    events: list[StreamEvent] = [MessageStart(message=Message(id="msg_1", model="m", usage=start))]
    for index, (beginning, pieces) in enumerate(texts):
        events.append(ContentBlockStart(index=index, content_block=OutputText(text=beginning)))
        events += [ContentBlockDelta(index=index, delta=TextDelta(text=piece)) for piece in pieces]
        events.append(ContentBlockStop(index=index))
    events += [MessageDelta(delta=ending, usage=usage) for ending, usage in ends]
    return [*events, MessageStop()]


def folded(events: list[StreamEvent]) -> Message:
    fold = MessageFold()
    for event in events:
        fold.add(event)
    return fold.message()


@given(
    texts=blocks, start=usages, ends=st.lists(st.tuples(endings, usages), min_size=1, max_size=3), data=st.data()
)
def test_the_folded_message_is_what_was_told(
    texts: list[tuple[str, list[str]]], start: Usage, ends: list[tuple[Ending, Usage]], data: st.DataObject
) -> None:
    events = told(texts, start, ends)
    for place in sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)), reverse=True):
        events.insert(place, Ping())
    before = [event.model_dump_json() for event in events]

    message = folded(events)

    assert [block.text for block in message.content] == [text + "".join(pieces) for text, pieces in texts]
    ending, usage = ends[-1]
    assert (message.stop_reason, message.stop_sequence, message.stop_details) == (
        ending.stop_reason,
        ending.stop_sequence,
        ending.stop_details,
    )
    assert message.usage == usage
    assert (message.id, message.model, message.role) == ("msg_1", "m", "assistant")
    assert [event.model_dump_json() for event in events] == before
    assert folded(events) == message


@given(texts=blocks, start=usages, end=st.tuples(endings, usages))
def test_looking_early_changes_nothing(
    texts: list[tuple[str, list[str]]], start: Usage, end: tuple[Ending, Usage]
) -> None:
    events = told(texts, start, [end])
    fold = MessageFold()
    so_far = ""
    for event in events:
        fold.add(event)
        text = "".join(block.text for block in fold.message().content)
        assert text.startswith(so_far)
        so_far = text
    assert fold.message() == folded(events)


def test_a_message_that_just_began_is_a_message() -> None:
    start = Message(id="msg_1", model="m", usage=Usage(input_tokens=3, output_tokens=1))
    assert folded([Ping(), MessageStart(message=start)]) == start


def test_changing_the_folded_message_does_not_change_the_events() -> None:
    usage = Usage(input_tokens=3, output_tokens=1)
    events = told([("a", ["b"])], usage, [(Ending(stop_reason="end_turn"), usage)])
    before = [event.model_dump_json() for event in events]
    message = folded(events)
    message.usage.output_tokens = 99
    message.content[0].text = "other"
    message.content.append(OutputText(text="more"))
    assert [event.model_dump_json() for event in events] == before


@pytest.mark.parametrize("events", [[], [Ping()]])
def test_there_is_no_message_before_its_start(events: list[StreamEvent]) -> None:
    with pytest.raises(ValueError, match="message_start"):
        folded(events)
