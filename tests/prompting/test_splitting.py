"""Long texts are split without other tokens than llama.cpp's own, in bounded time and on a bounded stack."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import LETTERS, conversation, parsed, user
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import (
    byte_level_tokenizer,
    gemma_tokenizer,
    mistral_tokenizer,
    phi_tokenizer,
    spaced_tokenizer,
    starter_tokenizer,
)

from commonweight.llamacpp import api as llama
from commonweight.messages.errors import InvalidRequestError
from commonweight.prompting import Renderer, Tokenizer
from commonweight.prompting.tokens import splitting
from commonweight.prompting.tokens.splitting import DenseTextError, TextSplitter

pytestmark = pytest.mark.slow

TOKENIZERS = [
    starter_tokenizer,
    byte_level_tokenizer,
    gemma_tokenizer,
    mistral_tokenizer,
    phi_tokenizer,
    spaced_tokenizer,
]
PIECES = [
    "<br>",
    "<br",
    "br>",
    "<b",
    ">",
    "    ",
    "  ",
    " ",
    "\n",
    "\n\n",
    "<think>",
    "</think>",
    "<table>",
    "ab",
    "bc",
    "x",
    "é",
    "🙂",
    "[INST]",
    "<|im_start|>",
]


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    """llama.cpp's own tokenisation of ordinary text."""
    data = text.encode()
    room = 2 * len(data) + 8
    buffer = (ctypes.c_int32 * room)()
    count = llama.llama_tokenize(tokenizer._vocab, data, len(data), buffer, room, False, False)
    assert count >= 0
    return list(buffer[:count])


@pytest.mark.parametrize("tokenizer_of", TOKENIZERS)
@settings(max_examples=150)
@given(text=st.lists(st.sampled_from(PIECES) | st.text(LETTERS, max_size=4), max_size=60).map("".join))
def test_what_is_cut_becomes_the_same_tokens(tokenizer_of: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = tokenizer_of()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "PIECE_CHARACTERS", 6)  # so that short texts are cut in many places
        patch.setattr(tokenizer._splitter, "_has_regex", False)
        assert tokenizer.encode(text) == whole(tokenizer, text)


@pytest.mark.parametrize(
    ("unit", "pieces"),
    [("<br>x", 90), ("    ", 90), ("     x", 90), ("<think>", 90), ("a<br><br", 90), ("word ", 1), ("<b", 1)],
)
def test_texts_are_cut_at_user_defined_tokens_and_nowhere_else(unit: str, pieces: int) -> None:
    text = (unit * 400_000)[:400_000]
    cut = byte_level_tokenizer()._splitter.split(text)
    assert "".join(cut) == text
    assert pieces <= len(cut) <= 1 + 400_000 // splitting.PIECE_CHARACTERS
    assert len(byte_level_tokenizer().encode(text)) > 0


@pytest.mark.parametrize("tokenizer_of", [gemma_tokenizer, mistral_tokenizer, phi_tokenizer])
@pytest.mark.parametrize("unit", ["é", "é<br>", "word é", "🙂<table>", "\u200d\r"])
def test_texts_are_cut_at_characters_that_become_bytes(tokenizer_of: Callable[[], Tokenizer], unit: str) -> None:
    text = (unit * 12_000)[:12_000]
    pieces = tokenizer_of()._splitter.split(text)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) < 2 * splitting.PIECE_CHARACTERS
    assert tokenizer_of().encode(text) == whole(tokenizer_of(), text)


def test_a_text_full_of_tokens_that_cannot_be_cut_is_refused() -> None:
    splitter = TextSplitter(["<br>"], strips=True, has_regex=False)
    assert splitter.split("<br>x" * 8000) == ["<br>x" * 8000]
    with pytest.raises(DenseTextError):
        splitter.split("<br>x" * 9000)
    # Which of two tokens of one length is looked for first, is unknown.
    splitter = TextSplitter(["ab", "ba"], strips=False, has_regex=False)
    assert len(splitter.split("aba " * 4000)) == 1
    with pytest.raises(DenseTextError):
        splitter.split("aba " * 9000)


def test_a_refusal_is_the_requests_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "MAX_USER_DEFINED_TOKENS", 3)
    renderer = Renderer(byte_level_tokenizer(), None)
    monkeypatch.setattr(renderer._encoder._tokenizer._splitter, "_strips", True)
    with pytest.raises(InvalidRequestError, match="more than 3 tags"):
        renderer.render(parsed(conversation(user("<br>x" * 2000))))


@pytest.mark.parametrize(
    ("unit", "longest"),
    [("a", 2), ("!", 2), (" ", 2), ("1", 2), ("中", 2), ("a\x1c", 2), ("\n ", 2), ("a! ", 30), ("中文字。", 2)],
)
def test_runs_without_a_break_are_cut_for_regular_expressions(unit: str, longest: int) -> None:
    text = (unit * 100_000)[:100_000]
    pieces = TextSplitter([], strips=False, has_regex=True).split(text)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= longest * splitting.PIECE_CHARACTERS
    assert TextSplitter([], strips=False, has_regex=False).split(text) == [text]


def test_runs_are_cut_where_words_end_if_they_do() -> None:
    pieces = TextSplitter([], strips=False, has_regex=True).split("中文字。" * 10_000)
    assert all(piece.endswith("字") for piece in pieces[:-1])
    assert len(pieces) > 5


@pytest.mark.parametrize(
    "pre", ["tekken", "gpt-4o", "deepseek-llm", "deepseek-v3", "minimax-m2", "seed-coder", "default", "bloom"]
)
def test_no_run_of_characters_ends_the_process(pre: str) -> None:
    # In a process of its own, because it would end this one.
    code = f"""
from threading import Thread
from vocabularies import regex_tokenizer
tokenizer = regex_tokenizer({pre!r})
for unit in ("a", "é", "a1", "aA", "1", "!", "! ", " ", "\\n ", "!/", "中a", "a\\x1c", "!\\xa0"):
    thread = Thread(target=lambda: tokenizer.encode(unit * 200_000))
    thread.start()
    thread.join()
"""
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-500:]
