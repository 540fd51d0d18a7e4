"""Reading of texts by heads of the format guard/2: each view as a whole, in windows and by sentences.

A sentence by itself keeps its logit, whatever stands around it; a window has what is said over several.

Cost is bounded: n-grams are read everywhere. Encoders read each view as a whole (MiniLM its first 128 tokens, the
multilingual one its first 512), and of the windows and sentences those that what costs less finds alarming: the
multilingual encoder, at a millisecond each, at most 128 that n-grams do not find calm, and MiniLM the first 16 of
these. With principles in prose, which neither knows anything of, MiniLM reads up to 256 more, spread evenly.

The highest logit of n units is lowered by a slope times log(n), so that a long harmless text reaches a threshold
no more often than is asked of short ones.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import Bundle, Ensemble
from commonweight.guard.deobfuscation import list_views
from commonweight.guard.encoder import Embedder
from commonweight.guard.languages import identify_language
from commonweight.guard.ngrams import hash_ngrams
from commonweight.guard.prose_head import score_vectors
from commonweight.guard.scores import HarmScore, OrdersScore, TextScores
from commonweight.guard.views import View
from commonweight.guard.windows import Span, split_sentences, split_windows

HARM, ORDERS = 0, 1
"""Columns of all heads on text; those of encoders go on with the principles."""
FIRST_PRINCIPLE = 2
GRAMS, STATES, TEXT = "grams", "states", "text"
PROSE_ENCODER = "minilm"
MAX_READ: Mapping[str, int] = {"use": 128, "minilm": 16}
"""Units beside the views as wholes that encoders read, by encoder, in the order in which they are asked."""
MAX_PROSE_UNITS = 256


Numbers = npt.NDArray[np.int64]


class Unit(NamedTuple):
    """A piece of text that heads read at once."""

    view: View
    span: Span

    @property
    def text(self) -> str:
        """What it says."""
        return self.view.text[slice(*self.span)]

    def locate(self) -> tuple[int, int]:
        """Locate it in the text as it was given."""
        return self.view.locate(*self.span)


def split_units(view: View) -> list[Unit]:
    """Split a view into units: all of it, and its windows and sentences if there are several."""
    whole = Span(0, len(view.text))
    spans = dict.fromkeys((whole, *split_windows(view.text), *split_sentences(view.text)))
    return [Unit(view, span) for span in spans]


def combine_logits(ensemble: Ensemble, logits: Mapping[str, Floats]) -> Floats:
    """Combine the logits of parts, by an ensemble's weights."""
    total: Floats = sum(
        (np.float32(weight) * logits[part] for part, weight in ensemble.weights.items()),
        np.full(len(next(iter(logits.values()))), ensemble.bias, np.float32),
    )
    return total


def choose_units(chosen: Numbers, logits: Floats, is_whole: npt.NDArray[np.bool_], most: int) -> Numbers:
    """Choose the units that are read by a further encoder: the wholes, and the most alarming of the others.

    Args:
        chosen: numbers of those that were read so far, in their order.
        logits: what is known of them.
        is_whole: of all units.
    """
    parts = ~is_whole[chosen]
    ranked = chosen[parts][np.argsort(-logits[parts], kind="stable")][:most]
    return np.sort(np.concatenate([chosen[~parts], ranked]))


