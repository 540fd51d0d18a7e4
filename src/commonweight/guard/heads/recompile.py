"""Recompiling a bundle for a charter with other words, without data.

- A principle keeps the heads that an earlier bundle has for it, as long as its words are the same.
- A principle that only has words gets a head made of them: the ordinary requests that its threshold is set with
  come with the package's own bundle, as vectors.

Heads from labelled texts are trained in ``workshop.heads``.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter, Principle
from commonweight.guard.encoders.encoder import TextEncoder
from commonweight.guard.heads.bundle import Bundle, Calibration, ProseHead
from commonweight.guard.heads.calibration import count_refusals, find_threshold
from commonweight.guard.heads.prose_head import OrdinaryVectors, ProseVectors, fit_head

PROSE_RATE, PROSE_LOW_RATE = 0.0005, 0.02
"""Of ordinary requests: the share that a head of words may refuse, and the share that a judge is asked about."""
MIN_ORDINARY = 100
"""Vectors of harmless texts, below which no threshold is worth its name."""
ORDINARY_REQUESTS = (
    "A question about cooking, travel, sports, health or everyday life.",
    "A request to write, correct, translate or summarise a text.",
    "A programming task or a question about software.",
    "A mathematical problem or a question about science.",
    "A question about history, art, business or society.",
)
"""What people mostly ask, in our own words."""


class CompileError(Exception):
    """The charter cannot be compiled; the message says why, in one sentence."""


def hash_words(principle: Principle) -> str:
    """Hash the words of a principle; heads are valid only for the words that they were trained for."""
    return hashlib.sha256(f"{principle.restricts}\0{principle.permits}".encode()).hexdigest()[:16]


def hash_prose(principle: Principle) -> str:
    """Hash what a head of words is made of: the words, and the examples that are written down."""
    texts = [principle.restricts, principle.permits, *principle.violating_texts, ""]
    texts += [example.text for example in principle.complying]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def covers(charter: Charter, bundle: Bundle) -> bool:
    """Whether a bundle has heads for all words of a charter, though it was made of another version."""
    manifest = bundle.manifest
    known = {*manifest.principles, manifest.injection_principle}
    return all(
        (one.id in known and manifest.words.get(one.id) == hash_words(one))
        or (one.id in manifest.prose and manifest.prose[one.id].words == hash_prose(one))
        for one in charter.principles
        if needs_prose_head(one)
    )


def recompile(
    charter: Charter,
    base: Bundle,
    encoder: TextEncoder | None,
    violating: Mapping[str, Sequence[str]],
    left_out: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Bundle:
    """Make a bundle from an earlier one's heads, with prose heads for the principles that have none.

    ``violating``: texts against principles, by id, where some are known; ``left_out``: examples that comply, and
    that heads are made without.

    Raises:
        CompileError: a principle needs the encoder, and there is none.
    """
    old = base.manifest
    by_id = {one.id: one for one in charter.principles}
    kept = tuple(
        name if name in by_id and old.words.get(name) == hash_words(by_id[name]) else "" for name in old.principles
    )
    injection = old.injection_principle
    if injection is not None and (
        injection not in by_id or old.words.get(injection) != hash_words(by_id[injection])
    ):
        injection = None
    tensors: dict[str, npt.NDArray[Any]] = {
        name: tensor for name, tensor in base.tensors.items() if not name.startswith("prose.")
    }
    prose = {
        one.id: old.prose[one.id]
        for one in charter.principles
        if one.id in old.prose and old.prose[one.id].words == hash_prose(one) and not violating.get(one.id)
    }
    tensors |= {f"prose.{name}": base.tensors[f"prose.{name}"] for name in prose}
    others = {*old.principles, *old.prose}.difference(kept, prose)
    calibration = {name: one for name, one in old.calibration.items() if name not in others}
    ordinary: OrdinaryVectors | None = None
    for principle in charter.principles:
        if principle.id in (*kept, *prose, injection) or not needs_prose_head(principle):
            continue
        if encoder is None and principle.phrases:
            continue  # these hold alone
        if encoder is None:
            raise CompileError(
                f"{principle.id} has no data, and its words need the text encoder: commonweight pull starter"
            )
        ordinary = ordinary or find_ordinary(base)
        without = left_out.get(principle.id, ())
        kept_examples = tuple(one for one in principle.complying if one.text not in without)
        words = embed_words(
            principle.model_copy(update={"complying": kept_examples}), encoder, violating.get(principle.id, ())
        )
        made = make_prose_head(words, ordinary, hash_prose(principle))
        tensors[f"prose.{principle.id}"], prose[principle.id], calibration[principle.id] = made
    manifest = old.model_copy(
        update={
            "charter": charter.sha256,
            "charter_id": charter.id,
            "charter_version": charter.version,
            "principles": kept,
            "injection_principle": injection,
            "injection": old.injection if injection else None,
            "prose": prose,
            "words": {one.id: hash_words(one) for one in charter.principles if one.id in (*kept, injection)},
            "calibration": calibration,
        }
    )
    return Bundle(manifest, tensors)


def next_above(threshold: float) -> float:
    """Round up to the next float above a threshold, so that reaching it means exceeding the threshold."""
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))


def needs_prose_head(principle: Principle) -> bool:
    """Whether a principle has any effect: one that only records, in shadow mode, has none."""
    return "refuse" in principle.applies_to.values() or principle.mode == "enforce"


def embed_words(principle: Principle, encoder: TextEncoder, violating: Sequence[str] = ()) -> ProseVectors:
    """Embed what a principle says, with its examples and ``violating`` texts besides.

    Examples are the last rows, in the charter's order.
    """
    restricts = [*split_phrases(principle.restricts), *violating, *principle.violating_texts]
    permits = [
        *split_phrases(principle.permits),
        *ORDINARY_REQUESTS,
        *(example.text for example in principle.complying),
    ]
    vectors = encoder.embed([*restricts, *permits])
    return ProseVectors(vectors[: len(restricts)], vectors[len(restricts) :])


def find_ordinary(bundle: Bundle) -> OrdinaryVectors:
    """Find the vectors of ordinary requests that come with a bundle.

    Raises:
        CompileError: there are none.
    """
    if len(bundle.tensors["calibration.vectors"]) < MIN_ORDINARY:
        raise CompileError(
            "the earlier bundle has no ordinary requests to set thresholds with: take the package's"
        )
    looks_harmful = bundle.tensors["calibration.hard"].astype(bool)
    return OrdinaryVectors.split(bundle.tensors["calibration.vectors"][~looks_harmful])


def make_prose_head(
    words: ProseVectors, ordinary: OrdinaryVectors, digest: str
) -> tuple[npt.NDArray[np.float16], ProseHead, Calibration]:
    """Make a head of vectors of words, with thresholds of ordinary requests that it has not seen."""
    fitted = fit_head(words, ordinary)
    high = next_above(find_threshold(PROSE_RATE, fitted.ordinary))
    head = ProseHead(
        restricts=0,
        low=find_threshold(PROSE_LOW_RATE, fitted.ordinary),
        high=high,
        scale=float(fitted.ordinary.std()) / 2 + 1e-3,
        words=digest,
    )
    refused = int((fitted.ordinary >= high).sum())
    return fitted.weights[None].astype(np.float16), head, count_refusals(refused, len(fitted.ordinary))


def split_phrases(text: str) -> list[str]:
    """Split a text at stops and semicolons; the whole text is one of the phrases."""
    parts = [part.strip() for part in re.split(r"[.;:]\s+|\n+", text) if len(part.strip()) > 10]
    return [*parts, text] if len(parts) > 1 else [text]
