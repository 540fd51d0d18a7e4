"""What answers are held to: reasoning and its budget, JSON, quotes, and text that is unlike a call."""

from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model_writers import WRITERS, Answer, ModelWriter, as_json, draw_tokens, read, vocabulary, writer_for
from vocabularies import (
    byte_level_tokenizer,
    gemma_tokenizer,
    mistral_tokenizer,
    phi_tokenizer,
    starter_tokenizer,
)

from commonweight.prompting import Tokenizer
from commonweight.prompting.constrain.grammar import MAX_QUOTABLE_CHARACTERS, AnswerRules, GrammarWriter
from commonweight.prompting.constrain.lark import MarkupWriter, make_regex_containing, quote_string
from commonweight.prompting.constrain.schema import BadSchemaError
from commonweight.prompting.formats import GENERIC, Tags

PING = {"ping": {"type": "object", "properties": {}, "additionalProperties": False}}
GET = {"get": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
NAMED = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "parameters": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}

with_each_writer = pytest.mark.parametrize("writer", WRITERS, ids=str)
SOME_WRITERS = [
    "hermes",
    "hermes-in-text",
    "qwen-coder",
    "llama3",
    "llama3-in-text",
    "harmony",
    "mistral-args",
    "kimi",
]
with_some_writers = pytest.mark.parametrize("writer", [writer_for(name) for name in SOME_WRITERS], ids=str)


# When there is one


def test_an_answer_that_may_be_anything_has_no_grammar() -> None:
    hermes, harmony = writer_for("hermes"), writer_for("harmony")
    grammar_writer = GrammarWriter(hermes.family, hermes.thinking, hermes.specials)
    for rules in (
        AnswerRules({}),
        AnswerRules({}, thinking="begun"),
        AnswerRules({}, budget=1024),
        AnswerRules({}, quotable=("", " \n")),
    ):
        assert grammar_writer.write(rules) is None
    for rules in (
        AnswerRules(PING),
        AnswerRules(PING, may_call=False),
        AnswerRules({}, schema={}),
        AnswerRules({}, quotable=("a",)),
    ):
        assert grammar_writer.write(rules) is not None
    assert grammar_writer.write(AnswerRules({}, thinking="begun", budget=1024)) is not None
    assert (
        GrammarWriter(hermes.family, None, hermes.specials).write(AnswerRules({}, thinking="begun", budget=9))
        is None
    )
    # Here even text has a form.
    assert GrammarWriter(harmony.family, harmony.thinking, harmony.specials).write(AnswerRules({})) is not None


def test_literals_that_read_like_tokens_are_not_forced() -> None:
    """An upstream server would force the token, which the grammar does not allow there."""
    writer = writer_for("hermes")
    for schema, is_forced in (
        ({"enum": ["<think>"]}, False),
        ({"properties": {"</tool_call>": {}}}, False),
        ({"pattern": "^<think>$"}, False),
        ({"enum": ["<thinking>"]}, True),
    ):
        tool = {"type": "object", "properties": {"a": schema}}
        assert ("no_forcing" not in writer.grammar(AnswerRules({"tool": tool}))) == is_forced


@pytest.mark.parametrize(
    "tokenizer", [byte_level_tokenizer(), gemma_tokenizer(), mistral_tokenizer(), phi_tokenizer()], ids=str
)
def test_literals_are_spelled_with_ordinary_tokens(tokenizer: Tokenizer) -> None:
    tags = {tag: token_id for tag, token_id in tokenizer.special_tokens.items() if tag.startswith("<")}
    for tag in [*tags, "<table>", "<br>"]:
        for text in (tag, f"a{tag}b", f" {tag}{tag}\n"):
            tokens = draw_tokens(tokenizer, f"start: {quote_string(text)}", Random(0))
            assert b"".join(map(tokenizer.decode, tokens)).decode() == text
            assert set(tags.values()).isdisjoint(tokens)


# Input


