"""The tokenizer's two halves: ordinary text, and special tokens by name."""

from collections.abc import Callable

import pytest
from hostile import LETTERS
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import (
    byte_level_tokenizer,
    gemma_tokenizer,
    mistral_tokenizer,
    phi_tokenizer,
    starter_tokenizer,
)

from commonweight.llamacpp import api as llama
from commonweight.llamacpp.structs import LLAMA_TOKEN_ATTR_CONTROL
from commonweight.prompting import Tokenizer

TOKENIZERS = [starter_tokenizer, byte_level_tokenizer, gemma_tokenizer, mistral_tokenizer, phi_tokenizer]
with_each_tokenizer = pytest.mark.parametrize("tokenizer_of", TOKENIZERS)


def decoded(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    return b"".join(map(tokenizer.decode, token_ids)).decode()


def test_the_starters_special_tokens() -> None:
    specials = starter_tokenizer().special_tokens
    assert {"<|im_start|>": 1, "<|im_end|>": 2, "<|endoftext|>": 0, "<repo_name>": 3}.items() <= specials.items()
    assert len(specials) == 17
    assert starter_tokenizer().size == 49152
    assert (starter_tokenizer().bos_id, starter_tokenizer().eos_id) == (1, 2)
    assert {0, 2} <= starter_tokenizer().end_ids
    assert 1 not in starter_tokenizer().end_ids


def test_user_defined_tokens_are_special_if_they_read_like_markup() -> None:
    assert {"<think>", "</think>", "<tool_call>"} <= byte_level_tokenizer().special_tokens.keys()
    assert {"<br>", "    "}.isdisjoint(byte_level_tokenizer().special_tokens)
    assert {"<start_of_turn>", "[multimodal]"} <= gemma_tokenizer().special_tokens.keys()
    assert {"<table>", "  "}.isdisjoint(gemma_tokenizer().special_tokens)


def test_what_vocabularies_say_of_themselves() -> None:
    assert [make().adds_bos for make in TOKENIZERS] == [False, False, True, True, False]
    assert [make().marks_word_starts for make in TOKENIZERS] == [False, False, False, True, True]
    phi = phi_tokenizer()
    assert [phi.strips(phi.special_tokens[name]) for name in ("<|user|>", "<s>")] == [
        (False, True),
        (False, False),
    ]


@with_each_tokenizer
@given(text=st.text(LETTERS, max_size=20))
def test_what_is_encoded_can_be_decoded(tokenizer_of: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = tokenizer_of()
    text = text.replace("▁", "_")  # SentencePiece writes spaces so, and cannot tell them apart
    space = " " if tokenizer.marks_word_starts and text else ""
    assert decoded(tokenizer, tokenizer.encode(text)) == space + text
    assert decoded(tokenizer, tokenizer.encode(text, continues=True)) == text


@with_each_tokenizer
def test_text_is_not_looked_up_as_control_tokens(tokenizer_of: Callable[[], Tokenizer]) -> None:
    tokenizer = tokenizer_of()
    control = [
        name
        for name, token_id in tokenizer.special_tokens.items()
        if llama.llama_vocab_get_attr(tokenizer._vocab, token_id) & LLAMA_TOKEN_ATTR_CONTROL
        and name not in ("<s>", "</s>")  # which vocabularies can spell: see the tests of rendering
    ]
    assert control
    for name in control:
        token_ids = tokenizer.encode(f"a{name}b")
        assert tokenizer.special_tokens[name] not in token_ids
        assert decoded(tokenizer, token_ids).strip() == f"a{name}b"


@with_each_tokenizer
def test_control_tokens_are_no_text(tokenizer_of: Callable[[], Tokenizer]) -> None:
    tokenizer = tokenizer_of()
    assert tokenizer.bos_id is not None
    assert tokenizer.eos_id is not None
    assert tokenizer.decode(tokenizer.bos_id) == tokenizer.decode(tokenizer.eos_id) == b""
    assert tokenizer.special_tokens[tokenizer.get_token_text(tokenizer.eos_id)] == tokenizer.eos_id


def test_long_texts_and_long_tokens_fit() -> None:
    tokenizer = gemma_tokenizer()
    assert len(tokenizer.encode("~" * 100_000)) == 100_000
    assert len(mistral_tokenizer().encode("\0" * 1000)) == 1001
    longest = max((starter_tokenizer().decode(i) for i in range(starter_tokenizer().size)), key=len)
    assert len(longest) > 64
    assert starter_tokenizer().encode(longest.decode())
