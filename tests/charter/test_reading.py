"""A charter's file: what it means, and every way to get it wrong, with the line."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from writing import FIRST, FRONT, TEXT, line_of, small, with_changes

from commonweight.charter import CharterError, Problem, parse


def problems(content: bytes) -> list[Problem]:
    with pytest.raises(CharterError) as caught:
        parse(content)
    return caught.value.problems


def test_what_it_says() -> None:
    charter = small()
    assert (charter.id, charter.version, charter.title, charter.preamble) == (
        "acme",
        "1",
        "Acme's charter",
        "Be kind.",
    )
    [principle] = charter.principles
    assert (principle.id, principle.title, principle.tier) == ("spoilers", "No spoilers", "ethics")
    assert principle.applies_to == {"input": "log", "output": "refuse"}
    assert principle.restricts == (
        "Telling how a story ends to somebody who has not read it and did not ask, "
        "or who says that they want to find out for themselves."
    )
    assert principle.message == "That would spoil it."
    [violating] = principle.violating
    assert not isinstance(violating.text, str)
    assert (violating.text.source, violating.text.sha256) == ("tales", "0123456789abcdef")
    assert [(one.text, one.why) for one in principle.complying] == [
        ("How does Hamlet end?", None),
        ("I have read it twice. Was he really mad?", "they know the end"),
    ]


def test_its_hash_is_that_of_the_file() -> None:
    assert small().sha256 == hashlib.sha256(TEXT.encode()).hexdigest()


def test_lines_may_end_as_on_windows() -> None:
    assert parse(TEXT.replace("\n", "\r\n").encode()).principles == small().principles


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("tier: ethics", "tier: ethical", "tier:", "input should be 'hard', 'safety', 'ethics' or 'guidelines'"),
        ("severity: low", "gravity: low", "severity:", "gravity: is not known here"),
        ("tier: ethics\n", "", "```yaml", "tier: is missing"),
        ("id: spoilers", "id: No Spoilers", "id: spoilers", "id: string should match pattern"),
        ("id: spoilers", "id: 7", "id: spoilers", "id: input should be a valid string"),
        ("input: log", "input: shout", "applies_to:", "applies_to.input: input should be 'refuse' or 'log'"),
        ("input: log", "letter: log", "applies_to:", "applies_to.letter: input should be 'input', 'output'"),
        ("{input: log, output: refuse}", "{}", "applies_to:", "dictionary should have at least 1 item"),
        ("tier: ethics", "tier: ethics\nid: other", "severity: low", "id: given twice"),
        ("tier: ethics", "tier: [ethics", "severity:", "this is no YAML"),
        ("tier: ethics", "tier: &a ethics\nmode: *a", "severity:", "aliases"),
        ("tier: ethics", "tier: !!python/name:os.system", "tier:", "this is no YAML"),
        ("tier: ethics", "tier: 2026-01-31", "tier:", "input should be 'hard'"),
        ("### Permits", "### Allows", "### Permits", "'Allows': a principle has Restricts"),
        ("### Permits", "### Restricts", "### Permits", "Restricts is there twice"),
        ("### Message\n\nThat would spoil it.", "### Message", "## No", "says nothing under `### Message`"),
        ("- complies: How", "- allows: How", "How does Hamlet", "an example is an item"),
        ("### Examples\n", "### Examples\n\nSome.\n", "- violates", "an example is an item"),
        ("tales#0123456789abcdef", "how to do it", "- violates", "an example that violates is `source#hash`"),
        ("tales#0123456789abcdef", "tales#0123", "- violates", "an example that violates is `source#hash`"),
        ("tales#0123456789abcdef", '" "', "- violates", "an example that violates is `source#hash`"),
        ("# Acme's charter", "Words.\n\n# Acme's charter", "# Acme's", "a charter begins with its title"),
        ("## No spoilers", "# No spoilers", "## No", "a charter has one title"),
        ("Be kind.\n", "Be kind.\n\n### Restricts\n", "## No", "stands under no principle"),
        ("## No spoilers\n", "## No spoilers\n\nReally.\n", "```yaml", "prose belongs under one of"),
        ("licence: CC0-1.0\n", "", "schema:", "licence: is missing"),
        ("input: log, ", "input: log, document: log, ", "## No", "the place document needs `schema: charter/2`"),
        ("schema: charter/1", "schema: charter/3", "schema:", "schema: input should be 'charter/1'"),
        ('version: "1"', "version: 2026.11", "version:", "version: input should be a valid string"),
        ('version: "1"', 'version: "1"\nretired: [spoilers]', "## No", "spoilers: this id is retired"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, at: str, words: str) -> None:
    found = problems(with_changes((old, new)))
    line = line_of(at)
    assert any(words in problem.text and abs(problem.line - line) <= 2 for problem in found), found


def test_everything_is_said_at_once() -> None:
    found = problems(
        with_changes(("tier: ethics", "tier: x"), ("- complies: How", "- x: How"), ("schema: ", "s: "))
    )
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)
    assert len(found) >= 3


def test_ids_are_used_once() -> None:
    [problem] = problems((TEXT + FIRST).encode())
    assert "another principle has this id" in problem.text
    assert problem.line > line_of("- violates")


def test_a_heading_in_a_fenced_block_is_none() -> None:
    assert small(("tier: ethics", "tier: ethics\n## No principle")).principles == small().principles


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"---",
        b"---\n---",
        b"---\n- a\n---\n# T",
        b"# T\n",
        FRONT.encode(),
        b"\xff\xfe",
        b"a\n\xff",
        b"---\n" + b"[" * 10_000 + b"\n---\n",
        b"x" * 1_000_001,
    ],
)
def test_what_is_no_charter_at_all(content: bytes) -> None:
    assert problems(content)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_no_file_does_more_than_be_wrong(data: st.DataObject) -> None:
    lines = TEXT.split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "cut", "write"])):
            case "drop":
                del lines[at]
            case "repeat":
                lines.insert(at, lines[data.draw(st.integers(0, len(lines) - 1))])
            case "cut":
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case _:
                lines[at] += data.draw(st.text(max_size=8))
    try:
        charter = parse("\n".join(lines).encode("utf-8", "surrogatepass"))
    except CharterError as error:
        assert error.problems
        assert all(1 <= problem.line <= len(lines) + 1 for problem in error.problems)
    else:
        assert charter.principles


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
@example(b"---\n\0\n---\n# T")
def test_no_bytes_do(content: bytes) -> None:
    assert problems(b"---\n" + content)


def test_an_example_that_violates_may_be_written_down_outside_of_the_hard_and_safety_tiers() -> None:
    written = ("- violates: tales#0123456789abcdef", '- violates: "He did it, did he not?"')
    charter = small(written)
    assert charter.principles[0].violating_texts == ["He did it, did he not?"]
    assert small().principles[0].violating_texts == []
    for tier in ("hard", "safety"):
        [problem] = problems(with_changes(written, ("tier: ethics", f"tier: {tier}")))
        assert problem.text.startswith(f"in the {tier} tier what violates is not written down")
        assert problem.line == line_of("- violates")
