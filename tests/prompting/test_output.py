"""The answer's text is exactly what its tokens spell."""

from collections.abc import Callable, Iterable

import model_writers
import pytest
from hostile import LETTERS
from hypothesis import given, settings
from hypothesis import strategies as st
from model_writers import WRITERS, ModelWriter, writer_for
from vocabularies import byte_level_tokenizer, gemma_tokenizer, mistral_tokenizer, starter_tokenizer

from commonweight.prompting import OutputParser, Tokenizer
from commonweight.prompting.constrain.grammar import AnswerRules
from commonweight.prompting.formats import GENERIC
from commonweight.prompting.parse.output import ParserConfig, Piece, Text

SAMPLES = [
    "Hello, world!",
    "👩‍👩‍👧‍👦 and 🏳️‍🌈",
    "e\u0301 n\u0303 Z\u0351\u036b\u0343",
    "今日は、世界。안녕하세요 สวัสดี नमस्ते",
    "\u200f\u202e\u05e9\u05dc\u05d5\u05dd\u202c \u0627\u0644\u0633\u0644\u0627\u0645",
    "\r\n\t  \x00 \x7f \u00a0\u3000\ufeff",
    "\ufdd0 \ufffe \uffff \U0001f9ff \U00020000",
]
TOKENIZERS = [starter_tokenizer, byte_level_tokenizer, gemma_tokenizer, mistral_tokenizer]
with_each_tokenizer = pytest.mark.parametrize("tokenizer_of", TOKENIZERS)

texts = st.text(LETTERS, max_size=12) | st.lists(st.sampled_from(SAMPLES), max_size=2).map("".join)


def spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens that a model could write the text with."""
    return tokenizer.encode(text.replace("▁", "_"))  # SentencePiece cannot write this one


def text_of(pieces: Iterable[Piece]) -> str:
    """The text of an answer that is nothing else."""
    texts = []
    for piece in pieces:
        assert isinstance(piece, Text)
        texts.append(piece.text)
    return "".join(texts)


def written(parser: OutputParser, token_ids: Iterable[int]) -> str:
    """All that a parser makes of tokens."""
    return "".join(text_of(parser.feed(token_id)) for token_id in token_ids) + text_of(parser.flush())


def read(tokenizer: Tokenizer, token_ids: Iterable[int], *, is_text: bool = False) -> str:
    """What tokens say where there are neither tools nor reasoning."""
    return written(OutputParser(tokenizer, ParserConfig(GENERIC, continues_text=is_text)), token_ids)


@with_each_tokenizer
@given(text=texts)
def test_the_text_is_what_the_tokens_spell(tokenizer_of: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = tokenizer_of()
    assert read(tokenizer, spelled(tokenizer, text)) == text.replace("▁", "_")


@with_each_tokenizer
@given(text=texts)
@settings(max_examples=50)
def test_half_a_character_does_not_appear(tokenizer_of: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = tokenizer_of()
    token_ids = spelled(tokenizer, text)
    for count in range(len(token_ids)):
        spelled_so_far = b"".join(map(tokenizer.decode, token_ids[:count]))
        if tokenizer.marks_word_starts:
            spelled_so_far = spelled_so_far.removeprefix(b" ")
        assert read(tokenizer, token_ids[:count]) == spelled_so_far.decode(errors="ignore")


@with_each_tokenizer
@given(text=texts, data=st.data())
def test_control_tokens_are_silent(tokenizer_of: Callable[[], Tokenizer], text: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of()
    token_ids = spelled(tokenizer, text)
    assert tokenizer.eos_id is not None
    for place in data.draw(st.lists(st.integers(0, len(token_ids)), min_size=1, max_size=4)):
        token_ids.insert(place, tokenizer.eos_id)
    assert read(tokenizer, token_ids) == text.replace("▁", "_")


def test_the_starters_control_tokens_are_all_silent() -> None:
    tokenizer = starter_tokenizer()
    assert read(tokenizer, list(tokenizer.special_tokens.values())) == ""


def test_user_defined_tokens_are_text() -> None:
    tokenizer = byte_level_tokenizer()
    token_ids = [
        tokenizer.special_tokens["<think>"],
        *tokenizer.encode("so"),
        tokenizer.special_tokens["</think>"],
    ]
    assert read(tokenizer, token_ids) == "<think>so</think>"


def test_each_piece_appears_as_soon_as_it_is_whole() -> None:
    tokenizer = byte_level_tokenizer()
    parser = OutputParser(tokenizer, ParserConfig(GENERIC))
    assert [text_of(parser.feed(token_id)) for token_id in tokenizer.encode("a🙂é")] == [
        "a",
        "",
        "",
        "",
        "🙂",
        "",
        "é",
    ]


def test_broken_bytes_do_not_stop_an_answer() -> None:
    tokenizer = byte_level_tokenizer()
    smile, letter = tokenizer.encode("🙂"), tokenizer.encode("a")
    assert read(tokenizer, [*smile[:3], *letter, smile[1], *letter]) == "\ufffda\ufffda"


@given(text=st.text("ab 🙂é", max_size=10), stop=st.text("ab 🙂é", min_size=1, max_size=3))
def test_stop_sequences_see_text_not_tokens(text: str, stop: str) -> None:
    for tokenizer in (starter_tokenizer(), mistral_tokenizer()):
        parser = OutputParser(tokenizer, ParserConfig(GENERIC), [stop])
        assert written(parser, spelled(tokenizer, text)) == text.partition(stop)[0]
        assert parser.stop_sequence == (stop if stop in text else None)


def test_the_space_that_sentencepiece_puts_in_front_is_no_text() -> None:
    tokenizer = mistral_tokenizer()
    token_ids = tokenizer.encode("hello")
    assert tokenizer.decode(token_ids[0]).startswith(b" ")
    assert read(tokenizer, token_ids) == "hello"
    assert read(tokenizer, tokenizer.encode("  hello")) == "  hello"
    assert read(tokenizer, token_ids, is_text=True) == " hello"  # behind a prefill, it is one


def test_spaces_of_other_tokenizers_are_text() -> None:
    for tokenizer in (starter_tokenizer(), gemma_tokenizer()):
        assert read(tokenizer, tokenizer.encode(" hello")) == " hello"


# Text beside reasoning and calls

PING = {"ping": {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}}
with_each_writer = pytest.mark.parametrize("writer", WRITERS, ids=str)


@with_each_writer
def test_stop_sequences_are_looked_for_in_text_alone(writer: ModelWriter) -> None:
    rules = AnswerRules(PING, thinking="begun")
    has_text = not writer.family.is_whole_answer
    answer = writer.answer("STOP ping", "So." if has_text else "", [("ping", {"text": "STOP"})], is_begun=True)
    for stop in ("STOP", "ping", "text", "analysis", "{"):
        parser = writer.parser(rules, [stop])
        found = model_writers.read(parser, answer.tokens())
        assert found.whole_calls == [("ping", {"text": "STOP"})]
        assert (found.reasoning, found.text) == ("STOP ping", "So." if has_text else "")
        assert not parser.is_complete
    answer = writer.answer("STOP", "So STOP ping", is_begun=True)
    parser = writer.parser(rules, ["STOP"])
    assert model_writers.read(parser, answer.tokens()).text == "So "
    assert parser.stop_sequence == "STOP"


@with_each_writer
@given(text=st.text("ab \n<", max_size=12), stop=st.text("ab \n<", min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_stop_sequences_end_text_before_calls(writer: ModelWriter, text: str, stop: str) -> None:
    if writer.family.is_whole_answer:
        return
    parser = writer.parser(AnswerRules(PING), [stop])
    answer = writer.answer(text=text + "." * bool(text), calls=[("ping", {})])
    found = model_writers.read(parser, answer.tokens())
    if stop in text:
        assert (found.text, found.calls) == (text.partition(stop)[0], [])
        assert parser.stop_sequence == stop
    else:
        assert (found.text, found.whole_calls) == (text + "." * bool(text), [("ping", {})])
        assert parser.stop_sequence is None


@pytest.mark.parametrize("name", ["hermes", "hermes-in-text"])
def test_markup_is_no_text_for_stop_sequences(name: str) -> None:
    writer = writer_for(name)
    tokens = writer.answer(text="a", calls=[("ping", {})]).tokens()
    for stop in ("<", "<tool_call>", "a<tool", "a<tool_call>", "call>"):
        parser = writer.parser(AnswerRules(PING), [stop])
        found = model_writers.read(parser, tokens)
        assert (found.text, found.whole_calls, parser.stop_sequence) == ("a", [("ping", {})], None)
    # What only begins like markup is text after all.
    parser = writer.parser(AnswerRules(PING), ["<tool_cat"])
    assert model_writers.read(parser, model_writers.Answer(writer).text("a<tool_cat b").tokens()).text == "a"
    assert parser.stop_sequence == "<tool_cat"


def test_a_stop_sequence_is_seen_as_soon_as_it_is_there() -> None:
    writer = writer_for("hermes")
    parser = writer.parser(AnswerRules(PING), ["\n\n"])
    tokens = model_writers.Answer(writer).text("a\n\n").tokens()
    pieces = [piece for token in tokens for piece in parser.feed(token)]
    assert parser.is_complete
    assert text_of(pieces) == "a"


def test_stop_sequences_do_not_reach_over_quotes() -> None:
    writer = writer_for("hermes")
    rules = AnswerRules({}, quotable=("b",))
    parser = writer.parser(rules, ["ac", "b", "cite"])
    found = model_writers.read(parser, model_writers.Answer(writer).text('a<cite doc="0">b</cite>c').tokens())
    assert (found.text, found.quotes, parser.stop_sequence) == ("ac", [(0, "b")], None)


def test_a_turn_may_end_with_text() -> None:
    tokenizer = byte_level_tokenizer()
    parser = OutputParser(tokenizer, ParserConfig(GENERIC, turn_ends=("\n\nUser:",)), ["never"])
    assert written(parser, tokenizer.encode("Hi.\n\nUser: what")) == "Hi."
    assert parser.is_complete
    assert parser.stop_sequence is None


def test_space_around_markup_is_no_text() -> None:
    writer = writer_for("hermes")
    rules = AnswerRules(PING, thinking="possible")
    call = str(writer.answer(calls=[("ping", {})]))
    for text, reasoning, expected in (
        ("\n\n<think>\n\n Hm. \n</think>\n\n So. \n\n", "Hm.", "So. \n\n"),
        ("\n<think>\n\n</think>\n", "", ""),
        (" \n So.", "", " \n So."),
        ("<think>Hm.</think>" + call, "Hm.", ""),
        (" \n " + call, "", ""),
        (" So. \n " + call, "", " So."),
    ):
        found = model_writers.read(writer.parser(rules), model_writers.Answer(writer).markup(text).tokens())
        assert (found.reasoning, found.text) == (reasoning, expected)


def test_calls_that_are_none_are_text() -> None:
    for name in ("hermes", "hermes-in-text", "llama3"):
        writer = writer_for(name)
        call = str(writer.answer(calls=[("pong", {})]))
        for text in (call, f"{call} and {call}", f"{call}\n{call} STOP {call}"):
            parser = writer.parser(AnswerRules(PING), ["STOP"])
            found = model_writers.read(parser, model_writers.Answer(writer).markup(text).tokens())
            assert (found.text, found.calls) == (text.partition("STOP")[0], [])


def test_control_tokens_are_silent_where_they_are_no_markup() -> None:
    writer = writer_for("mistral-args")
    for tools, text in (({}, "a[ARGS]b[TOOL_CALLS]ping[ARGS]c"), (PING, "a[ARGS]bp[/THINK]ingc")):
        tokens = model_writers.Answer(writer).markup(text).tokens()
        assert model_writers.read(writer.parser(AnswerRules(tools)), tokens).text == "abpingc"


@with_each_writer
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_tokens_are_too_strange(writer: ModelWriter, data: st.DataObject) -> None:
    """Even without a grammar, what comes out follows the form and can be sent."""
    rules = AnswerRules(
        PING,
        thinking=data.draw(st.sampled_from(["over", "begun", "possible"])),
        quotable=("a",),
        schema=data.draw(st.none() | st.just({})),
        continues_text=data.draw(st.booleans()),
    )
    answer = model_writers.Answer(writer)
    whole = str(writer.answer("Hm.", "So.", [("ping", {"text": "x"}), ("ping", {})]))
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
        answer.markup(whole[start:end]).text(
            data.draw(st.sampled_from(["", "</cite>", '<cite doc="0">', "{}", '"']))
        )
    tokens = answer.tokens(data.draw(st.randoms(use_true_random=False)))
    for place in data.draw(st.lists(st.integers(0, len(tokens)), max_size=3)):
        tokens.insert(place, data.draw(st.integers(0, writer.tokenizer.size - 1)))
    parser = writer.parser(rules, data.draw(st.lists(st.sampled_from(["So", "{", "x"]), max_size=1)))
    found = model_writers.read(parser, tokens, is_cut=data.draw(st.booleans()))
    repr(found).encode()
    found.text.encode()
    for name, arguments, _ in found.calls:
        assert name == "ping"
        arguments.encode()