class TextReader:
    """Scores texts by the heads of one bundle."""

    def __init__(self, bundle: Bundle, encoders: Mapping[str, Embedder]) -> None:
        manifest = bundle.manifest
        self._manifest = manifest
        self._tensors = bundle.tensors
        self._encoders = {name: encoders[name] for name in manifest.encoders if name in encoders}
        self._order = [name for name in MAX_READ if name in self._encoders]
        self._grams: Floats = np.asarray(bundle.tensors["grams.weights"], np.float32)
        self._grams_bias: Floats = bundle.tensors["grams.bias"]
        self.members = "+".join([*self._encoders, GRAMS])
        """The parts of the ensemble on text that is used: those that are there."""
        self._harm = manifest.input[self.members]
        self._orders = manifest.manipulation.get(self.members)
        self.languages = manifest.languages if "use" in self._encoders else ("en",)
        count = len(manifest.principles)
        self._unknown = np.full(count, -np.log(max(1, count)), np.float32)

    def score(self, text: str, *, encode: bool = True) -> TextScores:
        """Score a text in all its views. ``encode`` is for guard/1: here encoders read what is worth it."""
        views = list_views(text)
        units = [unit for view in views for unit in split_units(view)]
        own = sum(unit.view is views[0] for unit in units)
        wholes = np.array([unit.span == (0, len(unit.view.text)) for unit in units])
        grams = np.stack([self._score_grams(unit.text) for unit in units])
        vectors, chosen = self._read_units(units, grams[:, HARM], wholes)
        rows = {name: self._apply_heads(name, found) for name, found in vectors.items()}
        logits = {GRAMS: grams[chosen], **rows}
        combined = combine_logits(self._harm, {name: found[:, HARM] for name, found in logits.items()})

        def pool(ensemble: Ensemble, found: Floats, count: int) -> tuple[float, int]:
            """The highest logit of the first ``count`` units, and which of those that were read it is."""
            among = np.flatnonzero(chosen < count)
            at = int(among[found[among].argmax()])
            return float(found[at]) - ensemble.slope * float(np.log(count)), at

        def find(count: int) -> HarmScore:
            logit, at = pool(self._harm, combined, count)
            return HarmScore(logit, self._find_shares(rows, at), units[chosen[at]].locate())

        found_orders = None
        if self._orders is not None:
            addressed = combine_logits(self._orders, {name: found[:, ORDERS] for name, found in logits.items()})
            logit, at = pool(self._orders, addressed, len(units))
            found_orders = OrdersScore(logit, units[chosen[at]].locate())
        score = find(own)
        language = identify_language(views[0].text)
        is_hidden = len(units) > 1 or views[0].kind != "plain"
        return TextScores(
            encoder=score if self._encoders else None,
            ngrams=score,
            prose=self._score_prose(units, vectors.get(PROSE_ENCODER), chosen),
            hidden=find(len(units)) if is_hidden else None,
            orders=found_orders,
            language=language,
            is_read=language is None or language in self.languages,
        )

    def score_injection(self, text: str) -> tuple[float, tuple[int, int]]:
        """Score a text for orders to the model alone, by n-grams: the logit less the threshold, and the span."""
        ensemble = self._manifest.injection
        if ensemble is None:
            return -np.inf, (0, 0)
        units = [unit for view in list_views(text) for unit in split_units(view)]
        found = np.array([self._score_grams(unit.text)[ORDERS] for unit in units])
        at = int(found.argmax())
        logit = ensemble.weights[GRAMS] * float(found[at]) + ensemble.bias
        return logit - ensemble.slope * float(np.log(len(units))) - ensemble.high, units[at].locate()

    def score_prose(self, name: str, vectors: Floats) -> Floats:
        """Score vectors by the head of a principle in words: refused from 0 on."""
        return score_vectors(self._manifest.prose[name], self._tensors[f"prose.{name}"], vectors)

    def _read_units(
        self, units: Sequence[Unit], grams: Floats, is_whole: npt.NDArray[np.bool_]
    ) -> tuple[dict[str, Floats], Numbers]:
        """Read units by the encoders: vectors by encoder of those that all have read, and the numbers of these."""
        chosen = (
            np.flatnonzero(is_whole | (grams >= self._manifest.calm)) if self._order else np.arange(len(units))
        )
        known = {GRAMS: grams}
        vectors: dict[str, Floats] = {}
        for name in self._order:
            ensemble = self._manifest.input["+".join([*vectors, GRAMS])]
            logits = combine_logits(ensemble, {part: known[part][chosen] for part in known})
            kept = choose_units(chosen, logits, is_whole, MAX_READ[name])
            vectors = {one: found[np.searchsorted(chosen, kept)] for one, found in vectors.items()}
            chosen = kept
            vectors[name] = self._encoders[name].embed([units[i].text for i in chosen.tolist()])
            known[name] = np.zeros(len(units), np.float32)
            known[name][chosen] = self._apply_heads(name, vectors[name])[:, HARM]
        return {name: vectors[name] for name in self._encoders}, chosen

    def _score_grams(self, text: str) -> Floats:
        buckets, weights = hash_ngrams(text)
        row: Floats = weights @ self._grams[buckets] + self._grams_bias
        return row

    def _apply_heads(self, name: str, vectors: Floats) -> Floats:
        rows: Floats = vectors @ self._tensors[f"{name}.weights"] + self._tensors[f"{name}.bias"]
        return rows

    def _find_shares(self, rows: Mapping[str, Floats], at: int) -> Floats:
        if not rows or not len(self._unknown):
            return self._unknown
        kinds: Floats = sum(
            (found[at, FIRST_PRINCIPLE:] for found in rows.values()), np.zeros(len(self._unknown), np.float32)
        ) / np.float32(len(rows))
        shares: Floats = kinds - np.logaddexp.reduce(kinds)
        return shares

    def _score_prose(
        self, units: Sequence[Unit], vectors: Floats | None, chosen: Numbers
    ) -> dict[str, tuple[float, tuple[int, int]]]:
        if vectors is None or not self._manifest.prose:
            return {}
        left = np.setdiff1d(np.arange(len(units)), chosen)
        if len(left):
            some = left[np.unique(np.linspace(0, len(left) - 1, MAX_PROSE_UNITS).round().astype(np.int64))]
            vectors = np.concatenate([vectors, self._encoders[PROSE_ENCODER].embed([units[i].text for i in some])])
            chosen = np.concatenate([chosen, some])
        found = {}
        for name in self._manifest.prose:
            logits = self.score_prose(name, vectors)
            at = int(logits.argmax())
            found[name] = float(logits[at]), units[chosen[at]].locate()
        return found
