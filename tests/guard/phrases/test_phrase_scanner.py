"""Phrases in streams: found over all boundaries, with their beginnings held back and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.charter import Principle
from commonweight.charter.normalisation import MAX_MARKS
from commonweight.charter.phrases import begins_unit, fold
from commonweight.guard.phrases.index import PhraseIndex, list_folded_views, unescape
from commonweight.guard.phrases.json_strings import read_strings
from commonweight.guard.phrases.location import PIECE_CHARACTERS, locate_phrase
from commonweight.guard.phrases.scanner import MAX_ESCAPE_CHARACTERS, PhraseScanner
from sample_charter import charter

LETTERS = [
    *"abcsAB. \n\\",
    *("\u0301", "\u0323", "é", "ﬁ", "f", "i", "\u200b", "ſ", "ß", "Å", "\u00ad", "…", "😀", "İ", "\u0345", "α"),
    *("ᄀ", "ᅡ", "가", "\\u0061", "\\u0301", "\\n", "\\ud83d\\ude00", "\\ud83d"),
]
"""What makes normalisation hard: marks, compositions, ligatures, what is not seen, and escapes."""
TEXTS = st.lists(st.sampled_from(LETTERS), max_size=14).map("".join)
PHRASES = st.lists(
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4)
    .map("".join)
    .filter(lambda text: bool(fold(text).strip()) and begins_unit(fold(text).strip()[0])),
    min_size=1,
    max_size=4,
)


def index_of(*phrases: str) -> PhraseIndex:
    [principle] = charter().principles
    return PhraseIndex([principle.model_copy(update={"phrases": phrases})])


def find(index: PhraseIndex, text: str) -> set[str]:
    return index.find_principles(list_folded_views(text))


def scan(index: PhraseIndex, *parts: str) -> tuple[str, tuple[int, int] | None]:
    """What leaves when each part is a delta, and the span of the first phrase."""
    scanner = PhraseScanner(index)
    text = "".join(parts)
    done = fed = 0
    for part in parts:
        found = scanner.feed(part)
        if found:
            return text[:done], (found[0].start, found[0].end)
        fed += len(part)
        assert fed - scanner.held_back >= done
        done = fed - scanner.held_back
    found = scanner.finish()
    return (text[:done], (found[0].start, found[0].end)) if found else (text, None)


def split(draw: st.DataObject, text: str) -> list[str]:
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(text)))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(max_examples=1500, deadline=None)
@given(st.data(), PHRASES, TEXTS)
def test_whatever_the_split_no_phrase_leaves_and_everything_else_does(
    data: st.DataObject, phrases: list[str], text: str
) -> None:
    index = index_of(*phrases)
    left, span = scan(index, *split(data, text))
    folded = [fold(phrase).strip() for phrase in phrases]
    has_phrase = any(phrase in view for phrase in folded for view in (fold(text), fold(unescape(text))))
    assert (span is not None) == has_phrase == bool(find(index, text))
    if span is None:
        assert left == text
        return
    assert not find(index, left)
    assert len(left) <= span[0]  # not even the beginning of the phrase
    assert find(index, text[slice(*span)])
    start, end = locate_phrase(index, text, "no-umbrellas")
    assert find(index, text[start:end])
    assert not find(index, text[start + 1 : end])


@settings(max_examples=500, deadline=None)
@given(PHRASES, TEXTS, st.sampled_from([*LETTERS, "xy ", "x\n", "\\n"]), st.integers(0, 40))
def test_a_phrase_is_located_behind_any_text(phrases: list[str], text: str, filling: str, more: int) -> None:
    index = index_of(*phrases)
    long = filling * (2 * PIECE_CHARACTERS // len(filling) + more) + text + filling * more
    if not find(index, long):
        return
    start, end = locate_phrase(index, long, "no-umbrellas")
    assert find(index, long[start:end])
    assert not find(index, long[start + 1 : end])


def test_large_texts_are_folded_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0

    def count(text: str) -> str:
        nonlocal counted
        counted += len(text)
        return fold(text)

    monkeypatch.setattr("commonweight.guard.phrases.index.fold", count)
    monkeypatch.setattr("commonweight.guard.phrases.location.fold", count)
    index = index_of("blue bird")
    long = "Some plain words\\n and ünder them more. " * 30_000
    text = f"{long}a blue bird sings"
    assert find(index, text) == {"no-umbrellas"}
    assert locate_phrase(index, text, "no-umbrellas") == (len(long) + 2, len(long) + 11)
    assert counted <= 4 * len(text)


def test_marks_and_white_space_without_an_end_take_no_longer_than_they_are_many() -> None:
    # With work that grows with the square of their number each of these takes minutes.
    index, many = index_of("blue bird"), 200_000
    assert find(index, "a" + "\u0301\u0316" * many + " blue bird") == {"no-umbrellas"}
    scanner = PhraseScanner(index)
    scanner.feed("a blue")
    for _ in range(many):
        assert scanner.feed("\n") == []
        assert scanner.held_back > 4
    [found] = scanner.feed("bird.")
    assert (found.start, found.end) == (2, 6 + many + 4)


@settings(max_examples=500, deadline=None)
@given(PHRASES, TEXTS)
def test_no_more_is_held_back_than_may_begin_a_phrase(phrases: list[str], text: str) -> None:
    scanner = PhraseScanner(index_of(*phrases))
    longest = max(len(fold(phrase).strip()) for phrase in phrases)
    for i, char in enumerate(text, 1):
        scanner.feed(char)
        held = text[i - scanner.held_back : i]
        # Up to one character that is open, and an escape that is.
        assert len(fold(unescape(held))) <= longest + MAX_ESCAPE_CHARACTERS


def test_held_back_is_only_what_begins_a_phrase() -> None:
    scanner = PhraseScanner(index_of("blue bird"))
    held = []
    for char in "a blue  bicycle, b":
        scanner.feed(char)
        held.append(scanner.held_back)
    assert held == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "the BLUE\n \nBird sings",
        "the b\u200bl\u00adue bird",
        "the ｂｌｕｅ　ｂｉｒｄ",
        'the {"a": "\\u0062lue\\nbird"}',
        "bluebird and blue birds",
    ],
)
def test_forms_of_a_phrase(text: str) -> None:
    index = index_of("Blue bird")
    for size in (1, 2, 3, len(text)):
        left, span = scan(index, *(text[i : i + size] for i in range(0, len(text), size)))
        assert span is not None
        assert text.startswith(left)
        assert len(left) <= span[0]


@pytest.mark.parametrize("text", ["bluebird", "blu e bird", "blue-bird", "blüe bird", "blue bir"])
def test_other_words_leave(text: str) -> None:
    assert scan(index_of("Blue bird"), *text) == (text, None)


def test_a_mark_makes_another_word() -> None:
    index = index_of("schon")
    for text in ("schön", "scho\u0308n"):
        assert scan(index, *text) == (text, None)
    # Only the next character tells that no mark follows.
    scanner = PhraseScanner(index_of("cafe"))
    assert scanner.feed("cafe") == []
    assert scanner.held_back == 4
    assert scanner.feed("\u0301") == []
    assert scanner.feed("s") == []
    assert scanner.held_back == 0


def test_marks_without_an_end_are_not_held_back_for_ever() -> None:
    scanner = PhraseScanner(index_of("red"))
    scanner.feed("a r" + "\u0316" * 10 * MAX_MARKS + "xyz")
    assert scanner.held_back == 0


@pytest.mark.parametrize(("first", "second"), [("blue", "bird"), ("the blue b", "ird"), ("blue ", " bird")])
def test_blocks_that_follow_each_other(first: str, second: str) -> None:
    scanner = PhraseScanner(index_of("blue bird"))
    assert scanner.feed(first) == []
    assert scanner.begin_block() == []
    assert scanner.held_back > 0
    found = [*scanner.feed(second), *scanner.finish()]
    assert [(one.start, one.end) for one in found][:1] == [(first.index("blue"), len(first + second))]


def test_the_shorter_of_two_is_found_first() -> None:
    [first, *_] = PhraseScanner(index_of("bluebird song", "bird", "ebi")).feed("a bluebird song.")
    assert (first.start, first.end) == (5, 8)


def test_several_principles() -> None:
    [one] = charter().principles
    other: Principle = one.model_copy(update={"id": "other", "phrases": ("red bear",)})
    index = PhraseIndex([one.model_copy(update={"phrases": ("blue bird",)}), other])
    assert find(index, "A red bear.") == {"other"}
    assert find(index, "A red bear and a blue bird.") == {"other", "no-umbrellas"}
    assert not PhraseIndex([one])


@pytest.mark.parametrize(
    ("written", "both", "values"),
    [
        (
            '{"a": "b c", "d": [1, true, "\\u0065"]}',
            ["a", "b c", "d", "1", "true", "e"],
            ["b c", "1", "true", "e"],
        ),
        ('{"a": "b", "a": "c', ["a", "b", "a", "c"], ["b", "c"]),
        ('{"a": {"b": "c\\', ["a", "b", "c"], ["c"]),
        ("{", [], []),
        ("", [], []),
    ],
)
def test_strings_of_json(written: str, both: list[str], values: list[str]) -> None:
    assert read_strings(written) == (both, values)