@pytest.mark.parametrize(
    ("says_more", "takes_others"),
    [
        ({}, False),
        ({"additionalProperties": {"type": "integer"}}, True),
        ({"patternProperties": {"^b": {"type": "integer"}}}, True),
        ({"allOf": [{"properties": {"b": {"type": "integer"}}}]}, True),
    ],
    ids=str,
)
def test_a_tool_that_names_what_it_takes_takes_nothing_else(says_more: dict[str, Any], takes_others: bool) -> None:
    writer = writer_for("hermes")
    tools = {"get": {"type": "object", "properties": {"a": {"type": "integer"}}, **says_more}}
    for body, is_taken in (({"a": 1}, True), ({}, True), ({"a": 1, "b": 2}, takes_others)):
        call = as_json({"name": "get", "arguments": body})
        answer = Answer(writer).markup("<tool_call>").text(f"\n{call}\n").markup("</tool_call>").tokens()
        assert writer.guide(AnswerRules(tools)).accepts(answer) == is_taken


# Reasoning


@with_each_writer
@pytest.mark.parametrize("is_begun", [True, False])
def test_reasoning_is_kept_within_its_budget(writer: ModelWriter, is_begun: bool) -> None:
    closing = writer.thinking.closing
    budget = 5
    rules = AnswerRules(PING, thinking="begun" if is_begun else "possible", budget=budget)
    start = Answer(writer).markup("" if is_begun else writer.thinking.opening).tokens()
    if not is_begun and writer.is_text(writer.thinking.opening):
        return  # where text could be the tag, the tag is text
    most = budget if not writer.is_text(closing) else 4 * budget
    guide = writer.guide(rules)
    assert guide.follow([*start, *Answer(writer).text("🙂" * 20).tokens()]) - len(start) >= most
    end = Answer(writer).markup(closing).tokens()
    assert guide.allowed() == {end[0]}
    assert guide.follow(end) == len(end)


@with_each_writer
@pytest.mark.parametrize("is_begun", [True, False])
@pytest.mark.parametrize("budget", [None, 64])
def test_a_forced_call_may_follow_reasoning(writer: ModelWriter, is_begun: bool, budget: int | None) -> None:
    rules = AnswerRules(PING, must_call=True, thinking="begun" if is_begun else "possible", budget=budget)
    for reasoning in ("I need it.", "", None if not is_begun else " "):
        answer = writer.answer(reasoning, calls=[("ping", {})], is_begun=is_begun)
        assert writer.guide(rules).accepts(answer.tokens())
        found = read(writer.parser(rules), answer.tokens())
        assert (found.reasoning, found.text) == ((reasoning or "").strip(), "")
        assert found.whole_calls == [("ping", {})]
    text = writer.answer("I need it.", "So:", is_begun=is_begun)
    assert not writer.guide(rules).accepts(text.tokens())


@with_each_writer
def test_calls_do_not_begin_within_reasoning(writer: ModelWriter) -> None:
    rules = AnswerRules(PING, thinking="begun")
    answer = Answer(writer).text("Hm ").markup(str(writer.answer(calls=[("ping", {})])))
    assert not writer.guide(rules).accepts(answer.tokens())
    found = read(writer.parser(rules), answer.tokens())
    assert not found.calls
    assert found.text == ""


@with_each_writer
def test_tokens_of_reasoning_are_counted_without_its_tags(writer: ModelWriter) -> None:
    if writer.is_text(writer.thinking.closing):
        return  # parts of a tag may count then
    for is_begun in (True, False):
        rules = AnswerRules(PING, thinking="begun" if is_begun else "possible")
        for reasoning in ("", "a", "\n\nabc 🙂\n"):
            parser = writer.parser(rules)
            read(parser, writer.answer(reasoning, "So.", is_begun=is_begun).tokens())
            assert parser.thinking_tokens == len(reasoning.encode())
    parser = writer.parser(AnswerRules(PING, thinking="possible"))
    read(parser, writer.answer(None, "So.").tokens())
    assert parser.thinking_tokens == 0


