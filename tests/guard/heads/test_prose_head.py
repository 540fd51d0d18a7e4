"""Heads of words: thresholds on ordinary requests, and charters whose words a bundle knows already."""

from dataclasses import replace

import numpy as np
import pytest

from commonweight.charter import parse
from commonweight.guard import DEFAULT, Bundle
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.prose_head import OrdinaryVectors, ProseVectors, fit_head
from commonweight.guard.heads.recompile import CompileError, covers, find_ordinary, hash_prose, recompile
from commonweight.guard.heads.scorer import Scorer
from sample_charter import BREAD, UMBRELLA, charter, source

DRAW = np.random.default_rng(0)


def around(centre: Floats, count: int) -> Floats:
    rows = centre + 0.1 * DRAW.normal(size=(count, len(centre)))
    unit: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_a_head_tells_apart_what_its_words_do() -> None:
    restricted, permitted, ordinary = np.eye(16, dtype=np.float32)[:3]
    words = ProseVectors(around(restricted, 3), around(permitted, 3))
    fitted = fit_head(words, OrdinaryVectors.split(around(ordinary, 400)))
    high = np.quantile(fitted.ordinary, 0.99)
    assert (around(restricted, 50) @ fitted.weights > high).mean() > 0.9
    assert (around(permitted, 50) @ fitted.weights > high).mean() < 0.1
    assert len(fitted.ordinary) == 400


def test_ordinary_requests_are_those_that_do_not_look_harmful() -> None:
    bundle = Bundle.load(DEFAULT, None)
    count, hard = len(bundle.tensors["calibration.vectors"]), bundle.tensors["calibration.hard"]
    assert 0 < hard.sum() < count / 2
    assert sum(len(rows) for rows, _ in find_ordinary(bundle).halves) == count - hard.sum()


def test_a_bundle_without_ordinary_requests_makes_no_heads() -> None:
    bundle = Bundle.load(DEFAULT, None)
    empty = replace(bundle, tensors={**bundle.tensors, "calibration.vectors": np.zeros((0, 384), np.float16)})
    with pytest.raises(CompileError, match="no ordinary requests"):
        recompile(charter(), empty, load_encoder(), {})


def test_other_phrases_and_places_need_no_other_heads() -> None:
    made = recompile(charter(), Bundle.load(DEFAULT, None), load_encoder(), {})
    text = source().decode().replace("applies_to: {", "phrases: [blue heron]\napplies_to: {tool_result: refuse, ")
    other = parse(text.encode())
    assert covers(other, made)
    # Without the encoder: the head is kept as it is.
    kept = recompile(other, made, None, {})
    assert kept.manifest.charter == other.sha256
    assert kept.manifest.prose == made.manifest.prose
    assert kept.tensors["prose.no-umbrellas"].tolist() == made.tensors["prose.no-umbrellas"].tolist()
    for old, new in (("parasols", "sunshades"), ("Will it rain", "Does it rain")):
        changed = parse(text.replace(old, new).encode())
        assert not covers(changed, made)
        assert hash_prose(changed.principles[0]) != hash_prose(other.principles[0])


def test_an_earlier_form_of_heads_still_decides() -> None:
    made = recompile(charter(), Bundle.load(DEFAULT, None), load_encoder(), {})
    encoder = load_encoder()
    vectors = encoder.embed(["Advice on umbrellas.", "Bread and other food."]).astype(np.float16)
    head = made.manifest.prose["no-umbrellas"].model_copy(
        update={"restricts": 1, "high": 0.1, "low": 0.0, "scale": 0.1, "words": None}
    )
    manifest = made.manifest.model_copy(update={"prose": {"no-umbrellas": head}})
    assert "words" not in manifest.model_dump()["prose"]["no-umbrellas"]
    scorer = Scorer(Bundle(manifest, {**made.tensors, "prose.no-umbrellas": vectors}), encoder)
    assert scorer.score_similarity(UMBRELLA, ["no-umbrellas"])["no-umbrellas"] > 0
    assert scorer.score_similarity(BREAD, ["no-umbrellas"])["no-umbrellas"] < 0
