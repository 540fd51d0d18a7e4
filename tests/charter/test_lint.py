"""What a sound charter still gets wrong."""

import pytest
from writing import FIRST, line_of, small, with_changes

from commonweight.charter import DEFAULT, lint, parse
from commonweight.charter.principle import Category, Hazard


def test_nothing_is_wrong_with_the_small_one() -> None:
    assert lint(with_changes()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tier: ethics", "tier: hard\noverridable_by: operator", "a hard principle is nobody's to set aside"),
        ("tier: ethics", "tier: hard\nmode: shadow", "a hard principle in mode shadow holds nothing up"),
        ("severity: low\napplies_to: {input: log, output: refuse}", "severity: critical\napplies_to: {input: log}",
         "it is critical, and yet refuses nothing"),
        ("Talking about a story with those who know it, or who asked how it ends.", "Talk.",
         "permits says too little"),
        ("- complies: How does Hamlet end?\n", "- violates: a#fedcba9876543210\n- violates: a#0000000000000000\n",
         "3 examples violate it and 1 comply"),
        ("output: refuse}", "output: log}\ntests:\n  - {data: tales, least_refused: 0.5}",
         "no configuration can hold that"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_the_heading(old: str, new: str, words: str) -> None:
    [problem] = lint(with_changes((old, new)))
    assert words in problem.text
    assert problem.text.startswith("spoilers: ")
    assert problem.line == line_of("## No spoilers")


def test_examples_are_needed() -> None:
    start = FIRST.index("### Examples")
    [problem] = lint(with_changes((FIRST[start:], "")))
    assert "there is no example that complies" in problem.text


def test_principles_differ() -> None:
    other = FIRST.replace("id: spoilers", "id: endings")
    assert {problem.text for problem in lint(with_changes() + other.encode())} == {
        f"endings: {what} is word for word one of spoilers's" for what in ("restricts", "permits", "an example")
    }


def test_the_default_is_sound() -> None:
    content = DEFAULT.read_bytes()
    assert lint(content) == []
    charter = parse(content)
    assert charter.licence == "CC0-1.0"
    covered = {hazard for principle in charter.principles for hazard in principle.hazards}
    assert covered == set(Hazard.__args__)  # type: ignore[attr-defined]
    named = {principle.category for principle in charter.principles if principle.category}
    explained = {name for name in Category.__args__ if f"`{name}`" in charter.preamble}  # type: ignore[attr-defined]
    assert named | explained == set(Category.__args__)  # type: ignore[attr-defined]


def test_the_default_has_no_restricted_text() -> None:
    for principle in parse(DEFAULT.read_bytes()).principles:
        assert not any(isinstance(one.text, str) for one in principle.violating)


def test_small_is_what_it_says() -> None:
    assert small().principles[0].id == "spoilers"
