"""The answer's text is exactly what its tokens spell."""

from collections.abc import Callable

import pytest
from hostile import LETTERS
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import byte_level_tokenizer, gemma_tokenizer, mistral_tokenizer, starter_tokenizer

from commonweight.prompting import OutputParser, Prompt, Tokenizer

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


def read(
    tokenizer: Tokenizer, token_ids: list[int], stops: list[str] | None = None, *, continues: bool = False
) -> str:
    parser = OutputParser(tokenizer, Prompt([], continues_text=continues), stops or [])
    return "".join(parser.feed(token_id) for token_id in token_ids) + parser.flush()


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
    parser = OutputParser(tokenizer, Prompt([], continues_text=False), [])
    assert [parser.feed(token_id) for token_id in tokenizer.encode("a🙂é")] == ["a", "", "", "", "🙂", "", "é"]


def test_broken_bytes_do_not_stop_an_answer() -> None:
    tokenizer = byte_level_tokenizer()
    smile, letter = tokenizer.encode("🙂"), tokenizer.encode("a")
    assert read(tokenizer, [*smile[:3], *letter, smile[1], *letter]) == "\ufffda\ufffda"


@given(text=st.text("ab 🙂é", max_size=10), stop=st.text("ab 🙂é", min_size=1, max_size=3))
def test_stop_sequences_see_text_not_tokens(text: str, stop: str) -> None:
    for tokenizer in (starter_tokenizer(), mistral_tokenizer()):
        parser = OutputParser(tokenizer, Prompt([], continues_text=False), [stop])
        shown = "".join(parser.feed(token_id) for token_id in spelled(tokenizer, text)) + parser.flush()
        assert shown == text.partition(stop)[0]
        assert parser.stop_sequence == (stop if stop in text else None)


def test_the_space_that_sentencepiece_puts_in_front_is_no_text() -> None:
    tokenizer = mistral_tokenizer()
    token_ids = tokenizer.encode("hello")
    assert tokenizer.decode(token_ids[0]).startswith(b" ")
    assert read(tokenizer, token_ids) == "hello"
    assert read(tokenizer, tokenizer.encode("  hello")) == "  hello"
    assert read(tokenizer, token_ids, continues=True) == " hello"  # behind a prefill, it is one


def test_spaces_of_other_tokenizers_are_text() -> None:
    for tokenizer in (starter_tokenizer(), gemma_tokenizer()):
        assert read(tokenizer, tokenizer.encode(" hello")) == " hello"
