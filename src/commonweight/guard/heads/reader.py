"""Reading of texts by heads of the format guard/2: each view as a whole, in windows and by sentences.

A sentence by itself keeps its logit, whatever stands around it; a window has what is said over several.

Cost is bounded: n-grams are read everywhere. The multilingual encoder, a millisecond for a sentence, reads each
view as a whole (the first 512 tokens) and at most 128 of the other units that n-grams do not find calm, the most
alarming first; MiniLM (128 tokens) the first 16 of what both together do not find calm, and nothing of most
harmless texts. With principles in prose, which neither knows anything of, it reads the wholes, and up to 256 more,
spread evenly.

N-grams and MiniLM know English only. A text in another language that the multilingual encoder knows is read by it
alone as well, under thresholds of its own: as a whole, and up to 128 of its parts, spread evenly.

The highest logit of n units is lowered by a slope times log(n), so that a long harmless text reaches a threshold
no more often than is asked of short ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.encoder import Embedder
from commonweight.guard.encoders.ngrams import hash_ngrams
from commonweight.guard.heads.bundle import Bundle, Ensemble
from commonweight.guard.heads.prose_head import score_vectors
from commonweight.guard.heads.scores import HarmScore, OrdersScore, TextScores
from commonweight.guard.text.deobfuscation import list_views
from commonweight.guard.text.languages import identify_language
from commonweight.guard.text.views import View
from commonweight.guard.text.windows import Span, split_sentences, split_windows

HARM, ORDERS = 0, 1
"""Columns of all heads on text; those of encoders go on with the principles."""
FIRST_PRINCIPLE = 2
GRAMS, STATES, TEXT = "grams", "states", "text"
PROSE_ENCODER, MULTILINGUAL = "minilm", "use"
ENGLISH = "en"
MAX_READ: Mapping[str, int] = {MULTILINGUAL: 128, PROSE_ENCODER: 16}
"""Units that encoders read because they are alarming, by encoder, in the order in which they are asked."""
MAX_PROSE_UNITS = 256
MAX_FOREIGN_UNITS = 128
"""Parts of a text in another language than English that are read."""


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


def choose_units(chosen: Numbers, logits: Floats, calm: float, most: int) -> Numbers:
    """Choose the units that a further encoder reads: the most alarming of those that were not found calm.

    Args:
        chosen: numbers of those that were read so far, in their order.
        logits: what is known of them.
    """
    alarming = logits >= calm
    return np.sort(chosen[alarming][np.argsort(-logits[alarming], kind="stable")][:most])


def choose_foreign_units(is_whole: npt.NDArray[np.bool_]) -> Numbers:
    """Choose the units that the multilingual encoder reads alone: the wholes, and some of the others."""
    return np.union1d(np.flatnonzero(is_whole), spread_evenly(np.flatnonzero(~is_whole), MAX_FOREIGN_UNITS))


def spread_evenly(numbers: Numbers, most: int) -> Numbers:
    """Spread a choice of at most ``most`` numbers evenly over them."""
    if len(numbers) <= most:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, most).round().astype(np.int64)]


@dataclass(frozen=True)
class ReadUnits:
    """Units that all parts so far have read."""

    chosen: Numbers
    """Their numbers, in their order."""
    rows: Mapping[str, Floats]
    """What the heads of each part say of them."""
    vectors: Mapping[str, Floats]
    """By encoder."""

    @property
    def members(self) -> str:
        """The parts, as ensembles name them."""
        return name_members(self.vectors)

    def select(self, column: int) -> dict[str, Floats]:
        """The logits of one head, by part."""
        return {name: found[:, column] for name, found in self.rows.items()}

    def add(self, name: str, chosen: Numbers, vectors: Floats, rows: Floats) -> "ReadUnits":
        """The units that a further encoder has read, of these."""
        at = np.searchsorted(self.chosen, chosen)
        return ReadUnits(
            chosen,
            {part: found[at] for part, found in self.rows.items()} | {name: rows},
            {part: found[at] for part, found in self.vectors.items()} | {name: vectors},
        )


def name_members(encoders: Iterable[str]) -> str:
    """Name the ensemble of n-grams and some encoders."""
    return "+".join([*sorted(encoders), GRAMS])


class TextReader:
    """Scores texts by the heads of one bundle."""

    def __init__(self, bundle: Bundle, encoders: Mapping[str, Embedder]) -> None:
        manifest = bundle.manifest
        self._manifest = manifest
        self._tensors = bundle.tensors
        self._encoders = encoders
        self._order = [name for name in MAX_READ if name in encoders and name in manifest.encoders]
        self._grams: Floats = np.asarray(bundle.tensors["grams.weights"], np.float32)
        self._grams_bias: Floats = bundle.tensors["grams.bias"]
        self.encoders = tuple(encoders)
        reads_others = MULTILINGUAL in self._order and MULTILINGUAL in manifest.input
        self.languages = manifest.languages if reads_others else (ENGLISH,)
        count = len(manifest.principles)
        self._unknown = np.full(count, -np.log(max(1, count)), np.float32)

    def score(self, text: str) -> TextScores:
        """Score a text in all its views."""
        views = list_views(text)
        units = [unit for view in views for unit in split_units(view)]
        own = sum(unit.view is views[0] for unit in units)
        is_whole = np.array([unit.span == (0, len(unit.view.text)) for unit in units])
        read = self._read_units(units, is_whole)
        harm = self._manifest.input[read.members]
        combined = combine_logits(harm, read.select(HARM))

        def pool(ensemble: Ensemble, found: Floats, count: int) -> tuple[float, int]:
            """The highest logit of the first ``count`` units, and which of those that were read it is."""
            among = np.flatnonzero(read.chosen < count)
            at = int(among[found[among].argmax()])
            return float(found[at]) - ensemble.slope * float(np.log(count)), at

        def find(count: int) -> HarmScore:
            logit, at = pool(harm, combined, count)
            shares = self._find_shares({name: read.rows[name] for name in read.vectors}, at)
            found = units[read.chosen[at]]
            if is_whole[read.chosen[at]]:
                # Its evidence is told as its most alarming part, where it has any.
                parts = [k for k, i in enumerate(read.chosen) if units[i].view is found.view and not is_whole[i]]
                found = units[read.chosen[max(parts, key=combined.__getitem__, default=at)]]
            return HarmScore(logit, shares, found.locate())

        found_orders = None
        if (orders := self._manifest.manipulation.get(read.members)) is not None:
            logit, at = pool(orders, combine_logits(orders, read.select(ORDERS)), len(units))
            found_orders = OrdersScore(logit, units[read.chosen[at]].locate())
        language = identify_language(views[0].text)
        is_hidden = len(units) > 1 or views[0].kind != "plain"
        return TextScores(
            own=find(own),
            members=read.members,
            prose=self._score_prose(units, is_whole, read),
            hidden=find(len(units)) if is_hidden else None,
            orders=found_orders,
            foreign=self._score_foreign(units, is_whole, read) if self._knows_alone(language) else None,
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

    def _read_units(self, units: Sequence[Unit], is_whole: npt.NDArray[np.bool_]) -> "ReadUnits":
        """Read units by n-grams, and by each encoder the text as it stands and what is not calm so far."""
        grams = np.stack([self._score_grams(unit.text) for unit in units])
        read = ReadUnits(np.arange(len(units)), {GRAMS: grams}, {})
        for name in self._order:
            logits = combine_logits(self._manifest.input[read.members], read.select(HARM))
            chosen = choose_units(read.chosen, logits, self._manifest.calm[read.members], MAX_READ[name])
            if not read.vectors:
                chosen = np.union1d(chosen, np.flatnonzero(is_whole))
            elif len(chosen):
                chosen = np.union1d(chosen, [0])
            else:
                break
            vectors = self._encoders[name].embed([units[i].text for i in chosen.tolist()])
            read = read.add(name, chosen, vectors, self._apply_heads(name, vectors))
        return read

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

    def _knows_alone(self, language: str | None) -> bool:
        """Whether the multilingual encoder alone knows a language, and has thresholds of its own for that."""
        return language != ENGLISH and language in self.languages

    def _embed(self, name: str, units: Sequence[Unit], chosen: Numbers, read: ReadUnits) -> Floats:
        """Embed the chosen units by an encoder; what it has read is not computed again."""
        known = dict(zip(read.chosen.tolist(), read.vectors.get(name, ()), strict=False))
        left = [i for i in chosen.tolist() if i not in known]
        if left:
            known.update(zip(left, self._encoders[name].embed([units[i].text for i in left]), strict=True))
        return np.stack([known[i] for i in chosen.tolist()])

    def _score_foreign(self, units: Sequence[Unit], is_whole: npt.NDArray[np.bool_], read: ReadUnits) -> HarmScore:
        """Score the units of a text in another language than English by the multilingual encoder alone."""
        ensemble = self._manifest.input[MULTILINGUAL]
        chosen = choose_foreign_units(is_whole)
        vectors = self._embed(MULTILINGUAL, units, chosen, read)
        rows = {MULTILINGUAL: self._apply_heads(MULTILINGUAL, vectors)}
        found = combine_logits(ensemble, {MULTILINGUAL: rows[MULTILINGUAL][:, HARM]})
        at = int(found.argmax())
        logit = float(found[at]) - ensemble.slope * float(np.log(len(units)))
        return HarmScore(logit, self._find_shares(rows, at), units[chosen[at]].locate())

    def _score_prose(
        self, units: Sequence[Unit], is_whole: npt.NDArray[np.bool_], read: "ReadUnits"
    ) -> dict[str, tuple[float, tuple[int, int]]]:
        if PROSE_ENCODER not in self._encoders or not self._manifest.prose:
            return {}
        chosen = read.chosen if PROSE_ENCODER in read.vectors else np.zeros(0, np.int64)
        left = np.setdiff1d(np.arange(len(units)), chosen)
        wholes, parts = left[is_whole[left]], left[~is_whole[left]]
        chosen = np.concatenate([chosen, wholes, spread_evenly(parts, MAX_PROSE_UNITS)])
        vectors = self._embed(PROSE_ENCODER, units, chosen, read)
        found = {}
        for name in self._manifest.prose:
            logits = self.score_prose(name, vectors)
            at = int(logits.argmax())
            found[name] = float(logits[at]), units[chosen[at]].locate()
        return found
