"""Every family's answers as models write them: grammars take them and nothing else, the parser gives them back."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_writers import WRITERS, Answer, ModelWriter, as_json, read, writer_for

from commonweight.prompting import OutputParser, formats
from commonweight.prompting.constrain.grammar import AnswerRules
from commonweight.prompting.formats import (
    CALL_ID,
    GENERIC,
    SAMPLE_ID,
    SAMPLE_KEY,
    SAMPLE_NAME,
    SAMPLE_VALUE,
    detect_format,
    fill_placeholders,
    find_thinking_tags,
)
from commonweight.prompting.parse.output import CallClosed, CallInput, CallOpened, Text

Calls = Sequence[tuple[str, Mapping[str, Any]]]

TOOLS: dict[str, dict[str, Any]] = {
    "get": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"$ref": "#/$defs/city"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["c", "cc", "<f>"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "where": {"type": "object", "properties": {"at": {"type": "object"}}, "additionalProperties": False},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "any": {"description": "whatever"},
            'the "best"/\\ <k> é\x7f': {"type": "boolean"},
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"city": {"type": "string"}},
    },
    "ping": {"type": "object", "properties": {}, "additionalProperties": False},
}

with_each_writer = pytest.mark.parametrize("writer", WRITERS, ids=str)

# What models write in text, keys and values, and what markup looks like.
_LETTERS = st.characters(codec="utf-8", exclude_characters="\x7f")
_SCRAPS = st.sampled_from(
    [
        *(
            '"',
            "\\",
            "{",
            "}",
            "}}",
            "[",
            "]",
            "<",
            ">",
            "\n",
            "\n\n",
            " ",
            ", ",
            '": ',
            "</",
            "<|",
            "é",
            "🙂",
            "null",
        ),
        *(
            "<tool_call>",
            "</tool_call>",
            "\n</parameter>",
            "</arg_value",
            "</arg_key>",
            "<think>",
            "</think>",
            '">',
        ),
        *("<｜tool▁calls▁begin｜>", "[TOOL_CALLS]", "<|end|>", "<invoke", "```", "<cite doc=", '{"name": "'),
    ]
)
_words = st.lists(_SCRAPS | st.text(_LETTERS, max_size=3), max_size=6).map("".join)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | _words,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(_words, part, max_size=3),
    max_leaves=6,
)
_inputs: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "get": st.fixed_dictionaries({"city": _words}),
    "get_weather": st.fixed_dictionaries(
        {"city": _words},
        optional={
            "days": st.integers(-(10**6), 10**6),
            "unit": st.sampled_from(["c", "cc", "<f>"]),
            "tags": st.lists(_words, max_size=3),
            "where": st.fixed_dictionaries({}, optional={"at": st.dictionaries(_words, _json, max_size=2)}),
            "note": _words | st.none(),
            "any": _json,
            'the "best"/\\ <k> é\x7f': st.booleans(),
        },
    ),
    "ping": st.just({}),
}


def in_order(tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in the schema's order, which grammars keep."""
    return {key: arguments[key] for key in TOOLS[tool]["properties"] if key in arguments}


_one_call: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    [st.tuples(st.just(name), inputs.map(partial(in_order, name))) for name, inputs in _inputs.items()]
)
_calls = st.lists(_one_call, max_size=3)


def can_write(writer: ModelWriter, text: str, calls: Calls) -> bool:
    """Whether a family can write this at all: some markup is text, and some text could be JSON."""
    family, thinking = writer.family, writer.thinking
    markup = [family.trigger, family.after_text, thinking.opening, thinking.closing]
    if any(part and writer.is_text(part) and part in text for part in markup):
        return False
    if family.arguments is None:
        return True
    after = family.arguments.after_value
    for _, arguments in calls:
        written = [as_text(arguments[key]) for key in ("city", "note", "any") if key in arguments]
        if writer.is_text(after) and any((value + after).find(after) < len(value) for value in written):
            return False
        if any(isinstance(arguments.get(key), str) and is_json(arguments[key]) for key in ("note", "any")):
            return False
    return True


def as_text(value: object) -> str:
    """A value as it stands between tags."""
    return value if isinstance(value, str) else as_json(value)


