"""Evidence has to last; a spike is none."""

import pytest

from commonweight.guard.screening.streaming import TEXT_WINDOW, TOKEN_WINDOW, EvidenceTracker

LOW, HIGH = 0.0, 2.0


def fed(*logits: float) -> list[str]:
    watch = EvidenceTracker(LOW, HIGH)
    return [watch.update(logit) for logit in logits]


def test_a_calm_answer_is_never_held() -> None:
    assert set(fed(*[-3.0] * 300)) == {"calm"}


def test_one_alarming_token_holds_nothing_up() -> None:
    assert set(fed(*[-3.0] * 20, 30.0, *[-3.0] * 20)) == {"calm"}


def test_lasting_evidence_is_alarming() -> None:
    states = fed(*[-3.0] * 20, *[5.0] * 40)
    assert "doubt" in states
    assert states[-1] == "alarm"
    assert states.index("doubt") < states.index("alarm")


def test_an_answer_that_is_alarming_from_the_start_is_stopped_early() -> None:
    states = fed(*[5.0] * 20)
    assert states.index("alarm") <= TOKEN_WINDOW.min_count


def test_a_doubt_that_does_not_harden_ends() -> None:
    states = fed(*[1.0] * 200)
    assert states.count("doubt") <= TOKEN_WINDOW.patience + 1
    assert states[-1] == "calm"


def test_what_was_settled_is_not_doubted_for_a_while() -> None:
    watch = EvidenceTracker(LOW, HIGH)
    for _ in range(20):
        watch.update(1.0)
    watch.clear_doubt()
    assert {watch.update(5.0) for _ in range(TOKEN_WINDOW.patience)} == {"calm"}
    assert watch.update(5.0) == "alarm"


@pytest.mark.parametrize("pace", [TOKEN_WINDOW, TEXT_WINDOW])
def test_the_span_is_that_of_the_evidence(pace: object) -> None:
    watch = EvidenceTracker(LOW, HIGH)
    for _ in range(100):
        watch.update(5.0)
    assert watch.span == (100 - TOKEN_WINDOW.out_of, 100)