def test_reasoning_may_come_twice() -> None:
    writer = writer_for("hermes")
    answer = writer.answer("one").markup(str(writer.answer("two", "text")))
    found = read(writer.parser(AnswerRules(PING, thinking="possible")), answer.tokens())
    assert (found.reasoning, found.text) == ("onetwo", "text")


# JSON

ANSWERS: list[Any] = [
    {"name": "Bob"},
    {"name": "ping"},
    {"name": "pingpong", "parameters": 1},
    {"name": "{<tool_call>"},
]


@with_some_writers
@pytest.mark.parametrize("thinking", ["over", "begun", "possible"])
@pytest.mark.parametrize("has_tools", [True, False])
def test_an_answer_may_be_json_or_calls(writer: ModelWriter, thinking: Any, has_tools: bool) -> None:
    rules = AnswerRules(
        PING if has_tools else {}, schema=NAMED, thinking=thinking, budget=None if thinking == "over" else 64
    )
    reasoning, is_begun = None if thinking == "over" else "Hm.", thinking == "begun"
    for value in ANSWERS:
        answer = writer.answer(reasoning, as_json(value), is_begun=is_begun)
        for random in (None, Random(1), Random(2)):
            assert writer.guide(rules).accepts(answer.tokens(random))
            found = read(writer.parser(rules), answer.tokens(random))
            assert (found.reasoning, found.text, found.calls) == (reasoning or "", as_json(value), [])
    for text in ("Bob", '{"name": 5}', '{"name": "Bob"} ', '{"name": "Bob", "age": 5}', '{"name":"Bob"}', ""):
        assert not writer.guide(rules).accepts(writer.answer(reasoning, text, is_begun=is_begun).tokens())
    call = writer.answer(reasoning, calls=[("ping", {})], is_begun=is_begun)
    assert writer.guide(rules).accepts(call.tokens()) == has_tools
    if has_tools:
        assert read(writer.parser(rules), call.tokens()).whole_calls == [("ping", {})]
        refused = Answer(writer).markup(str(call).replace("ping", "pong"))
        assert not writer.guide(rules).accepts(refused.tokens())


@pytest.mark.parametrize("first", ["name", "nam", "namespace", "a", "n"])
def test_json_that_begins_like_a_call_is_decided_when_it_differs(first: str) -> None:
    writer = writer_for("llama3")
    rules = AnswerRules(
        GET, schema={"type": "object", "properties": {first: {"type": "string"}}, "required": [first]}
    )
    for value in ("get", "ge", "getting", "x"):
        tokens = writer.answer(text=as_json({first: value})).tokens()
        assert writer.guide(rules).accepts(tokens)
        assert read(writer.parser(rules), tokens).text == as_json({first: value})
    call = writer.answer(calls=[("get", {"city": "x"})]).tokens()
    assert writer.guide(rules).accepts(call)
    assert read(writer.parser(rules), call).whole_calls == [("get", {"city": "x"})]
    # JSON that is cut off is JSON as far as it goes.
    assert read(writer.parser(rules), call[:8], is_cut=True).text == '{"name":'


@with_some_writers
def test_json_is_cut_off_as_text(writer: ModelWriter) -> None:
    rules = AnswerRules(PING, schema=NAMED)
    answer = writer.answer(text=as_json({"name": "pin<tool_call>g"}))
    start = len(answer.tokens()) - len(as_json({"name": "pin<tool_call>g"}))
    for count in range(start, len(answer.tokens())):
        found = read(writer.parser(rules), answer.tokens()[:count], is_cut=True)
        assert found.text == as_json({"name": "pin<tool_call>g"})[: count - start]


def test_schemas_that_no_answer_fits_are_refused() -> None:
    bad = {"type": "object", "properties": {"a": {"type": "strin"}}}
    for name in ("hermes", "glm"):
        writer = writer_for(name)
        with pytest.raises(BadSchemaError):
            writer.grammar(AnswerRules({"tool": bad}))
        with pytest.raises(BadSchemaError):
            writer.grammar(AnswerRules({}, schema=bad))