def is_json(text: str) -> bool:
    """Whether this could be meant as JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@st.composite
def answers(draw: st.DrawFn, writer: ModelWriter) -> tuple[str | None, str, Calls]:
    """Reasoning or none, text, calls."""
    family = writer.family
    calls = draw(_calls)
    calls = calls[:1] if family.takes_one_call else calls
    text = draw(_words)
    if family.is_whole_answer:
        text = "" if calls else text.lstrip(" \t\r\n{")
    reasoning = draw(st.none() | _words)
    assume(can_write(writer, text + (reasoning or ""), calls))
    return reasoning, text, calls


# What they write


WRITTEN = {
    "hermes": (
        'Hm.\n<tool_call>\n{"name": "get", "arguments": {"city": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    ),
    "qwen-coder": (
        "Hm.\n<tool_call>\n<function=get>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=ping>\n</function>\n</tool_call>"
    ),
    "seed": (
        "Hm.\n<seed:tool_call>\n<function=get>\n<parameter=city>Rome</parameter>\n</function>\n</seed:tool_call>\n"
        "<seed:tool_call>\n<function=ping>\n</function>\n</seed:tool_call>"
    ),
    "glm": (
        "Hm.\n<tool_call>get\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call>\n"
        "<tool_call>ping\n</tool_call>"
    ),
    "glm-tight": (
        "Hm.\n<tool_call>get<arg_key>city</arg_key><arg_value>Rome</arg_value></tool_call>"
        "<tool_call>ping</tool_call>"
    ),
    "minimax": (
        'Hm.\n<minimax:tool_call>\n<invoke name="get">\n<parameter name="city">Rome</parameter>\n</invoke>\n'
        '<invoke name="ping">\n</invoke>\n</minimax:tool_call>'
    ),
    "kimi": (
        'Hm.\n<|tool_calls_section_begin|><|tool_call_begin|>functions.get:0<|tool_call_argument_begin|>{"city": '
        '"Rome"}<|tool_call_end|><|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|>{}'
        "<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "deepseek": (
        "Hm.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n```json\n"
        '{"city": "Rome"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n'
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek-3.1": (
        'Hm.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "mistral": (
        'Hm.\n[TOOL_CALLS][{"name": "get", "arguments": {"city": "Rome"}, "id": "a1B2c3D4e"}, '
        '{"name": "ping", "arguments": {}, "id": "a1B2c3D4e"}]'
    ),
    "mistral-spaced": (
        'Hm.\n[TOOL_CALLS] [{"name": "get", "arguments": {"city": "Rome"}, "id": "a1B2c3D4e"}, '
        '{"name": "ping", "arguments": {}, "id": "a1B2c3D4e"}]'
    ),
    "mistral-ids": (
        'Hm.\n[TOOL_CALLS]get[CALL_ID]a1B2c3D4e[ARGS]{"city": "Rome"}[TOOL_CALLS]ping[CALL_ID]a1B2c3D4e[ARGS]{}'
    ),
    "mistral-args": 'Hm.\n[TOOL_CALLS]get[ARGS]{"city": "Rome"}[TOOL_CALLS]ping[ARGS]{}',
    "llama3": '{"name": "get", "parameters": {"city": "Rome"}}',
    "harmony": (
        "<|channel|>commentary<|message|>Hm.\n<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.get <|constrain|>json<|message|>{"city": "Rome"}'
    ),
}
"""Text and two calls, or what of it a family can write."""


@pytest.mark.parametrize("name", WRITTEN)
def test_families_write_calls_like_this(name: str) -> None:
    writer = writer_for(name)
    family = writer.family
    calls = [("get", {"city": "Rome"}), ("ping", {})][: 1 if family.takes_one_call else 2]
    text = "" if family.is_whole_answer else "Hm.\n"
    answer = writer.answer(text=text, calls=calls)
    assert str(answer) == WRITTEN[name]
    rules = AnswerRules(TOOLS)
    assert writer.guide(rules).accepts(answer.tokens())
    found = read(writer.parser(rules), answer.tokens())
    assert (found.text, found.whole_calls) == (text.strip(), calls)


# Which family it is


@pytest.mark.parametrize("name", WRITTEN)
def test_a_family_is_known_by_a_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_for(name)
    rendered = str(writer.answer(text="", calls=[(SAMPLE_NAME, {SAMPLE_KEY: SAMPLE_VALUE})]))
    if name == "harmony":  # the template writes in another order than the model
        rendered = f'<|start|>assistant to=functions.{SAMPLE_NAME}<|channel|>commentary json<|message|>{{"k": 1}}'
    assert detect_format(f"<|user|>ask<|assistant|>{rendered}<|end|>").name == name
    monkeypatch.setattr(formats, "FAMILIES", formats.FAMILIES[::-1])  # so that no other format fits as well
    assert detect_format(f"<|user|>ask<|assistant|>{rendered}<|end|>").name == name


def test_calls_of_an_unknown_kind_are_generic() -> None:
    for rendered in ("", SAMPLE_NAME, f"<call>{SAMPLE_NAME}({SAMPLE_KEY}={SAMPLE_VALUE})</call>"):
        assert detect_format(rendered) is GENERIC


def test_reasoning_is_known_by_the_templates_tags() -> None:
    assert find_thinking_tags("{{ content.split('</think>') }}", GENERIC) == WRITERS[-1].thinking
    assert find_thinking_tags("{{ content }}", GENERIC) is None
    harmony = writer_for("harmony")
    assert find_thinking_tags("", harmony.family) == harmony.thinking


# What may be written, and what it tells


@with_each_writer
@given(data=st.data(), random=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_whatever_way_it_is_cut_an_answer_is_taken_and_given_back(
    writer: ModelWriter, data: st.DataObject, random: Random
) -> None:
    reasoning, text, calls = data.draw(answers(writer))
    is_begun = data.draw(st.booleans()) and reasoning is not None
    rules = AnswerRules(TOOLS, thinking="over" if reasoning is None else "begun" if is_begun else "possible")
    answer = writer.answer(reasoning, text, calls, is_begun=is_begun)
    tokens = answer.tokens(random)
    assert writer.guide(rules).accepts(tokens)
    found = read(writer.parser(rules), tokens)
    assert found.reasoning == (reasoning or "").strip()
    if reasoning is not None and not writer.family.text_openings:
        text = text.lstrip()
    assert found.text == (text.rstrip() if calls else text)
    assert found.whole_calls == list(calls)
    assert found.quotes == []


CITY = {"city": 'Par"is {'}


@with_each_writer
def test_what_the_request_allows_is_allowed(writer: ModelWriter) -> None:
    call = writer.answer(calls=[("get", CITY)]).tokens()
    only_get = {"get": TOOLS["get"]}
    assert writer.guide(AnswerRules(TOOLS)).accepts(call)
    assert writer.guide(AnswerRules(TOOLS, must_call=True)).accepts(call)
    assert writer.guide(AnswerRules(only_get, must_call=True, allows_parallel_calls=False)).accepts(call)
    assert writer.guide(AnswerRules(TOOLS, allows_parallel_calls=False)).accepts(call)
    text = writer.answer(text="No tool > or < { helps.").tokens()
    assert writer.guide(AnswerRules(TOOLS)).accepts(text)
    assert writer.guide(AnswerRules(TOOLS, may_call=False)).accepts(text)


@with_each_writer
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("nope", {}), ("ge", CITY), ("get_", CITY), ("get_weather2", CITY), ("", {})),
        *(("get", {}), ("get", {"city": "Rome", "zip": 1}), ("ping", CITY)),
        *(("get_weather", {"city": "Rome", "days": "many"}), ("get_weather", {"city": "Rome", "unit": "k"})),
        ("get_weather", {"city": "Rome", "tags": [1]}),
    ],
)
def test_calls_against_the_schema_are_refused(
    writer: ModelWriter, name: str, arguments: Mapping[str, Any]
) -> None:
    for rules in (AnswerRules(TOOLS), AnswerRules(TOOLS, must_call=True)):
        assert not writer.guide(rules).accepts(writer.answer(calls=[(name, arguments)]).tokens())


@with_each_writer
def test_what_the_request_forbids_is_refused(writer: ModelWriter) -> None:
    family = writer.family
    forced = writer.guide(AnswerRules(TOOLS, must_call=True))
    assert not forced.may_end
    assert not forced.accepts(writer.answer(text="No.").tokens())
    call = writer.answer(calls=[("get", CITY)])
    assert not writer.guide(AnswerRules(TOOLS, must_call=True)).accepts(
        writer.answer(text="So:", calls=[("get", CITY)]).tokens()
    )
    assert not writer.guide(AnswerRules(TOOLS, may_call=False)).accepts(call.tokens())
    assert not writer.guide(AnswerRules({"ping": TOOLS["ping"]}, must_call=True)).accepts(call.tokens())
    for text in ("So", " ", "\n\n", "<"):
        assert not writer.guide(AnswerRules(TOOLS)).accepts(
            writer.answer(calls=[("get", CITY)]).text(text).tokens()
        )
    two = writer.answer(calls=[("get", CITY), ("ping", {})]).tokens()
    assert not writer.guide(AnswerRules(TOOLS, allows_parallel_calls=False)).accepts(two)
    assert writer.guide(AnswerRules(TOOLS)).accepts(two) == (not family.takes_one_call)


@with_each_writer
def test_no_answer_ends_within_a_call(writer: ModelWriter) -> None:
    tokens = writer.answer(calls=[("get_weather", {"city": "Rome", "tags": ["a"]})]).tokens()
    guide = writer.guide(AnswerRules(TOOLS, must_call=True))
    for token in tokens:
        assert not guide.may_end
        assert guide.follow([token]) == 1
    assert guide.may_end


# As it comes


def spelled(writer: ModelWriter, tokens: Sequence[int]) -> str:
    """Text of tokens with their markup, without an incomplete character."""
    texts = {token: text for text, token in writer.specials.items()}
    data = b"".join(texts[i].encode() if i in texts else writer.tokenizer.decode(i) for i in tokens)
    return data.decode(errors="ignore")


@with_each_writer
@given(data=st.data(), random=st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_an_answer_can_be_cut_off_anywhere(writer: ModelWriter, data: st.DataObject, random: Random) -> None:
    reasoning, text, calls = data.draw(answers(writer))
    rules = AnswerRules(TOOLS, thinking="over" if reasoning is None else "possible")
    tokens = writer.answer(reasoning, text, calls).tokens(random)
    for count in random.sample(range(len(tokens)), min(len(tokens), 20)):
        found = read(writer.parser(rules), tokens[:count], is_cut=True)
        assert (reasoning or "").strip().startswith(found.reasoning)
        assert text.startswith(found.text) or text.lstrip().startswith(found.text)
        for (name, arguments, is_whole), call in zip(found.calls, calls, strict=False):
            assert name == call[0]
            if is_whole:
                assert json.loads(arguments) == call[1]
            else:
                assert writer.family.arguments or as_json(call[1]).startswith(arguments)
        assert len(found.calls) <= len(calls)
        read(writer.parser(rules), tokens[:count])  # which may also be how it ends


@with_each_writer
@given(arguments=_inputs["get_weather"], random=st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_inputs_come_as_they_are_written(
    writer: ModelWriter, arguments: Mapping[str, Any], random: Random
) -> None:
    if writer.family.arguments is not None:
        return
    answer = writer.answer(calls=[("get_weather", in_order("get_weather", arguments))])
    whole = as_json(in_order("get_weather", arguments))
    start = str(answer).index(whole)
    parser, tokens, shown = writer.parser(AnswerRules(TOOLS)), answer.tokens(random), ""
    for count, token in enumerate(tokens, 1):
        shown += "".join(piece.json for piece in parser.feed(token) if isinstance(piece, CallInput))
        assert shown == spelled(writer, tokens[:count])[start : start + len(whole)]


@with_each_writer
@given(text=_words, random=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_text_comes_as_soon_as_it_can_be_nothing_else(writer: ModelWriter, text: str, random: Random) -> None:
    family = writer.family
    text = text.lstrip(" \t\r\n{") if family.is_whole_answer else text
    assume(can_write(writer, text, []))
    answer = writer.answer(text=text)
    start = len(str(answer)) - len(text)
    parser, tokens, shown = writer.parser(AnswerRules(TOOLS)), answer.tokens(random), ""
    for count, token in enumerate(tokens, 1):
        shown += "".join(piece.text for piece in parser.feed(token) if isinstance(piece, Text))
        so_far = spelled(writer, tokens[:count])[start:]
        assert so_far.startswith(shown)
        held = so_far[len(shown) :].lstrip()
        assert any(markup.startswith(held) for markup in (family.trigger, family.after_text))


@with_each_writer
def test_a_call_is_over_with_its_input(writer: ModelWriter) -> None:
    family = writer.family
    tokens = writer.answer(calls=[("ping", {})]).tokens()
    after = len(Answer(writer).markup(fill_placeholders(family.after_input + family.closing)).tokens())
    parser = writer.parser(AnswerRules(TOOLS))
    # Between tags, only what ends the call tells that there are no arguments.
    known = tokens if family.arguments else tokens[:-after] if after else tokens
    pieces = [piece for token in known for piece in parser.feed(token)]
    assert (pieces[0], pieces[-1]) == (CallOpened("ping", parser_id(family.before_input)), CallClosed())
    assert "".join(piece.json for piece in pieces[1:-1] if isinstance(piece, CallInput)) == "{}"


def parser_id(before_input: str) -> str | None:
    """The id of a call in the parser's output."""
    return SAMPLE_ID if CALL_ID in before_input else None


