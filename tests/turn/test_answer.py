"""From engine events to one message's events, without an engine."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.starter import find_starter
from commonweight.engines.contract import Admitted, CacheWrites, EngineEvent, Finish, Prefilled, Step, Timings
from commonweight.messages.events import ContentBlockDelta, MessageFold, MessageStart, StreamEvent
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import Message
from commonweight.prompting import OutputParser, Renderer, Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn.answer import Answer

STOPPED, AT_LIMIT = (Finish(reason, Timings(0, 0, 0)) for reason in ("stop", "length"))
SIGNER = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
CITY = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Kyiv"}}\n</tool_call>'
# A template that asks for reasoning, for the starter's vocabulary.
THINKING = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}
{{- m.content + '<|im_end|>\n' }}{% endfor %}
{{- '<|im_start|>assistant\n<think>\n' }}"""


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Tokenizer]:
    path = find_starter()
    assert path is not None, "the starter extra is not installed"
    gguf = Gguf(path)
    yield Tokenizer(gguf)
    gguf.close()


CHATML = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{{- '<|im_start|>assistant\\n' }}"""


def told(
    tokenizer: Tokenizer, said: str, *ending: EngineEvent, template: str | None = CHATML, **fields: Any
) -> list[StreamEvent]:
    """The events when the engine draws the text's tokens and then what ends it."""
    body = {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}], **fields}
    request = MessageRequest.model_validate(body)
    prompt = Renderer(tokenizer, template).render(request)
    parser = OutputParser(tokenizer, prompt.parser_config, request.stop_sequences or [])
    answer = Answer(request, prompt, parser, SIGNER, "model_context_window_exceeded")
    events: list[StreamEvent] = []
    for event in (Admitted(1), Prefilled(CacheWrites(2, 3)), *map(Step, tokenizer.encode(said)), *ending):
        events += answer.process(event)
        if answer.is_complete:
            return events
    raise AssertionError("the message did not end")


def folded(events: list[StreamEvent]) -> Message:
    fold = MessageFold()
    for event in events:
        fold.add(event)
    return fold.build_message()


def answered(tokenizer: Tokenizer, said: str, *ending: EngineEvent, **options: Any) -> Message:
    return folded(told(tokenizer, said, *ending, **options))


def content(message: Message) -> list[dict[str, Any]]:
    return [block.model_dump(exclude_none=True) for block in message.content]


# Text


