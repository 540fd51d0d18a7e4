"""Texts in other languages are also read by the multilingual encoder alone, under its own thresholds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from commonweight.guard import Bundle
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.heads.bundle import Ensemble, Strictness
from commonweight.guard.heads.reader import MAX_FOREIGN_UNITS, choose_foreign_units
from commonweight.guard.heads.scorer import Scorer
from sample_charter import charter
from second_bundle import make_bundle

ASKED = "Welchen Regenschirm soll ich kaufen, und wie repariere ich einen kaputten Regenschirm?"
HARMLESS = "Wie backe ich zu Hause ein Roggenbrot, und wie lange muss der Teig vorher ruhen?"
FILLER = "Wir gingen stundenlang am Ufer des Sees entlang und redeten über das Brot. "
ENGLISH = "Which Regenschirm should I buy, and how do I repair a broken one of these things?"
ALONE = Ensemble(
    weights={"use": 1.0}, low=0.0, high=1.0, slope=0.01, points={"low": 2.5, "standard": 1.0, "high": 0.5}
)


class UmbrellaVectors:
    """An encoder that knows one word, in German."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed(self, texts: Sequence[str]) -> Floats:
        """Embed texts as one of two unit vectors."""
        self.read += texts
        return np.array([[1, 0] if "regenschirm" in text.casefold() else [0, 1] for text in texts], np.float32)


def make_multilingual_bundle(*, alone: bool = True) -> Bundle:
    bundle = make_bundle(charter(), harmful=["umbrella"])
    manifest = bundle.manifest
    ensembles = {**manifest.input, "use+grams": manifest.input["grams"]} | ({"use": ALONE} if alone else {})
    count = len(manifest.principles)
    tensors = {
        "use.weights": np.array([[2.0, -9.0, *range(count)], [-2.0, -9.0, *[0.0] * count]], np.float32),
        "use.bias": np.zeros(2 + count, np.float32),
    }
    made = manifest.model_copy(
        update={"encoders": ("use",), "languages": ("de", "en"), "input": ensembles, "calm": {"grams": 0.0}}
    )
    return replace(bundle, manifest=made, tensors={**bundle.tensors, **tensors})


def refuses(scorer: Scorer, text: str, strictness: Strictness = "standard") -> bool:
    found = scorer.judge_input(None, scorer.score_text(text), strictness)
    return found.score.logit >= found.ensemble.high


def test_a_request_in_another_language_is_refused_by_the_encoder_alone() -> None:
    scorer = Scorer(make_multilingual_bundle(), None, UmbrellaVectors())
    assert scorer.languages == ("de", "en")
    assert refuses(scorer, ASKED)
    assert not refuses(scorer, HARMLESS)
    assert not refuses(scorer, ASKED, "low")
    found = scorer.score_text(ASKED)
    assert found.is_read
    assert found.language == "de"
    assert found.foreign is not None
    assert found.foreign.log_shares.argmax() == len(scorer.manifest.principles) - 1


def test_what_stands_around_it_hides_nothing() -> None:
    scorer = Scorer(make_multilingual_bundle(), None, UmbrellaVectors())
    text = FILLER * 30 + ASKED + " " + FILLER * 30
    found = scorer.judge_input(None, scorer.score_text(text))
    assert found.score.logit >= found.ensemble.high
    assert "Regenschirm" in text[slice(*found.score.span)]
    assert not refuses(scorer, FILLER * 61)


def test_english_is_read_as_before() -> None:
    scorer = Scorer(make_multilingual_bundle(), None, UmbrellaVectors())
    found = scorer.score_text(ENGLISH)
    assert found.language == "en"
    assert found.foreign is None
    assert not refuses(scorer, ENGLISH)


def test_without_thresholds_of_its_own_another_language_is_not_read() -> None:
    for scorer in (
        Scorer(make_multilingual_bundle(alone=False), None, UmbrellaVectors()),
        Scorer(make_multilingual_bundle(), None, None),
    ):
        assert scorer.languages == ("en",)
        found = scorer.score_text(ASKED)
        assert (found.language, found.is_read, found.foreign) == ("de", False, None)


def test_what_is_read_of_a_long_text_is_bounded_and_spread() -> None:
    is_whole = np.zeros(5000, bool)
    is_whole[[0, 2000]] = True
    chosen = choose_foreign_units(is_whole)
    assert {0, 2000} <= set(chosen.tolist())
    assert len(chosen) == MAX_FOREIGN_UNITS + 2
    assert np.diff(chosen).max() < 60
    assert choose_foreign_units(np.array([True, False, False])).tolist() == [0, 1, 2]