def test_numbers_of_calls_may_have_any_length() -> None:
    writer = writer_for("kimi")
    head = "<|tool_calls_section_begin|><|tool_call_begin|>functions.ping:"
    for number in ("0", "7", "128"):
        call = f"{head}{number}<|tool_call_argument_begin|>{{}}<|tool_call_end|><|tool_calls_section_end|>"
        tokens = Answer(writer).markup(call).tokens()
        assert writer.guide(AnswerRules(TOOLS)).accepts(tokens)
        assert read(writer.parser(AnswerRules(TOOLS)), tokens).whole_calls == [("ping", {})]


# Arguments between tags

with_each_kind_of_tags = pytest.mark.parametrize(
    "writer", [writer for writer in WRITERS if writer.family.arguments], ids=str
)


def input_of(writer: ModelWriter, schema: dict[str, Any], written: Mapping[str, str]) -> str:
    """The JSON that arguments become which are written like this; empty if the grammar refuses them."""
    rules = AnswerRules({"tool": schema})
    tokens = writer.answer(calls=[("tool", written)]).tokens()
    if not writer.guide(rules).accepts(tokens):
        return ""
    ((_, arguments, is_whole),) = read(writer.parser(rules), tokens).calls
    assert is_whole
    return arguments


STRING, NUMBER, OR_NULL = {"type": "string"}, {"type": "number"}, {"type": ["string", "null"]}
CHOICE_OR_NULL = {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]}
WORD_OR_NUMBER = {"anyOf": [{"const": "auto"}, {"type": "integer"}]}
WORD_OR_LIST = {"oneOf": [{"enum": ["all", "none"]}, {"type": "array", "items": STRING}]}