def test_a_stop_token_ends_the_turn_and_is_counted_but_not_shown(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine.", Step(min(tokenizer.end_ids)), STOPPED)
    assert content(message) == [{"type": "text", "text": "Fine."}]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens == len(tokenizer.encode("Fine.")) + 1


def test_usage_splits_the_prompt_from_the_first_event_on(tokenizer: Tokenizer) -> None:
    events = told(tokenizer, "Fine.", STOPPED)
    assert isinstance(events[0], MessageStart)
    for usage in (events[0].message.usage, folded(events).usage):
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (1, 5)
        assert usage.cache_creation.ephemeral_5m_input_tokens == 2
        assert usage.cache_creation.ephemeral_1h_input_tokens == 3
        prompt = Renderer(tokenizer, CHATML).render(
            MessageRequest.model_validate(
                {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
            )
        )
        assert usage.input_tokens + 6 == len(prompt.token_ids)


def test_why_the_cache_was_of_no_use_is_not_made_up(tokenizer: Tokenizer) -> None:
    asked = {"previous_message_id": "msg_1"}
    assert answered(tokenizer, "Fine.", STOPPED, diagnostics=asked).model_dump()["diagnostics"] == {
        "cache_miss_reason": {"type": "unavailable"}
    }
    for first in (None, {"previous_message_id": None}):
        assert answered(tokenizer, "Fine.", STOPPED, diagnostics=first).diagnostics is None


def test_a_limit_gives_its_reason_and_releases_what_was_held_back(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine. ST", AT_LIMIT, stop_sequences=["STOP"])
    assert content(message) == [{"type": "text", "text": "Fine. ST"}]
    assert message.stop_reason == "model_context_window_exceeded"


def test_a_stop_sequence_ends_it_at_once(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine. STOP and more", stop_sequences=["STOP"])
    assert content(message) == [{"type": "text", "text": "Fine. "}]
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "STOP")
    assert message.usage.output_tokens < len(tokenizer.encode("Fine. STOP and more"))


def test_silence_is_no_block(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "", Step(min(tokenizer.end_ids)), STOPPED)
    assert message.content == []
    message = answered(tokenizer, "STOP", stop_sequences=["STOP"])
    assert (message.content, message.stop_reason) == ([], "stop_sequence")


def test_without_a_template_the_turn_ends_where_the_user_would_speak(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, "Fine.\n\nUser: And you?", template=None)
    assert content(message) == [{"type": "text", "text": "Fine."}]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    # With a template it is text like any other.
    message = answered(tokenizer, "Fine.\n\nUser: And you?", AT_LIMIT)
    assert content(message) == [{"type": "text", "text": "Fine.\n\nUser: And you?"}]


# Calls


def test_a_call_follows_its_text_in_a_block_of_its_own(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, f"I look.\n{CALL}", STOPPED, tools=[CITY])
    words, call = content(message)
    assert words == {"type": "text", "text": "I look."}
    assert call == {"type": "tool_use", "id": call["id"], "name": "weather", "input": {"city": "Kyiv"}}
    assert call["id"].startswith("toolu_")
    assert message.stop_reason == "tool_use"


def test_calls_of_one_answer_have_ids_of_their_own(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, f"{CALL}\n{CALL}", STOPPED, tools=[CITY])
    first, second = content(message)
    assert first["input"] == second["input"]
    assert first["id"] != second["id"]


def test_a_call_streams_its_input_as_json(tokenizer: Tokenizer) -> None:
    deltas = [
        event.delta.partial_json
        for event in told(tokenizer, CALL, STOPPED, tools=[CITY])
        if isinstance(event, ContentBlockDelta) and event.delta.type == "input_json_delta"
    ]
    assert deltas[0] == ""
    assert len(deltas) > 3
    assert json.loads("".join(deltas)) == {"city": "Kyiv"}


def test_a_call_that_is_cut_off_keeps_what_there_is(tokenizer: Tokenizer) -> None:
    message = answered(tokenizer, CALL[:-22], AT_LIMIT, tools=[CITY])
    assert content(message)[0]["input"] in ({"city": "Ky"}, {"city": "Kyi"}, {"city": "Kyiv"}, {})
    assert message.stop_reason == "model_context_window_exceeded"


@pytest.mark.parametrize("said", ["I look.\n<tool_", f"I look.\n{CALL[:30]}"])
def test_of_a_call_that_is_cut_off_before_its_input_nothing_is_told(tokenizer: Tokenizer, said: str) -> None:
    (words,) = content(answered(tokenizer, said, AT_LIMIT, tools=[CITY]))
    assert words["text"].rstrip() == "I look."
    # The model itself may end like this: then it is text.
    assert content(answered(tokenizer, "I look. <tool_", STOPPED, tools=[CITY])) == [
        {"type": "text", "text": "I look. <tool_"}
    ]


@pytest.mark.parametrize(("length", "ending"), [(None, STOPPED), (24, AT_LIMIT), (30, AT_LIMIT)])
def test_json_that_holds_a_call_is_one_text(tokenizer: Tokenizer, length: int | None, ending: EngineEvent) -> None:
    said = json.dumps({"answer": f"Write {CALL}"})[:length]
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    output_config = {"format": {"type": "json_schema", "schema": schema}}
    message = answered(tokenizer, said, ending, tools=[CITY], output_config=output_config)
    assert content(message) == [{"type": "text", "text": said}]


# Reasoning


def test_reasoning_is_a_block_that_ends_with_its_signature(tokenizer: Tokenizer) -> None:
    options: dict[str, Any] = {"template": THINKING, "thinking": {"type": "adaptive"}}
    events = told(tokenizer, "Hm, so.\n</think>\n\nFine.", STOPPED, **options)
    reasoning, words = content(folded(events))
    assert (reasoning["type"], reasoning["thinking"]) == ("thinking", "Hm, so.")
    assert SIGNER.read(reasoning["signature"]) == "Hm, so."
    assert words == {"type": "text", "text": "Fine."}
    kinds = [event.delta.type for event in events if isinstance(event, ContentBlockDelta) and event.index == 0]
    assert kinds == ["thinking_delta"] * (len(kinds) - 1) + ["signature_delta"]


def test_reasoning_that_is_not_shown_is_in_the_signature_alone(tokenizer: Tokenizer) -> None:
    options: dict[str, Any] = {"template": THINKING, "thinking": {"type": "adaptive", "display": "omitted"}}
    message = answered(tokenizer, "Hm, so.\n</think>\n\nFine.", STOPPED, **options)
    reasoning, _ = content(message)
    assert reasoning["thinking"] == ""
    assert SIGNER.read(reasoning["signature"]) == "Hm, so."


def test_reasoning_that_is_cut_off_is_signed_as_well(tokenizer: Tokenizer) -> None:
    options: dict[str, Any] = {"template": THINKING, "thinking": {"type": "adaptive"}}
    message = answered(tokenizer, "Hm, so\n</thi", AT_LIMIT, **options)
    (reasoning,) = content(message)
    assert SIGNER.read(reasoning["signature"]) == reasoning["thinking"] == "Hm, so"
    usage = message.usage
    assert usage.output_tokens_details.thinking_tokens == usage.output_tokens


def test_thinking_tokens_are_counted_apart(tokenizer: Tokenizer) -> None:
    options: dict[str, Any] = {"template": THINKING, "thinking": {"type": "adaptive"}}
    said = "Hm, so.\n</think>\n\nFine."
    usage = answered(tokenizer, said, STOPPED, **options).usage
    assert 3 < usage.output_tokens_details.thinking_tokens < usage.output_tokens == len(tokenizer.encode(said))


# Citations

DOCUMENT: dict[str, Any] = {
    "type": "document",
    "title": "Leaves",
    "source": {"type": "text", "media_type": "text/plain", "data": "The grass is green. The sky is blue."},
    "citations": {"enabled": True},
}
ASKED = [{"role": "user", "content": [DOCUMENT, {"type": "text", "text": "What is green?"}]}]


def test_a_quote_becomes_a_citation_of_the_text_before_it(tokenizer: Tokenizer) -> None:
    said = 'Grass is.<cite doc="0">The grass is green.</cite> So is moss.'
    first, second = content(answered(tokenizer, said, STOPPED, messages=ASKED))
    (citation,) = first.pop("citations")
    assert first == {"type": "text", "text": "Grass is."}
    assert citation["type"] == "char_location"
    assert (citation["document_index"], citation["document_title"]) == (0, "Leaves")
    assert (
        DOCUMENT["source"]["data"][citation["start_char_index"] : citation["end_char_index"]]
        == (citation["cited_text"])
    )
    assert second == {"type": "text", "text": " So is moss.", "citations": []}


def test_a_quote_without_a_claim_is_its_own_text(tokenizer: Tokenizer) -> None:
    said = '<cite doc="0">The sky is blue.</cite>'
    (block,) = content(answered(tokenizer, said, STOPPED, messages=ASKED))
    assert block["text"] == "The sky is blue."
    assert block["citations"][0]["cited_text"] == "The sky is blue."


# All of it


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(["Hm", "</think>", "\n\n", "Fine ", CALL, "\n", "<tool_", 'x<cite doc="0">', "</cite>"])
    ),
    cut=st.integers(0, 60),
)
def test_every_stream_follows_the_grammar(tokenizer: Tokenizer, parts: list[str], cut: int) -> None:
    said = "".join(parts)
    options: dict[str, Any] = {
        "template": THINKING,
        "thinking": {"type": "adaptive"},
        "tools": [CITY],
        "messages": ASKED,
    }
    events = told(tokenizer, said[: len(said) - cut], AT_LIMIT, **options)
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    index = -1
    is_open = False
    for event in events[1:-2]:
        if event.type == "content_block_start":
            assert not is_open
            index, is_open = index + 1, True
        assert is_open
        assert event.index == index  # type: ignore[union-attr]
        is_open = event.type != "content_block_stop"
    assert not is_open
    folded(events)
