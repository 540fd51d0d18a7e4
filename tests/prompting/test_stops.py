"""What is shown depends on the text and the stop sequences, never on how the text arrives."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonweight.prompting.parse.stops import StopScanner

# Few letters, so that stop sequences overlap, contain and repeat each other.
letters = st.text("ab\n", max_size=24)
stop_lists = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)


@st.composite
def chunked(draw: st.DrawFn, text: st.SearchStrategy[str] = letters) -> list[str]:
    """A text in pieces, empty ones among them."""
    whole = draw(text)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def reference(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text up to the stop sequence that is complete first (of those, the longest), and that sequence."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def scanned(chunks: list[str], stops: list[str]) -> tuple[str, str | None]:
    scanner = StopScanner(stops)
    shown = "".join(scanner.feed(chunk) for chunk in chunks) + scanner.flush()
    return shown, scanner.matched


@given(chunks=chunked(), stops=stop_lists)
def test_chunks_do_not_matter(chunks: list[str], stops: list[str]) -> None:
    text = "".join(chunks)
    expected = reference(text, stops)
    assert scanned(chunks, stops) == scanned([text], stops) == scanned(list(text), stops) == expected


@given(chunks=chunked(st.text(max_size=12)), data=st.data())
def test_any_text_may_be_a_stop_sequence(chunks: list[str], data: st.DataObject) -> None:
    text = "".join(chunks)
    bounds = data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))))
    stop = text[min(bounds) : max(bounds)] or "missing"
    assert scanned(chunks, [stop]) == reference(text, [stop])


@given(chunks=chunked(), stops=stop_lists)
def test_nothing_is_shown_that_could_still_be_a_stop_sequence_and_nothing_else_is_held(
    chunks: list[str], stops: list[str]
) -> None:
    scanner = StopScanner(stops)
    read = shown = ""
    for chunk in chunks:
        read += chunk
        shown += scanner.feed(chunk)
        if scanner.matched is not None:
            break
        held = read.removeprefix(shown)
        assert shown + held == read
        could_be = [n for n in range(1, len(read) + 1) if any(s.startswith(read[-n:]) for s in stops)]
        assert len(held) == max(could_be, default=0)


@given(chunks=chunked(), more=chunked(), stops=stop_lists)
def test_nothing_is_shown_after_a_stop_sequence(chunks: list[str], more: list[str], stops: list[str]) -> None:
    scanner = StopScanner(stops)
    for chunk in chunks:
        scanner.feed(chunk)
    matched = scanner.matched
    if matched is not None:
        assert [scanner.feed(chunk) for chunk in more] == [""] * len(more)
        assert scanner.flush() == ""
        assert scanner.matched == matched


@given(chunks=chunked(), stops=stop_lists)
def test_flushing_twice_shows_nothing_twice(chunks: list[str], stops: list[str]) -> None:
    scanner = StopScanner(stops)
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.flush()
    assert scanner.flush() == ""


@pytest.mark.parametrize(
    ("text", "stops", "shown", "matched"),
    [
        ("one\n\nHuman: two", ["\n\nHuman:"], "one", "\n\nHuman:"),
        ("aab", ["aab", "ab"], "", "aab"),  # complete at the same place: the longer one
        ("abc", ["abc", "b"], "a", "b"),  # complete first
        ("é🙂é", ["🙂"], "é", "🙂"),
        ("stop", ["stop"], "", "stop"),
        ("sto", ["stop"], "sto", None),
        ("", ["stop"], "", None),
    ],
)
def test_examples(text: str, stops: list[str], shown: str, matched: str | None) -> None:
    assert scanned(list(text), stops) == (shown, matched)


def test_the_longest_stop_sequences_that_a_request_may_have_fit_in_memory() -> None:
    stops = [f"{i}" + "x" * 9_990 for i in range(1000)]
    tracemalloc.start()
    try:
        scanner = StopScanner(stops)
        assert scanner.feed("y7") + scanner.feed("y") == "y7y"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