@with_each_kind_of_tags
@pytest.mark.parametrize(
    ("schema", "written", "expected"),
    [
        *(
            (STRING, text, as_json(text))
            for text in ("5", "null", "true", "", " ", '"quoted"', "a\n\n<b>\\n", "{")
        ),
        *(
            (NUMBER, "5", "5"),
            (NUMBER, "-5.5", "-5.5"),
            (NUMBER, "five", ""),
            (NUMBER, '"5"', ""),
            (NUMBER, "", ""),
        ),
        *(({"type": "boolean"}, "true", "true"), ({"type": "boolean"}, "True", "")),
        *((OR_NULL, "null", "null"), (OR_NULL, "nul", '"nul"'), (OR_NULL, "nullable", '"nullable"')),
        *((OR_NULL, "5", '"5"'), (OR_NULL, "", '""')),
        *(
            ({"anyOf": [STRING, NUMBER]}, text, json_)
            for text, json_ in (("5", "5"), ("5 cm", '"5 cm"'), ("-", '"-"'))
        ),
        *(({}, text, text) for text in ("null", "true", "-1e5", '{"a": [1]}', "[]", "0.5")),
        *(
            ({}, text, as_json(text))
            for text in ("NaN", "-Infinity", "[1", "{a}", "01", "tru", "12:30", "1" * 5000)
        ),
        *((True, text, json_) for text, json_ in (("x", '"x"'), ("1", "1"))),
        *(({"enum": ["a", 1, None]}, text, json_) for text, json_ in (("a", '"a"'), ("1", "1"), ("null", "null"))),
        *(({"enum": ["a", 1, None]}, "b", ""), ({"const": "x"}, "x", '"x"'), ({"const": "x"}, "y", "")),
        *(({"enum": ["1", "null"]}, "1", '"1"'), ({"type": "string", "enum": ["a", 2]}, "2", "")),
        *(
            ({"type": "array", "items": STRING}, '["</arg_value>", "x"]', '["</arg_value>", "x"]'),
            (False, "x", ""),
        ),
        *(
            (CHOICE_OR_NULL, text, json_)
            for text, json_ in (("a", '"a"'), ("null", "null"), ("c", ""), ("", ""), ("nul", ""))
        ),
        *(
            (WORD_OR_NUMBER, text, json_)
            for text, json_ in (("auto", '"auto"'), ("5", "5"), ("5.5", ""), ("autos", ""), ("aut", ""), ("", ""))
        ),
        *(
            (WORD_OR_LIST, text, json_)
            for text, json_ in (("all", '"all"'), ('["</parameter>\\n"]', '["</parameter>\\n"]'), ("[1]", ""))
        ),
        *(({"type": ["boolean", "string"]}, text, json_) for text, json_ in (("true", "true"), ("t", '"t"'))),
        *(({"type": "string", "enum": ["a", None]}, text, json_) for text, json_ in (("a", '"a"'), ("null", ""))),
        *(({"allOf": [{"enum": ["a", 1]}, STRING]}, text, json_) for text, json_ in (("a", '"a"'), ("1", ""))),
        *(({"$ref": "#/$defs/name"}, "5", '"5"'), ({"$ref": "#/$defs/size"}, "5", "5")),
        *(({"$ref": "#/$defs/tree"}, "[[]]", "[[]]"), ({"$ref": "#/properties/other"}, "1", "1")),
    ],
    ids=repr,
)
def test_values_become_what_the_schema_says(writer: ModelWriter, schema: Any, written: str, expected: str) -> None:
    tree = {"type": "array", "items": {"$ref": "#/$defs/tree"}}
    tool = {
        "type": "object",
        "properties": {"key": schema, "other": NUMBER},
        "$defs": {"name": STRING, "size": NUMBER, "tree": tree},
    }
    assert input_of(writer, tool, {"key": written}) == (f'{{"key": {expected}}}' if expected else "")