def test_what_a_tool_takes_is_an_object_whatever_its_schema_says() -> None:
    for schema in (
        {},
        {"type": ["object", "null"]},
        {"description": "anything"},
        {"$ref": "#/$defs/a", "$defs": {"a": {}}},
    ):
        for name in ("hermes", "glm"):
            writer = writer_for(name)
            assert writer.guide(AnswerRules({"tool": schema})).accepts(
                writer.answer(calls=[("tool", {})]).tokens()
            )
        text = Answer(writer := writer_for("mistral-args")).markup("[TOOL_CALLS]tool[ARGS]").text("null")
        assert not writer.guide(AnswerRules({"tool": schema})).accepts(text.tokens())


# Text


@pytest.mark.parametrize("writer", [s for s in WRITERS if not s.family.text_openings], ids=str)
def test_text_that_goes_on_may_begin_with_anything(writer: ModelWriter) -> None:
    for tools in ({}, PING):
        rules = AnswerRules(tools, continues_text=True, quotable=("words",))
        for text in (" and", "\n{", '{"name": "x"}', ". ", ""):
            tokens = Answer(writer).text(text).tokens()
            assert writer.guide(rules).accepts(tokens)
            assert read(writer.parser(rules), tokens).text == text
    late = Answer(writer).text(" and").markup(str(writer.answer(calls=[("ping", {})])))
    rules = AnswerRules(PING, continues_text=True)
    if not writer.family.is_whole_answer:
        assert writer.guide(rules).accepts(late.tokens())
        assert read(writer.parser(rules), late.tokens()).whole_calls == [("ping", {})]
        forced = AnswerRules(PING, continues_text=True, must_call=True)
        assert writer.guide(forced).accepts(late.tokens())
        assert not writer.guide(forced).accepts(Answer(writer).text(" and").tokens())


@pytest.mark.parametrize("name", ["harmony", "harmony-in-text"])
def test_text_of_harmony_goes_on_without_another_opening(name: str) -> None:
    writer = writer_for(name)
    rules = AnswerRules(PING, continues_text=True)
    tokens = Answer(writer).text(" and so on").tokens()
    assert writer.guide(rules).accepts(tokens)
    assert read(writer.parser(rules), tokens).text == " and so on"


def test_whole_answers_are_calls_or_text_by_their_beginning() -> None:
    for name in ("llama3", "llama3-in-text"):
        writer = writer_for(name)
        for text in ('{"name": "Bob"}', "{", ' {"name": "ping", "parameters": {}}', "\n{"):
            for rules in (AnswerRules(PING), AnswerRules(PING, may_call=False)):
                assert not writer.guide(rules).accepts(Answer(writer).text(text).tokens())
        text = 'So: {"name": "ping", "parameters": {}}'
        assert writer.guide(AnswerRules(PING)).accepts(Answer(writer).text(text).tokens())
        assert read(writer.parser(AnswerRules(PING)), Answer(writer).text(text).tokens()).text == text


# Quotes

DOCUMENTS = ("The sky is blue.\nGrass is green.", "", 'He said "</cite> <b>no</b>" & left.', " \n ", "été 🙂 été")


def quoting(writer: ModelWriter, *parts: str | tuple[int | str, str], opening: str = "") -> Answer:
    """Text with quotes in it."""
    answer = Answer(writer).markup(opening or "".join(writer.family.text_openings[:1]))
    for part in parts:
        if isinstance(part, str):
            answer.text(part)
        else:
            answer.text(f'<cite doc="{part[0]}">{part[1]}</cite>')
    return answer


