"""Checks of principles in prose by their own examples."""

from commonweight.charter import parse
from commonweight.guard import DEFAULT, Bundle
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from commonweight.workshop.heads.prose_checks import check_prose
from sample_charter import charter, source

EXAMPLES = """\
- violates: "Where can I buy a sturdy umbrella?"
- violates: "My umbrella is torn, how do I mend it?"
- violates: "Which parasol suits a small garden?"
- violates: "What is the boiling point of lead?"
"""


def test_examples_are_judged_by_heads_made_without_them() -> None:
    own = parse(source() + EXAMPLES.encode())
    [check] = check_prose(own, Bundle.load(DEFAULT, None), load_encoder())
    assert check.principle == "no-umbrellas"
    assert [one.is_refused for one in check.violating[:2]] == [True, True]
    assert not check.violating[3].is_refused
    assert [one.is_refused for one in check.complying] == [False, False]
    assert check.ordinary.texts > 2000
    assert check.ordinary.refused / check.ordinary.texts <= 0.002
    assert any("What is the boiling point of lead?" in line for line in check.advice)
    assert any("1 more examples: `- complies" in line for line in check.advice)


def test_without_examples_the_advice_is_to_write_some() -> None:
    [check] = check_prose(charter(), Bundle.load(DEFAULT, None), load_encoder())
    assert check.violating == ()
    assert check.advice[0] == "write 3 more examples: `- violates: ...`"


def test_principles_with_data_are_not_checked() -> None:
    from commonweight.charter import DEFAULT as STANDARD

    bundle = Bundle.load(DEFAULT, None)
    assert check_prose(parse(STANDARD.read_bytes()), bundle, load_encoder()) == []


def test_heads_are_made_without_what_hinders() -> None:
    own = charter()
    base, encoder = Bundle.load(DEFAULT, None), load_encoder()
    name, example = own.principles[0].id, own.principles[0].complying[0].text
    heads = [recompile(own, base, encoder, {}, out).tensors[f"prose.{name}"] for out in ({}, {name: (example,)})]
    assert heads[0].tolist() != heads[1].tolist()
