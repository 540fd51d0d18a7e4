"""The message that a stream tells is its folded events."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.messages.citations import CharLocation, Citation, SearchResultLocation
from commonweight.messages.events import (
    CitationsDelta,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    InputJsonDelta,
    MessageDelta,
    MessageEnd,
    MessageFold,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
)
from commonweight.messages.response import (
    AppliedEdits,
    ClearedThinking,
    Message,
    OutputBlock,
    OutputText,
    OutputThinking,
    OutputToolUse,
    StopDetails,
    Usage,
)

CITATIONS: list[Citation] = [
    CharLocation(cited_text="x", document_index=0, start_char_index=0, end_char_index=1),
    SearchResultLocation(
        cited_text="y", search_result_index=0, source="s", start_block_index=0, end_block_index=1
    ),
]

counts = st.integers(0, 10**6)
usages = st.builds(Usage, input_tokens=counts, output_tokens=counts, cache_read_input_tokens=counts)
endings = st.builds(
    MessageEnd,
    stop_reason=st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded"]),
    stop_sequence=st.none() | st.text(),
    stop_details=st.none() | st.builds(StopDetails, explanation=st.text()),
)
pieces = st.lists(st.text(max_size=5), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)

Told = tuple[OutputBlock, list[Delta], OutputBlock]
"""A block as it starts, how it grows, and what it becomes."""


def _text(parts: list[str], cited: list[Citation] | None) -> Told:
    deltas: list[Delta] = [TextDelta(text=part) for part in parts]
    deltas[1:1] = [CitationsDelta(citation=citation) for citation in cited or []]
    start = OutputText(citations=None if cited is None else [])
    return start, deltas, OutputText(text="".join(parts), citations=cited)


def _thinking(parts: list[str], signature: str) -> Told:
    deltas: list[Delta] = [*(ThinkingDelta(thinking=part) for part in parts), SignatureDelta(signature=signature)]
    return OutputThinking(), deltas, OutputThinking(thinking="".join(parts), signature=signature)


def _tool_use(arguments: dict[str, Any], cut: int) -> Told:
    written = json.dumps(arguments)
    deltas: list[Delta] = [
        InputJsonDelta(partial_json=part) for part in ("", written[:cut], written[cut:]) if arguments
    ]
    start = OutputToolUse(id="toolu_1", name="n")
    return start, deltas, OutputToolUse(id="toolu_1", name="n", input=arguments)


told_blocks = st.lists(
    st.builds(_text, pieces, st.none() | st.lists(st.sampled_from(CITATIONS), max_size=2))
    | st.builds(_thinking, pieces, st.text(max_size=5))
    | st.builds(_tool_use, st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.integers(0, 40)),
    max_size=4,
)


def stream(blocks: list[Told], start: Usage, ends: list[tuple[MessageEnd, Usage]]) -> list[StreamEvent]:
    """The stream that tells these blocks."""
    events: list[StreamEvent] = [MessageStart(message=Message(id="msg_1", model="m", usage=start))]
    for index, (beginning, deltas, _) in enumerate(blocks):
        events.append(ContentBlockStart(index=index, content_block=beginning))
        events += [ContentBlockDelta(index=index, delta=delta) for delta in deltas]
        events.append(ContentBlockStop(index=index))
    events += [MessageDelta(delta=ending, usage=usage) for ending, usage in ends]
    return [*events, MessageStop()]


def folded(events: list[StreamEvent]) -> Message:
    fold = MessageFold()
    for event in events:
        fold.add(event)
    return fold.build_message()


def one(beginning: OutputBlock, *deltas: Delta) -> OutputBlock:
    """What one block becomes."""
    usage = Usage(input_tokens=3, output_tokens=1)
    return folded(stream([(beginning, list(deltas), beginning)], usage, [])).content[0]


@given(
    blocks=told_blocks,
    start=usages,
    ends=st.lists(st.tuples(endings, usages), min_size=1, max_size=3),
    data=st.data(),
)
def test_the_folded_message_is_what_was_told(
    blocks: list[Told], start: Usage, ends: list[tuple[MessageEnd, Usage]], data: st.DataObject
) -> None:
    events = stream(blocks, start, ends)
    for place in sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)), reverse=True):
        events.insert(place, Ping())
    before = [event.model_dump_json() for event in events]

    message = folded(events)

    assert message.content == [block for _, _, block in blocks]
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


@given(blocks=told_blocks, start=usages, end=st.tuples(endings, usages))
def test_looking_early_changes_nothing(blocks: list[Told], start: Usage, end: tuple[MessageEnd, Usage]) -> None:
    events = stream(blocks, start, [end])
    fold = MessageFold()
    for event in events:
        fold.add(event)
        assert len(fold.build_message().content) <= len(blocks)
    assert fold.build_message() == folded(events)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("", {}),
        ("{", {}),
        ('{"zebra": 1, "apple": "x"}', {"zebra": 1, "apple": "x"}),
        ('{"zebra": {"y": 1, "x": 2}, "apple": ["a", "b', {"zebra": {"y": 1, "x": 2}, "apple": ["a"]}),
        ('{"a": 1, "b": tr', {"a": 1}),
        ('{"a": 1, "b', {"a": 1}),
    ],
)
def test_of_a_call_that_was_cut_off_stays_what_parses(written: str, kept: dict[str, Any]) -> None:
    block = one(OutputToolUse(id="toolu_1", name="n"), *(InputJsonDelta(partial_json=part) for part in written))
    assert isinstance(block, OutputToolUse)
    assert json.dumps(block.input) == json.dumps(kept)  # the order, too


def test_a_delta_that_does_not_fit_its_block_is_ignored() -> None:
    assert one(OutputText(), TextDelta(text="a"), ThinkingDelta(thinking="b")) == OutputText(text="a")
    assert one(OutputThinking(), TextDelta(text="a"), SignatureDelta(signature="s")) == OutputThinking(
        signature="s"
    )
    assert one(OutputToolUse(id="t", name="n"), TextDelta(text="{}")) == OutputToolUse(id="t", name="n")


def test_edits_are_told_at_the_beginning_or_the_end() -> None:
    edits = AppliedEdits(applied_edits=[ClearedThinking(cleared_input_tokens=1, cleared_thinking_turns=2)])
    usage = Usage(input_tokens=3, output_tokens=1)
    ending = MessageEnd(stop_reason="end_turn")
    begun = Message(id="msg_1", model="m", usage=usage)
    late = MessageDelta(delta=ending, usage=usage, context_management=edits)
    assert folded([MessageStart(message=begun), late]).context_management == edits
    early = MessageStart(message=begun.model_copy(update={"context_management": edits}))
    assert folded([early, MessageDelta(delta=ending, usage=usage)]).context_management == edits


@pytest.mark.parametrize(
    ("block", "start"),
    [
        (OutputText(), '{"type":"text","text":""}'),
        (OutputText(citations=[]), '{"type":"text","text":"","citations":[]}'),
        (OutputThinking(), '{"type":"thinking","thinking":"","signature":""}'),
        (OutputToolUse(id="toolu_1", name="n"), '{"type":"tool_use","id":"toolu_1","name":"n","input":{}}'),
    ],
)
def test_blocks_start_empty(block: OutputBlock, start: str) -> None:
    event = ContentBlockStart(index=0, content_block=block)
    assert event.model_dump_json() == f'{{"type":"content_block_start","index":0,"content_block":{start}}}'


def test_a_message_that_just_began_is_a_message() -> None:
    start = Message(id="msg_1", model="m", usage=Usage(input_tokens=3, output_tokens=1))
    assert folded([Ping(), MessageStart(message=start)]) == start


def test_changing_the_folded_message_does_not_change_the_events() -> None:
    usage = Usage(input_tokens=3, output_tokens=1)
    events = stream([_text(["a", "b"], CITATIONS[:1])], usage, [(MessageEnd(stop_reason="end_turn"), usage)])
    before = [event.model_dump_json() for event in events]
    message = folded(events)
    message.usage.output_tokens = 99
    assert isinstance(message.content[0], OutputText)
    message.content[0].text = "other"
    assert message.content[0].citations is not None
    message.content[0].citations.clear()
    message.content.append(OutputText(text="more"))
    assert [event.model_dump_json() for event in events] == before


@pytest.mark.parametrize("events", [[], [Ping()]])
def test_there_is_no_message_before_its_start(events: list[StreamEvent]) -> None:
    with pytest.raises(ValueError, match="message_start"):
        folded(events)
