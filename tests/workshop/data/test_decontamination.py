"""Decontamination: what shares thirteen words with an evaluation set is found, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.workshop.data.decontamination import NGRAM_WORDS, Decontaminator
from commonweight.workshop.data.rows import Content, Message, Row

COMMON = [f"w{number}" for number in range(40)]
"""Words of training rows; evaluation sets have others, but for what is planted."""
OTHER = [f"e{number}" for number in range(40)]


def text(*words: str) -> Content:
    return Content("text", text=" ".join(words))


def chat(*contents: str, roles: tuple[str, ...] = ("user", "assistant")) -> Content:
    return Content("messages", messages=tuple(map(Message, roles * len(contents), contents)))


def against(*contents: Content, name: str = "exam") -> Decontaminator:
    found = Decontaminator()
    found.add_evaluation_set(
        Row(content.compute_row_id(), content, source=name, licence="MIT") for content in contents
    )
    return found


@given(
    st.lists(st.sampled_from(OTHER), max_size=30),
    st.lists(st.sampled_from(OTHER), min_size=NGRAM_WORDS, max_size=NGRAM_WORDS),
    st.lists(st.sampled_from(OTHER), max_size=30),
    st.lists(st.sampled_from(COMMON), max_size=30),
    st.lists(st.sampled_from(COMMON), max_size=30),
    st.sampled_from([" ", "\n", ", ", "... ", "\u3000"]),
    st.booleans(),
)
def test_planted_words_are_always_found(
    before: list[str],
    planted: list[str],
    after: list[str],
    left: list[str],
    right: list[str],
    space: str,
    upper: bool,
) -> None:
    words = [*left, *planted, *right]
    row = space.join(word.upper() if upper else word for word in words)
    exam = against(text(*before, *planted, *after))
    assert exam.find_sets(Content("text", text=row)) == ["exam"]
    assert exam.find_sets(chat("w1 w2", row)) == ["exam"]


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=40),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=40),
)
def test_rows_are_found_exactly_where_they_share_words(training: list[str], evaluation: list[str]) -> None:
    def sequences(words: list[str]) -> set[tuple[str, ...]]:
        if len(words) < NGRAM_WORDS:
            return {tuple(words)} if words else set()
        return {tuple(words[start : start + NGRAM_WORDS]) for start in range(len(words) - NGRAM_WORDS + 1)}

    shares = bool(sequences(training) & sequences(evaluation))
    assert bool(against(text(*evaluation)).find_sets(text(*training))) == shares


def test_accents_are_the_same_however_they_are_encoded() -> None:
    words = [f"caf\u00e9{number}" for number in range(13)]
    assert against(text(*words)).find_sets(text(*(word.replace("\u00e9", "e\u0301") for word in words))) == [
        "exam"
    ]


def test_twelve_words_are_not_enough() -> None:
    exam = against(text(*OTHER[:20]))
    assert exam.find_sets(text(*COMMON[:9], *OTHER[:12], *COMMON[9:])) == []
    assert exam.find_sets(text(*COMMON[:9], *OTHER[:13], *COMMON[9:])) == ["exam"]


def test_short_questions_are_compared_whole() -> None:
    exam = against(chat("Who wrote Emma?", "Yes."))
    assert exam.find_sets(chat("who wrote EMMA", "Austen did.")) == ["exam"]
    assert exam.find_sets(text("Who wrote Emma")) == ["exam"]
    assert exam.find_sets(chat("Who wrote Emma, and when?", "Austen did.")) == []
    assert exam.find_sets(chat("Is it so?", "Yes.")) == []


def test_system_messages_count_only_in_training() -> None:
    exam = against(
        chat(" ".join(COMMON), " ".join(OTHER), "A.", roles=("system", "user", "assistant")),
    )
    assert exam.find_sets(chat(" ".join(COMMON), "Hi", "A.", roles=("system", "user", "assistant"))) == []
    assert exam.find_sets(chat(" ".join(OTHER), "Hi", "A.", roles=("system", "user", "assistant"))) == ["exam"]


def test_rejected_answers_count_too() -> None:
    answer = (Message("assistant", " ".join(OTHER)),)
    row = Content(
        "preference", messages=(Message("user", "Hi"),), chosen=(Message("assistant", "A"),), rejected=answer
    )
    assert against(text(*OTHER)).find_sets(row) == ["exam"]


def test_every_set_that_shares_is_named() -> None:
    exam = against(text(*OTHER), name="b")
    exam.add_evaluation_set([Row("0" * 16, text(*OTHER[5:]), source="a", licence="MIT")])
    exam.add_evaluation_set([Row("0" * 16, text(*COMMON), source="c", licence="MIT")])
    exam.add_evaluation_set([Row("0" * 16, text("short", "one"), source="b", licence="MIT")])
    assert exam.names == ["a", "b", "c"]
    assert exam.find_sets(text(*OTHER)) == ["a", "b"]
    assert exam.find_sets(text("short", "one")) == ["b"]


@pytest.mark.parametrize("empty", ["", "?!", "\n"])
def test_texts_without_words_share_nothing(empty: str) -> None:
    assert against(text(empty)).find_sets(text(empty)) == []


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    sentence = "\u6211\u5011\u6628\u5929\u5728\u5716\u66f8\u9928\u88e1\u8b80\u4e86\u4e00\u672c\u66f8"
    exam = against(text(sentence))
    assert exam.find_sets(text("\u4eca\u65e5" + sentence[:13])) == ["exam"]
    assert exam.find_sets(text("\u4eca\u65e5" + sentence[:12])) == []
