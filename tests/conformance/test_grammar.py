"""The grammar accepts what the contract allows, and says what is wrong with the rest."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from fake import events, frames

from commonweight.conformance.grammar import fold, read_stream

Json = dict[str, Any]

REQUEST: Json = {"model": "m", "max_tokens": 3}
WHOLE = events(REQUEST)
START, BLOCK, DELTA, STOP, END, OVER = 0, 1, 2, 5, 6, 7


def block(kind: Json, *deltas: Json, index: int = 0) -> list[Json]:
    """A block of another kind."""
    return [
        {"type": "content_block_start", "index": index, "content_block": kind},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def around(blocks: list[Json], stop_reason: str = "tool_use") -> list[Json]:
    """A stream of these blocks."""
    whole = copy.deepcopy(WHOLE)
    whole[END]["delta"]["stop_reason"] = stop_reason
    return [whole[START], *blocks, whole[END], whole[OVER]]


CALL: Json = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
THOUGHT: Json = {"type": "thinking", "thinking": "", "signature": ""}


def partial(text: str) -> Json:
    return {"type": "input_json_delta", "partial_json": text}


def test_a_stream_folds_into_its_message() -> None:
    stream = read_stream(frames(WHOLE))
    assert stream.message["content"] == [{"type": "text", "text": "word word word "}]
    assert stream.message["stop_reason"] == "max_tokens"
    assert stream.first_usage["output_tokens"] == 0
    assert stream.last_usage["output_tokens"] == stream.message["usage"]["output_tokens"] == 3
    assert [delta["text"] for delta in stream.deltas("text_delta")] == ["word "] * 3


def test_pings_and_comments_may_stand_anywhere() -> None:
    ping = 'event: ping\ndata: {"type": "ping"}\n\n'
    parts = [ping, ": hello\n\n", *(frames([event]) + ping for event in WHOLE[:-1]), frames(WHOLE[-1:])]
    assert read_stream("".join(parts)) == read_stream(frames(WHOLE))


def test_input_adds_up_to_json() -> None:
    message = fold(around(block(CALL, partial(""), partial('{"a": [1'), partial(", 2]}"))))
    assert message["content"] == [CALL | {"input": {"a": [1, 2]}}]
    assert fold(around(block(CALL)))["content"] == [CALL]


def test_thinking_ends_with_its_signature() -> None:
    deltas = [{"type": "thinking_delta", "thinking": "Hm."}, {"type": "signature_delta", "signature": "s"}]
    assert fold(around(block(THOUGHT, *deltas), "end_turn"))["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    ]


def test_citations_are_collected() -> None:
    citation = {"type": "char_location", "cited_text": "x"}
    text = {"type": "text", "text": "", "citations": []}
    told = fold(around(block(text, {"type": "citations_delta", "citation": citation}), "end_turn"))
    assert told["content"] == [text | {"citations": [citation]}]


def test_only_a_cut_answer_may_leave_input_incomplete() -> None:
    cut = block(CALL, partial('{"a": '))
    assert fold(around(cut, "max_tokens"))["content"] == [CALL]
    with pytest.raises(AssertionError, match="no complete JSON"):
        fold(around(cut))
    with pytest.raises(AssertionError, match="no complete JSON"):
        fold(around([*cut, *block(CALL, index=1)], "max_tokens"))


def changed(place: int, **fields: Any) -> Callable[[list[Json]], list[Json]]:
    """The stream with one event that differs."""

    def change(told: list[Json]) -> list[Json]:
        told[place] |= fields
        return told

    return change


def delta(**fields: Any) -> Callable[[list[Json]], list[Json]]:
    return changed(DELTA, delta=fields)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda told: told[1:], "content_block_start before message_start"),
        (lambda told: told[:1] + told, "a second message_start"),
        (lambda told: told[:-1], "without message_stop"),
        (lambda told: [*told, told[END]], "message_delta after message_stop"),
        (lambda told: [*told[:END], told[OVER]], "message_stop without a message_delta"),
        (lambda told: [*told[:STOP], *told[END:]], "message_delta before the last block stops"),
        (lambda told: [*told[:BLOCK], *told[DELTA:]], "for block 0, which is not open"),
        (lambda told: [*told[:DELTA], told[BLOCK], *told[DELTA:]], "block 0 starts before block 0 stops"),
        (lambda told: [*told[:OVER], told[BLOCK], told[STOP], told[OVER]], "starts after message_delta"),
        (lambda told: [*told[:END], *block(CALL, index=2), *told[END:]], "block 2 starts where 1 is next"),
        (changed(BLOCK, index=1), "block 1 starts where 0 is next"),
        (changed(DELTA, index=1), "for block 1 while 0 is open"),
        (changed(BLOCK, content_block={"type": "text", "text": "word"}), "a text block starts with text 'word'"),
        (delta(type="input_json_delta", partial_json="{}"), "input_json_delta in a text block"),
        (delta(type="text_delta"), "a delta of another shape"),
        (delta(type="text_delta", text=None), "a delta of another shape"),
        (changed(END, usage={}), "output_tokens None"),
        (lambda told: [*told[:OVER], told[END] | {"usage": {"output_tokens": 1}}, told[OVER]], "fall from 3 to 1"),
        (changed(START, type="message_begin"), "message_begin before message_start"),
        (changed(OVER, type="message_end"), "there is no event 'message_end'"),
        (changed(OVER, type="error", error={"type": "api_error"}), "ended in an error"),
        (changed(START, message=WHOLE[START]["message"] | {"stop_reason": "end_turn"}), "stop_reason 'end_turn'"),
        (changed(START, message=WHOLE[START]["message"] | {"usage": None}), "usage None"),
    ],
)
def test_what_breaks_the_grammar(spoil: Callable[[list[Json]], list[Json]], words: str) -> None:
    with pytest.raises(AssertionError) as failure:
        fold(spoil(copy.deepcopy(WHOLE)))
    assert words in str(failure.value)


def test_nothing_may_follow_a_signature() -> None:
    signature, thought = (
        {"type": "signature_delta", "signature": "s"},
        {"type": "thinking_delta", "thinking": "Hm."},
    )
    for late in (signature, thought):
        with pytest.raises(AssertionError, match="after the signature"):
            fold(around(block(THOUGHT, signature, late), "end_turn"))


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        fold(delta(type="text_delta", text="\ud83d")(copy.deepcopy(WHOLE)))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (frames(WHOLE)[:-1], "ends within a frame"),
        (frames(WHOLE) + "data: [DONE]\n\n", "no frame of an event line and a data line"),
        (frames(WHOLE).replace("event: message_stop\n", ""), "no frame of an event line and a data line"),
        (frames(WHOLE).replace("event: message_stop", "event: message_end"), "has data of type 'message_stop'"),
        (f"data: {json.dumps(WHOLE[0])}\nevent: message_start\n\n", "no frame of an event line and a data line"),
    ],
)
def test_what_is_no_frame(body: str, words: str) -> None:
    with pytest.raises(AssertionError) as failure:
        read_stream(body)
    assert words in str(failure.value)
