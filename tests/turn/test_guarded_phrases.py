"""Turns with phrases: nothing of one leaves or enters, in any place, and everything else is as without them."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_guarded import CALM, WEATHER, Scripted, folded, request

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.charter import Charter, parse
from commonweight.charter.phrases import fold
from commonweight.charter.principle import Mode
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.heads.recompile import recompile
from commonweight.messages.events import StreamEvent
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant, Origin, TurnRecord
from sample_charter import source

PHRASE = "Blue  Heron"
ALL = "{input: refuse, output: refuse, thinking: refuse, tool_input: refuse, tool_result: refuse}"


@cache
def read_tokenizer(gguf: Gguf) -> Tokenizer:
    return Tokenizer(gguf)


def charter(applies_to: str = ALL) -> Charter:
    text = source().decode()
    places = "applies_to: {input: refuse, output: refuse}"
    assert places in text
    return parse(text.replace(places, f'applies_to: {applies_to}\nphrases: ["{PHRASE}", "ACME-77"]').encode())


@cache
def guard(applies_to: str = ALL, mode: Mode = "enforce") -> Guard:
    # Without the encoder, so that phrases alone decide.
    own = charter(applies_to)
    return Guard(own, recompile(own, Bundle.load(DEFAULT, None), None, {}), None, mode=mode)


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


async def turn(
    gguf: Gguf,
    guard: Guard | None,
    said: str | Sequence[str],
    of: MessageRequest | None = None,
    waived: frozenset[str] = frozenset(),
) -> tuple[list[StreamEvent], TurnRecord, Scripted]:
    """A turn whose tokens are those of each part."""
    tokenizer = read_tokenizer(gguf)
    heads = guard.probe.heads if guard and guard.probe else 3
    tokens = [token for part in ([said] if isinstance(said, str) else said) for token in tokenizer.encode(part)]
    engine = Scripted(tokens, CALM, heads, [CALM])
    records: list[TurnRecord] = []
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    assistant = Assistant(
        ModelCard.from_gguf(gguf), tokenizer, engine, signer, guard=guard, listeners=[records.append]
    )
    origin = Origin("req_1", "a team", "key_1", waived=waived)
    events = [event async for event in assistant.stream(await assistant.prepare(of or request(), origin))]
    return events, records[0], engine


def leaving(events: list[StreamEvent]) -> str:
    """All that leaves, as the client reads it."""
    parts = []
    for event in events:
        fields = event.model_dump()
        delta = fields.get("delta") or {}
        parts += [delta.get(name) or "" for name in ("text", "thinking", "partial_json")]
        if "citation" in delta:
            parts.append(delta["citation"]["cited_text"])
    return "".join(parts)


def check_refused(events: list[StreamEvent], record: TurnRecord, place: str, block: str | None) -> tuple[int, int]:
    message = folded(events)
    assert message.stop_reason == "refusal"
    assert message.guard is not None
    assert (message.guard.principle, message.guard.place) == ("no-umbrellas", place)
    assert (message.guard.stage, message.guard.block) == ("phrase", block)
    assert record.findings is not None
    assert "heron" not in str(record.findings.to_record()).lower()
    for event in events:
        assert "heron" not in event.model_dump_json().lower()
    assert message.guard.span is not None
    return message.guard.span


async def test_an_answer_is_cut_before_a_phrase(gguf: Gguf) -> None:
    said = "The next product is called the bLuE\n Heron, and it is due in May."
    events, record, engine = await turn(gguf, guard(), said)
    start, end = check_refused(events, record, "output", "content[0]")
    assert said[start:end] == "bLuE\n Heron"
    assert leaving(events).rstrip() == "The next product is called the"
    assert engine.kept == [len(engine.jobs[0].token_ids)]


async def test_without_a_phrase_an_answer_is_the_same(gguf: Gguf) -> None:
    said = "A blue bird, a heron, the blue her, ACME-7, and at its end a blue hero"
    events, record, _ = await turn(gguf, guard(), said)
    assert leaving(events) == said
    assert folded(events).stop_reason == "end_turn"
    assert record.findings is not None
    assert record.findings.verdicts == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["b", "l", "ue", "blue", " ", "\n", "h", "er", "on", "heron", "BLUE", "e\u0301", "."])
    )
)
async def test_whatever_the_tokens_no_phrase_leaves(gguf: Gguf, parts: list[str]) -> None:
    said = "".join(parts)
    without, *_ = await turn(gguf, None, parts)
    text = leaving(without)
    events, record, _ = await turn(gguf, guard(), parts)
    if fold(PHRASE) in fold(said):
        check_refused(events, record, "output", "content[0]")
        assert text.startswith(leaving(events))
    else:
        assert leaving(events) == text
        assert folded(events).stop_reason == folded(without).stop_reason


@pytest.mark.parametrize(
    "arguments",
    [
        '{"city": "the blue heron"}',
        '{"city": "the \\u0062lue\\theron"}',
        '{"city": {"blue": "heron"}}',
        '{"city": ["blue", "heron"]}',
        '{"city": {"first": "blue", "second": "heron"}}',
        '{"city": ["{\\"deep\\": \\"\\\\u0062lue heron\\"}"]}',
        '{"city": "blue heron", "city": "Kyiv"}',
    ],
)
async def test_a_call_with_a_phrase_never_leaves(gguf: Gguf, arguments: str) -> None:
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    said = f'Wait.<tool_call>\n{{"name": "weather", "arguments": {arguments}}}\n</tool_call>'
    events, record, _ = await turn(gguf, guard(), said, request(tools=[tool]))
    start, end = check_refused(events, record, "tool_input", "content[1]")
    assert 0 <= start < end <= len(arguments)
    assert [block.type for block in folded(events).content] == ["text"]


async def test_other_calls_leave_whole(gguf: Gguf) -> None:
    said = '<tool_call>\n{"name": "weather", "arguments": {"city": "Blue Her", "on": 1}}\n</tool_call>'
    of = request(tools=[{"name": "weather", "input_schema": {"type": "object"}}])
    events, *_ = await turn(gguf, guard(), said, of)
    without, *_ = await turn(gguf, None, said, of)
    assert leaving(events) == leaving(without)
    assert folded(events).stop_reason == "tool_use"


async def test_a_call_that_a_limit_cuts_is_read_as_far_as_it_goes(gguf: Gguf) -> None:
    said = '<tool_call>\n{"name": "weather", "arguments": {"city": "Kyiv and blue heron'
    events, record, _ = await turn(gguf, guard(), said, request(tools=[WEATHER]))
    check_refused(events, record, "tool_input", "content[0]")
    assert folded(events).content == []


@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_reasoning_with_a_phrase_is_neither_shown_nor_signed(
    gguf: Gguf,
    monkeypatch: pytest.MonkeyPatch,
    display: str,
) -> None:
    from dataclasses import replace

    from test_answer import THINKING

    card = replace(ModelCard.from_gguf(gguf), chat_template=THINKING)
    monkeypatch.setattr(ModelCard, "from_gguf", lambda _: card)
    thinking = {"type": "enabled", "budget_tokens": 2000, "display": display}
    of = request(max_tokens=3000, thinking=thinking)
    events, record, _ = await turn(gguf, guard(), "They ask about the blue heron.</think>\n\nGood evening.", of)
    check_refused(events, record, "thinking", "content[0]")
    assert all(getattr(block, "signature", "") == "" for block in folded(events).content)
    # Where reasoning is none of the principle's places it is not looked at, and ends no phrase of the text.
    split = "They ask about a blue</think>\n\nHeron."
    for applies_to in (ALL, "{output: refuse}"):
        passed, record, _ = await turn(gguf, guard(applies_to), split, of)
        assert folded(passed).stop_reason == "end_turn"


async def test_a_phrase_may_not_be_cited(gguf: Gguf) -> None:
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "In May comes the blue heron. It is fast."},
        "citations": {"enabled": True},
    }
    content = [document, {"type": "text", "text": "What comes?"}]
    of = request(messages=[{"role": "user", "content": content}])
    whole, *_ = await turn(gguf, None, 'It is <cite doc="0">the blue heron</cite>.', of)
    cited = folded(whole).content
    events, *_ = await turn(gguf, guard("{output: refuse}"), 'It is <cite doc="0">the blue heron</cite>.', of)
    if any(getattr(block, "citations", None) for block in cited):
        assert folded(events).stop_reason == "refusal"
    assert "heron" not in leaving(events)


async def test_a_phrase_over_the_end_of_a_prefill(gguf: Gguf) -> None:
    asked = {"role": "user", "content": "What is it called?"}
    of = request(messages=[asked, {"role": "assistant", "content": "It is the blue"}])
    events, record, _ = await turn(gguf, guard(), " heron.", of)
    check_refused(events, record, "output", "content[0]")
    passed, *_ = await turn(gguf, guard(), " bird.", of)
    assert leaving(passed) == " bird."


@pytest.mark.parametrize(
    ("content", "place", "block", "span"),
    [
        ("Tell me of the blue heron.", "input", "messages[0].content[0]", (15, 25)),
        (
            [{"type": "text", "text": "The blue"}, {"type": "text", "text": "heron?"}],
            "input",
            "messages[0].content[1]",
            (0, 5),
        ),
        ("The \\u0062lue heron?", "input", "messages[0].content[0]", (4, 19)),
        (
            [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a blue\theron"}],
            "tool_result",
            "messages[2].content[0].content[0]",
            (2, 12),
        ),
    ],
)
async def test_what_comes_in_is_refused_before_it_is_read(
    gguf: Gguf, content: Any, place: str, block: str, span: tuple[int, int]
) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Kyiv"}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if place == "tool_result":
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [call]}, *messages]
    events, record, engine = await turn(gguf, guard(), "Fine.", request(messages=messages, tools=[WEATHER]))
    assert check_refused(events, record, place, block) == span
    assert engine.jobs == []
    other = guard("{output: refuse}")
    passed, *_ = await turn(gguf, other, "Fine.", request(messages=messages, tools=[WEATHER]))
    assert folded(passed).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("applies_to", "mode", "waived"),
    [(ALL, "shadow", ()), ("{output: log, input: log}", "enforce", ()), (ALL, "enforce", ("no-umbrellas",))],
)
async def test_where_nothing_is_refused_nothing_is_held_back(
    gguf: Gguf,
    applies_to: str,
    mode: Mode,
    waived: tuple[str, ...],
) -> None:
    said = "It is the blue heron, blue"
    of = request(messages=[{"role": "user", "content": "Is it ACME-77?"}])
    events, record, _ = await turn(gguf, guard(applies_to, mode), said, of, frozenset(waived))
    without, *_ = await turn(gguf, None, said, of)
    assert [event.model_dump(exclude={"message": {"id"}}) for event in events] == [
        event.model_dump(exclude={"message": {"id"}}) for event in without
    ]
    assert record.findings is not None
    assert record.findings.refusal is None
    found = [(one.place, one.block, one.stage) for one in record.findings.verdicts]
    assert found == (
        [] if waived else [("input", "messages[0].content[0]", "phrase"), ("output", "content[0]", "phrase")]
    )


async def test_what_a_principle_closed_is_open_at_once_to_a_key_that_sets_it_aside(gguf: Gguf) -> None:
    asked = {"role": "user", "content": "Is it the ACME-77?"}
    answered = {"role": "assistant", "content": "It is."}
    later = request(messages=[asked, answered, {"role": "user", "content": "And bread?"}])
    waived = frozenset({"no-umbrellas"})

    async def is_shown(waived: frozenset[str]) -> bool:
        events, record, engine = await turn(gguf, guard(), "Fine.", later, waived)
        assert folded(events).stop_reason == "end_turn"
        assert record.findings is not None
        assert record.findings.closed == (0 if waived else 2)
        [job] = engine.jobs
        return b"ACME-77" in b"".join(read_tokenizer(gguf).decode(token) for token in job.token_ids)

    refused, *_ = await turn(gguf, guard(), "Fine.", request(messages=[asked]))
    assert folded(refused).stop_reason == "refusal"
    assert (await is_shown(frozenset()), await is_shown(waived)) == (False, True)
    # That it was answered to this key leaves it closed for others.
    passed, *_ = await turn(gguf, guard(), "It is.", request(messages=[asked]), waived)
    assert folded(passed).stop_reason == "end_turn"
    assert (await is_shown(frozenset()), await is_shown(waived)) == (False, True)


def test_the_record_of_a_phrase_is_json() -> None:
    [principle] = charter().principles
    assert json.loads(principle.model_dump_json())["phrases"] == [PHRASE, "ACME-77"]