@with_each_kind_of_tags
@pytest.mark.parametrize(
    "key", ["a b", 'x"y', "naïve", "a/b\\c", "<k>", "\x7f", "{}", "key\nline", "<arg_key>", "="]
)
def test_keys_may_be_unusual(writer: ModelWriter, key: str) -> None:
    tool = {"type": "object", "properties": {key: STRING, f"{key}2": NUMBER}, "required": [key]}
    written = {key: "v", f"{key}2": "2"}
    assert json.loads(input_of(writer, tool, written)) == {key: "v", f"{key}2": 2}


@with_each_kind_of_tags
def test_other_arguments_are_taken_where_the_schema_says_so(writer: ModelWriter) -> None:
    free = {"type": "object"}
    numbers = {"type": "object", "properties": {"a": STRING}, "additionalProperties": NUMBER}
    closed = {"type": "object", "properties": {"a": STRING}}
    assert input_of(writer, free, {"x-1": "word", "y": "2"}) == '{"x-1": "word", "y": 2}'
    assert input_of(writer, numbers, {"a": "1", "b": "2"}) == '{"a": "1", "b": 2}'
    assert input_of(writer, numbers, {"b": "two"}) == ""
    assert input_of(writer, closed, {"b": "2"}) == ""


@with_each_kind_of_tags
def test_text_that_may_be_null_is_held_back_only_while_it_may(writer: ModelWriter) -> None:
    rules = AnswerRules({"tool": {"type": "object", "properties": {"key": OR_NULL}}})
    around = writer.family.arguments
    assert around is not None
    head = writer.family.opening + writer.family.before_name + "tool" + writer.family.before_input
    parser = writer.parser(rules)
    start = Answer(writer).markup(head + around.before_key + "key" + around.before_value).tokens()
    assert read_inputs(parser, start) == '{"key": '
    shown = [read_inputs(parser, Answer(writer).text(c).tokens()) for c in "null!<x"]
    assert "".join(shown).startswith('"null!')
    assert shown[:4] == [""] * 4


def read_inputs(parser: OutputParser, tokens: Sequence[int]) -> str:
    """The call input that tokens add."""
    pieces = [piece for token in tokens for piece in parser.feed(token)]
    return "".join(piece.json for piece in pieces if isinstance(piece, CallInput))
