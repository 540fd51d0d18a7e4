"""Recompiling a bundle for a charter with other words, without data.

- A principle keeps the heads that an earlier bundle has for it, as long as its words are the same.
- A principle that only has words gets a head made of them: the benign texts that its threshold is set with come
  with the package's own bundle, as vectors.

Heads from labelled texts are trained in ``workshop.heads``.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter, Principle
from commonweight.guard.bundle import Bundle, Calibration, ProseHead
from commonweight.guard.calibration import count_refusals, find_threshold
from commonweight.guard.encoder import TextEncoder

PROSE_RATE, PROSE_LOW_RATE = 0.002, 0.02
"""Of harmless texts: the share that a head of words may refuse, and the share that a judge is asked about."""
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


def recompile(
    charter: Charter, base: Bundle, encoder: TextEncoder | None, violating: Mapping[str, Sequence[str]]
) -> Bundle:
    """Make a bundle from an earlier one's heads, with prose heads for the principles that have none.

    ``violating``: texts against principles, by id, where some are known.

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
    prose: dict[str, ProseHead] = {}
    others = {*old.principles, *old.prose}.difference(kept)
    calibration = {name: one for name, one in old.calibration.items() if name not in others}
    for principle in charter.principles:
        if principle.id in kept or principle.id == injection or not _needs_prose_head(principle):
            continue
        if encoder is None:
            raise CompileError(
                f"{principle.id} has no data, and its words need the text encoder: commonweight pull starter"
            )
        made = _make_prose_head(
            principle, encoder, violating.get(principle.id, ()), tensors["calibration.vectors"]
        )
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


def _needs_prose_head(principle: Principle) -> bool:
    """Whether a principle has any effect: one that only records, in shadow mode, has none."""
    return "refuse" in principle.applies_to.values() or principle.mode == "enforce"


def _make_prose_head(
    principle: Principle, encoder: TextEncoder, violating: Sequence[str], harmless: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float16], ProseHead, Calibration]:
    restricts = [*split_phrases(principle.restricts), *violating]
    permits = [*split_phrases(principle.permits), *(one.text for one in principle.complying), *ORDINARY_REQUESTS]
    vectors = encoder.embed([*restricts, *permits]).astype(np.float16)
    similar = harmless.astype(np.float32) @ vectors.astype(np.float32).T
    margins = similar[:, : len(restricts)].max(1) - similar[:, len(restricts) :].max(1)
    high = next_above(find_threshold(PROSE_RATE, margins))
    prose = ProseHead(
        restricts=len(restricts),
        low=find_threshold(PROSE_LOW_RATE, margins),
        high=high,
        scale=float(margins.std()) / 2 + 1e-3,
    )
    return vectors, prose, count_refusals(int((margins >= high).sum()), len(margins))


def split_phrases(text: str) -> list[str]:
    """Split a text at stops and semicolons; the whole text is one of the phrases."""
    parts = [part.strip() for part in re.split(r"[.;:]\s+|\n+", text) if len(part.strip()) > 10]
    return [*parts, text] if len(parts) > 1 else [text]
