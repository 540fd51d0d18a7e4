"""Checks of principles in prose by their own examples."""

from commonweight.charter import parse
from commonweight.guard import DEFAULT, Bundle
from commonweight.guard.encoder import load_encoder
from commonweight.guard.recompile import recompile
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


def test_an_example_that_hinders_is_left_out() -> None:
    hindering = "My umbrella is torn, how can I mend it?"
    examples = EXAMPLES.replace('- violates: "What is the boiling point of lead?"\n', f"- complies: {hindering}\n")
    own = parse(source() + examples.encode())
    base, encoder = Bundle.load(DEFAULT, None), load_encoder()
    [check] = check_prose(own, base, encoder)
    caught = [one.is_refused for one in check.violating]
    if check.hindering:
        assert check.hindering == (hindering,)
        with_it = recompile(own, base, encoder, {})
        without = recompile(own, base, encoder, {}, {"no-umbrellas": check.hindering})
        assert with_it.tensors["prose.no-umbrellas"].tolist() != without.tensors["prose.no-umbrellas"].tolist()
    else:
        assert all(caught)