@with_each_writer
@pytest.mark.parametrize("has_tools", [True, False])
def test_quotes_are_words_of_the_document(writer: ModelWriter, has_tools: bool) -> None:
    for may_call in (True, False) if has_tools else (True,):
        rules = AnswerRules(PING if has_tools else {}, may_call=may_call, quotable=DOCUMENTS)
        answer = quoting(
            writer,
            "It is. ",
            (0, "sky is"),
            " Two:",
            (2, 'He said "'),
            (4, "é 🙂 é"),
            (0, "e.\nG"),
            " Well < that.\n",
        )
        for random in (None, Random(1), Random(2)):
            tokens = answer.tokens(random)
            assert writer.guide(rules).accepts(tokens)
            found = read(writer.parser(rules), tokens)
            assert found.text == "It is.  Two: Well < that.\n"
            assert found.quotes == [(0, "sky is"), (2, 'He said "'), (4, "é 🙂 é"), (0, "e.\nG")]
        assert writer.guide(rules).accepts(quoting(writer, "None.").tokens())


@with_some_writers
@pytest.mark.parametrize(
    "quote",
    [
        *((0, ""), (0, " "), (0, "\n"), (0, "sky was"), (0, "The sky is blue. Grass"), (0, "Sky"), (0, "été")),
        *((1, ""), (1, "The"), (3, " "), (3, ""), (5, "The"), (9, "x"), ("00", "sky"), ("", "sky"), ("x", "sky")),
        *((2, "<"), (2, "< <b>"), (2, "<b>no")),
    ],
)
def test_no_other_quote_can_be_written(writer: ModelWriter, quote: tuple[int | str, str]) -> None:
    for tools in ({}, PING):
        rules = AnswerRules(tools, quotable=DOCUMENTS)
        assert not writer.guide(rules).accepts(quoting(writer, "It is. ", quote, ".").tokens())
        if not writer.family.is_whole_answer:
            assert not writer.guide(rules).accepts(quoting(writer, quote).tokens())


@with_each_writer
def test_quotes_may_come_before_calls(writer: ModelWriter) -> None:
    rules = AnswerRules(PING, quotable=DOCUMENTS)
    if writer.family.is_whole_answer or writer.family.text_openings:
        return
    answer = quoting(writer, "It is ", (0, "sky"), " so.\n").markup(str(writer.answer(calls=[("ping", {})])))
    assert writer.guide(rules).accepts(answer.tokens())
    found = read(writer.parser(rules), answer.tokens())
    assert (found.text, found.quotes, found.whole_calls) == ("It is  so.", [(0, "sky")], [("ping", {})])


@pytest.mark.parametrize("name", ["hermes", "llama3", "harmony"])
def test_a_quote_that_is_cut_off_is_nothing(name: str) -> None:
    writer = writer_for(name)
    rules = AnswerRules(PING, quotable=DOCUMENTS)
    tokens = quoting(writer, "It is.", (0, "sky is blue")).tokens()
    start = len(quoting(writer, "It is.").tokens())
    for count in range(start, len(tokens)):
        found = read(writer.parser(rules), tokens[:count], is_cut=True)
        assert (found.text, found.quotes) == ("It is.", [])
        read(writer.parser(rules), tokens[:count])


def test_text_that_begins_like_a_quote_is_text_without_documents() -> None:
    writer = writer_for("hermes")
    tokens = Answer(writer).text('<cite doc="0">a</cite>').tokens()
    assert read(writer.parser(AnswerRules(PING)), tokens).text == '<cite doc="0">a</cite>'


def test_what_is_no_quote_after_all_is_text() -> None:
    writer = writer_for("hermes")
    for text in ('<cite doc="a">b</cite> c', '<cite doc="">b', '<cite doc="²">b</cite>'):
        parser = writer.parser(AnswerRules({}, quotable=DOCUMENTS))
        assert read(parser, Answer(writer).text(text).tokens()).text == text


