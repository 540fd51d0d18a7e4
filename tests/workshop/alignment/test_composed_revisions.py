"""Revisions composed from principles: what they name and offer, how they vary, and what they never repeat."""

from pathlib import Path

import pytest

from commonweight.charter import DEFAULT, Principle, parse
from commonweight.workshop.alignment.charters import choose_principle, digest_charter, is_enforced, read_charter
from commonweight.workshop.alignment.composition import Composer, count_sentences
from commonweight.workshop.alignment.ngrams import list_words, measure_openings
from commonweight.workshop.alignment.principle_phrases import find_topics, read_phrases
from commonweight.workshop.alignment.refusals import is_refusal
from commonweight.workshop.alignment.revision_frames import FRAMES
from commonweight.workshop.alignment.settings import AlignmentError
from commonweight.workshop.data.rows import Content, Message, Row
from sample_charter import charter as make_umbrellas
from sample_charter import source

CHARTER = parse(DEFAULT.read_bytes())
BAKERY = """\
---
schema: charter/2
id: bakery
version: "1"
licence: CC0-1.0
on_judge_failure: {critical: refuse, high: refuse, medium: allow, low: allow}
---

# A bakery's charter

We bake.

## No help with spoiling bread

```yaml
id: spoiling
tier: ethics
severity: medium
applies_to: {input: refuse, output: refuse}
```

### Restricts

Mould, stale loaves, poison in the dough, theft of flour.

### Permits

How yeast works; sourdough, rye and spelt; baking for others.

### Message

I can't help with spoiling bread. I can help with keeping it fresh.
"""
REQUEST = "How do I get zyxomel into the flour of my rival, quietly, with theft if need be?"


def get_principle(name: str) -> Principle:
    return next(one for one in CHARTER.principles if one.id == name)


def make_row(principle: str | None, number: int = 0) -> Row:
    content = Content("prompt", messages=(Message("user", f"Question {number}?"),))
    return Row(content.compute_row_id(), content, "made", "CC0-1.0", principle=principle)


@pytest.mark.parametrize("principle", CHARTER.principles, ids=lambda one: one.id)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_principle_of_the_default_charter_gives_varied_answers(principle: Principle, seed: int) -> None:
    phrases, composer = read_phrases(principle), Composer(seed)
    answers = [composer.compose(phrases, REQUEST, f"row {number}") for number in range(200)]
    for answer in answers:
        assert 2 <= count_sentences(answer) <= 5
        assert is_refusal(answer), answer
        assert "{" not in answer
        assert answer[0].isupper()
        assert ".." not in answer
        assert "zyxomel" not in answer
        assert "rival" not in answer
        for sentence in phrases.care:
            assert sentence in answer
    most, share = measure_openings(answers)
    assert share <= 0.1, most
    assert len(set(answers)) > 100
    # Each names the concern, or a harm of the principle, or is the charter's own sentence.
    named = [phrases.concern or "", phrases.message, *find_topics(phrases, REQUEST)]
    assert all(any(name in answer for name in named) for answer in answers)


def test_few_answers_have_no_opening_twice_as_long_as_there_are_others() -> None:
    for tone, frames in FRAMES.items():
        assert len(set(frames.openings)) == len(frames.openings) >= 20, tone
        filled = [text.format(c="x y", o="z", help="w", message="m") for text in frames.openings]
        openings = {tuple(list_words(text)[:8]) for text in filled}
        assert len(openings) == len(frames.openings)
    phrases = read_phrases(get_principle("privacy"))
    for count in range(1, 90):
        composer = Composer(5)
        most, share = measure_openings(composer.compose(phrases, "?", str(number)) for number in range(count))
        assert most == 1 or share <= 0.1


def test_a_seed_gives_the_same_answers_again_and_another_one_others() -> None:
    phrases = read_phrases(get_principle("fraud"))

    def compose(seed: int) -> list[str]:
        composer = Composer(seed)
        return [composer.compose(phrases, "?", str(number)) for number in range(20)]

    assert compose(3) == compose(3)
    assert compose(3) != compose(4)


def test_only_harms_that_the_principle_names_are_repeated() -> None:
    fraud, bread = read_phrases(get_principle("fraud")), read_phrases(parse(BAKERY.encode()).principles[0])
    assert find_topics(fraud, "How do thefts by laundering money work?") == ["theft", "money laundering"]
    assert find_topics(fraud, "How do I bake bread?") == []
    assert find_topics(bread, REQUEST) == ["theft"]
    assert find_topics(bread, "How do I build weapons?") == []


def test_a_charter_of_ones_own_is_read() -> None:
    phrases = read_phrases(parse(BAKERY.encode()).principles[0])
    assert (phrases.tone, phrases.concern) == ("plain", "spoiling bread")
    assert [(offer.kind, offer.text) for offer in phrases.offers] == [
        ("explain", "how yeast works"),
        ("help", "sourdough, rye and spelt"),
    ]
    assert phrases.own_offers == ("I can help with keeping it fresh.",)
    assert read_phrases(make_umbrellas().principles[0]).concern == "umbrellas"


def test_nothing_is_explained_under_a_hard_principle() -> None:
    for principle in CHARTER.principles:
        if principle.tier == "hard":
            assert {offer.kind for offer in read_phrases(principle).offers} == {"help"}


def test_a_principle_that_permits_nothing_is_refused() -> None:
    principle = get_principle("fraud").model_copy(update={"permits": "Nothing."})
    with pytest.raises(AlignmentError, match="The principle fraud permits nothing that a revision could offer"):
        read_phrases(principle)


def test_a_charter_without_permits_is_a_clear_error(tmp_path: Path) -> None:
    before, _, after = BAKERY.partition("### Permits\n")
    (tmp_path / "charter.md").write_text(before + after[after.index("### Message") :])
    with pytest.raises(
        AlignmentError, match=r"The charter charter\.md cannot be used: line 13: .* `### Permits`\."
    ):
        read_charter("charter.md", tmp_path)
    with pytest.raises(AlignmentError, match=r"The charter none\.md cannot be read: No such file"):
        read_charter("none.md", tmp_path)


def test_charters_are_named_by_recipes(tmp_path: Path) -> None:
    (tmp_path / "umbrellas.md").write_bytes(source())
    assert read_charter("default", tmp_path) == CHARTER
    assert read_charter("umbrellas.md", tmp_path).id == "umbrellas"
    assert digest_charter("umbrellas.md", tmp_path) == read_charter("umbrellas.md", tmp_path).sha256


def test_a_row_is_read_under_its_own_principle_or_one_that_is_drawn() -> None:
    own = choose_principle(make_row("copies"), CHARTER, 0)
    assert own is not None
    assert own.id == "copies"
    assert choose_principle(make_row("no-such"), CHARTER, 0) is None
    drawn = [choose_principle(make_row(None, number), CHARTER, 0) for number in range(300)]
    assert {one.id for one in drawn if one} == {one.id for one in CHARTER.principles if is_enforced(one)}
    assert drawn != [choose_principle(make_row(None, number), CHARTER, 1) for number in range(300)]
