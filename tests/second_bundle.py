"""A bundle of the format guard/2 whose heads know nothing but a few words, made without training."""

from collections.abc import Sequence

import numpy as np

from commonweight.charter import Charter
from commonweight.guard import Bundle
from commonweight.guard.encoders.ngrams import BUCKETS, hash_ngrams
from commonweight.guard.heads.bundle import Ensemble, Manifest


def make_bundle(charter: Charter, *, harmful: Sequence[str], orders: Sequence[str] = ()) -> Bundle:
    """Make a bundle whose logit of n-grams rises with the share of some words."""
    weights = np.zeros((BUCKETS, 3), np.float16)
    for column, words in enumerate((harmful, orders)):
        for word in words:
            weights[hash_ngrams(word)[0], column] = 3
    grams = Ensemble(
        weights={"grams": 1.0}, bias=-2.0, low=-1.0, high=0.0, slope=0.1, relief=1.0,
        points={"low": 1.0, "standard": 0.0, "high": -0.5},
    )  # fmt: skip
    address = Ensemble(weights={"grams": 1.0}, bias=-2.0, low=0.0, high=0.0)
    manifest = Manifest(
        schema_="guard/2",
        charter=charter.sha256,
        charter_id=charter.id,
        charter_version=charter.version,
        model=None,
        encoder=None,
        principles=tuple(one.id for one in charter.principles),
        input={"grams": grams},
        manipulation={"grams": address},
    )
    return Bundle(manifest, {"grams.weights": weights, "grams.bias": np.zeros(3, np.float32)})