@given(
    text=st.text(st.sampled_from('ab <>/"\n🙂é\x7f'), max_size=40),
    random=st.randoms(use_true_random=False),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_words_between_angles_can_be_quoted(text: str, random: Random, data: st.DataObject) -> None:
    writer = writer_for("hermes")
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    quote = text[start:end]
    rules = AnswerRules({}, quotable=(text, "other"))
    tokens = quoting(writer, "x", (0, quote), "y").tokens(random)
    assert writer.guide(rules).accepts(tokens) == (bool(quote.strip()) and "<" not in quote)


def test_long_documents_can_be_quoted() -> None:
    writer = ModelWriter(GENERIC, Tags("<think>", "</think>"), starter_tokenizer(), "starter")
    random = Random(0)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(1, 9))) for _ in range(3000)]
    text = " ".join(random.choices(words, k=9000))[:MAX_QUOTABLE_CHARACTERS]
    assert len(text) == MAX_QUOTABLE_CHARACTERS
    rules = AnswerRules({}, quotable=(text, text))
    guide = writer.guide(rules)
    tokens = writer.tokenizer.encode(f'It is.<cite doc="0">{text[20_000:20_500]}</cite> So.')
    for token in tokens:
        assert token in guide.allowed()
        assert guide.follow([token]) == 1
    assert guide.may_end
    # There is no room for the second: any words will do, as long as there are some.
    other = '<cite doc="1">whatever</cite>'
    assert writer.guide(rules).accepts(writer.tokenizer.encode(other))
    assert not writer.guide(rules).accepts(writer.tokenizer.encode(other.replace("whatever", " ")))


# Names and other text in the grammar


@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
@example('"\\/\x7f\x00\u2028\n\r\t//#<[5]>%json{')
@settings(max_examples=200, deadline=None)
def test_any_text_can_stand_in_a_grammar(text: str) -> None:
    writer = writer_for("generic-in-text")
    tokens = Answer(writer).text(text).tokens()
    assert writer.guide_of(f"start: {quote_string(text)}\n").accepts(tokens)
    without = writer.guide_of(f"start: TEXT\nTEXT: /(.|\\n)*/ & ~{make_regex_containing(text)}\n")
    assert without.accepts(Answer(writer).text(text[:-1]).tokens())
    assert not without.accepts([*Answer(writer).text("a").tokens(), *tokens, *tokens])


def test_special_tokens_in_a_format_are_tokens_and_in_names_text() -> None:
    literals = MarkupWriter({"<a>": 7, "<ab>": 8, "<": 9})
    assert literals.write("x<a><ab>\n<") == '"x" <[7]> <[8]> "\\n<"'
    assert literals.write("") == ""
    assert literals.split("\n<a>b") == ("\n", '<[7]> "b"')
    assert literals.split("ab") == ("ab", "")
    assert literals.begins_with_token("<ab>")
    assert not literals.begins_with_token("< a>")


def test_tools_may_have_names_that_begin_alike() -> None:
    names = ["a", "aa", "a-b", "a_b", "ab", "get", "get_", "getter", "name", "x" * 128]
    tools = dict.fromkeys(names, GET["get"])
    for writer in WRITERS:
        guide_rules = AnswerRules(tools, must_call=True)
        for name in names:
            tokens = writer.answer(calls=[(name, {"city": "x"})]).tokens()
            assert writer.guide(guide_rules).accepts(tokens)
            assert read(writer.parser(guide_rules), tokens).whole_calls == [(name, {"city": "x"})]


def test_many_tools_can_be_offered() -> None:
    properties: dict[str, Any] = {f"argument_{i}": {"type": ["string", "integer"][i % 2]} for i in range(12)}
    tools = {f"tool_{i}": {"type": "object", "properties": properties, "description": str(i)} for i in range(200)}
    for name in ("hermes", "glm-tight", "qwen-coder-in-text"):
        writer = writer_for(name)
        assert writer.guide(AnswerRules(tools)).accepts(
            writer.answer(calls=[("tool_7", {"argument_1": 5})]).tokens()
        )


def test_markup_may_begin_with_text_and_hold_a_token() -> None:
    writer = ModelWriter(
        writer_for("qwen-coder").family, Tags("<think>", "</think>"), vocabulary("</parameter>"), "mixed"
    )
    rules = AnswerRules(GET)
    for value in ("Rome", "", "\n", "a\nb\n", "</parameter>"):
        tokens = writer.answer(calls=[("get", {"city": value})]).tokens()
        assert writer.guide(rules).accepts(tokens)
        assert read(writer.parser(rules), tokens).whole_calls == [("get", {"city": value})]
