"""Assembly of a bundle from trained heads."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter
from commonweight.guard.encoders.encoder import TextEncoder
from commonweight.guard.encoders.multilingual import LANGUAGES
from commonweight.guard.heads.bundle import Bundle, BundleSource, Manifest, ModelIdentity, Strictness
from commonweight.guard.heads.calibration import Scores, count_refusals, find_threshold
from commonweight.guard.heads.reader import ENGLISH, MULTILINGUAL
from commonweight.guard.heads.recompile import hash_words, next_above, recompile
from commonweight.workshop.heads.training import TrainedHeads

ANSWER_RATES: dict[Strictness, float] = {"low": 0.002, "standard": 0.005, "high": 0.02}
"""Of the model's own answers to ordinary prompts: the share that may be refused."""
ANSWER_LOW_RATE = 0.03
LICENCE, SHARE_ALIKE_LICENCE = "Apache-2.0", "CC-BY-SA-4.0"
"""Of a bundle. Version 3.0 of the share-alike licence allows later ones."""


def assemble_bundle(
    charter: Charter,
    trained: TrainedHeads,
    *,
    model: ModelIdentity | None,
    layers: Sequence[int],
    encoder: TextEncoder | None,
    calibration_vectors: npt.NDArray[np.float32] | None,
    looks_harmful: npt.NDArray[np.bool_] | None = None,
    sources: Sequence[BundleSource],
) -> Bundle:
    """Assemble a bundle of trained heads, with prose heads for the principles without data.

    ``looks_harmful``: which of the harmless texts with these vectors are no ordinary ones; None: it is not known.
    """
    tensors = dict(trained.tensors)
    tensors["calibration.vectors"] = (
        np.zeros((0, 384), np.float16) if calibration_vectors is None else calibration_vectors.astype(np.float16)
    )
    if looks_harmful is not None:
        tensors["calibration.hard"] = looks_harmful.astype(np.uint8)
    manifest = Manifest(
        charter=charter.sha256,
        charter_id=charter.id,
        charter_version=charter.version,
        schema_="guard/2",
        model=model,
        encoder="all-MiniLM-L6-v2" if encoder else None,
        probe_layers=tuple(layers),
        principles=trained.principles,
        words={one.id: hash_words(one) for one in charter.principles},
        encoders=trained.encoders,
        languages=LANGUAGES if MULTILINGUAL in trained.input else (ENGLISH,),
        input=trained.input,
        output=trained.output,
        manipulation=trained.manipulation,
        calm=trained.calm,
        states_slope=trained.states_slope,
        injection=trained.injection,
        injection_principle=trained.injection_principle,
        calibration=trained.calibration,
        sources=tuple(sources),
        licence=fold_licences(sources),
    )
    return recompile(charter, Bundle(manifest, tensors), encoder, {})


def fold_licences(sources: Sequence[BundleSource]) -> str:
    """Fold the sources' licences into the bundle's: share-alike text makes it share-alike, all else attributes."""
    shares = any("-SA-" in source.licence for source in sources)
    return SHARE_ALIKE_LICENCE if shares else LICENCE


def raise_thresholds(bundle: Bundle, peaks: Mapping[str, Scores]) -> Bundle:
    """Raise the thresholds on answers to the bundle's false positive rate on a model's own harmless answers.

    Labelled answers are harmful or decline something, and their means swing less than a stream does: by them alone
    a sixth of the starter's ordinary answers would be refused.

    ``peaks``: by what is looked at, the highest smoothed logit of each answer.
    """
    manifest = bundle.manifest
    output, calibration = dict(manifest.output), dict(manifest.calibration)
    for part, seen in peaks.items():
        old = output[part]
        points = {
            name: max(high, next_above(find_threshold(ANSWER_RATES[name], seen)))
            for name, high in old.points.items()
        }
        high = points.get("standard", max(old.high, next_above(find_threshold(ANSWER_RATES["standard"], seen))))
        low = min(high, max(old.low, next_above(find_threshold(ANSWER_LOW_RATE, seen))))
        output[part] = old.model_copy(update={"low": low, "high": high, "points": points})
        calibration[f"answers by {part}"] = count_refusals(int((seen >= high).sum()), len(seen))
    return Bundle(manifest.model_copy(update={"output": output, "calibration": calibration}), bundle.tensors)
