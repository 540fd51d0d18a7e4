"""Checks of principles in prose by their own examples, each by a head that was made without it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from commonweight.charter import Charter, Principle
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.encoders.encoder import TextEncoder
from commonweight.guard.heads.bundle import Bundle, Calibration
from commonweight.guard.heads.prose_head import OrdinaryVectors, ProseVectors
from commonweight.guard.heads.recompile import (
    embed_words,
    find_ordinary,
    hash_words,
    make_prose_head,
    needs_prose_head,
)

ENOUGH_EXAMPLES = 3
"""Examples of each kind, from which a check says something."""


@dataclass(frozen=True)
class CheckedExample:
    """An example of a charter, with the decision of a head that was made without it."""

    text: str
    is_refused: bool


@dataclass(frozen=True)
class ProseCheck:
    """What a head of a principle's words does with the principle's examples."""

    principle: str
    violating: tuple[CheckedExample, ...]
    complying: tuple[CheckedExample, ...]
    hindering: tuple[str, ...]
    """Examples that comply, without which more of those that violate is caught."""
    ordinary: Calibration
    """Of ordinary requests, those that the head refuses."""

    @property
    def advice(self) -> tuple[str, ...]:
        """What to write next; nothing, if the examples are told apart."""
        return tuple(self._list_advice())

    def _list_advice(self) -> Iterator[str]:
        for kind, examples in (("violates", self.violating), ("complies", self.complying)):
            if len(examples) < ENOUGH_EXAMPLES:
                yield f"write {ENOUGH_EXAMPLES - len(examples)} more examples: `- {kind}: ...`"
        if missed := [one.text for one in self.violating if not one.is_refused]:
            yield f"say in Restricts what these are, or write more like them: {_quote(missed)}"
        if refused := [one.text for one in self.complying if one.is_refused]:
            yield f"say in Permits what these are, or write more like them: {_quote(refused)}"
        if self.hindering:
            yield f"these are left out, as without them more is caught: {_quote(self.hindering)}"


def check_prose(charter: Charter, base: Bundle, encoder: TextEncoder) -> list[ProseCheck]:
    """Check the principles of a charter whose heads are made of words with this bundle."""
    known = {*base.manifest.principles, base.manifest.injection_principle}
    ordinary = find_ordinary(base)
    return [
        check_principle(principle, embed_words(principle, encoder), ordinary)
        for principle in charter.principles
        if needs_prose_head(principle)
        and not (principle.id in known and base.manifest.words.get(principle.id) == hash_words(principle))
    ]


def check_principle(principle: Principle, words: ProseVectors, ordinary: OrdinaryVectors) -> ProseCheck:
    """Check a principle by the vectors of its words, of which those of its examples come last."""
    texts, complying = principle.violating_texts, [one.text for one in principle.complying]
    hindering: list[int] = []
    refused = _refuse_unseen(words, len(texts), ordinary)
    for i in range(len(complying)):
        others = _without(words, complying=[*hindering, i], of=len(complying))
        found = _refuse_unseen(others, len(texts), ordinary)
        if sum(found) > sum(refused):
            hindering.append(i)
            refused = found
    used = _without(words, complying=hindering, of=len(complying))
    refused_complying = [
        _refuses(_without(words, complying=[*hindering, i], of=len(complying)), vector, ordinary)
        for i, vector in enumerate(words.permits[len(words.permits) - len(complying) :])
    ]
    _, _, calibration = make_prose_head(used, ordinary, "")
    return ProseCheck(
        principle.id,
        tuple(map(CheckedExample, texts, refused)),
        tuple(map(CheckedExample, complying, refused_complying)),
        tuple(complying[i] for i in hindering),
        calibration,
    )


def _refuse_unseen(words: ProseVectors, count: int, ordinary: OrdinaryVectors) -> list[bool]:
    """Whether each of the last ``count`` restricted vectors is refused by a head that was made without it."""
    start = len(words.restricts) - count
    return [
        _refuses(ProseVectors(np.delete(words.restricts, start + i, 0), words.permits), vector, ordinary)
        for i, vector in enumerate(words.restricts[start:])
    ]


def _refuses(words: ProseVectors, vector: Floats, ordinary: OrdinaryVectors) -> bool:
    weights, head, _ = make_prose_head(words, ordinary, "")
    return bool(weights[0].astype(np.float32) @ vector >= head.high)


def _without(words: ProseVectors, *, complying: Sequence[int], of: int) -> ProseVectors:
    """The vectors without some of the last ``of`` permitted ones."""
    start = len(words.permits) - of
    return ProseVectors(words.restricts, np.delete(words.permits, [start + i for i in complying], 0))


def _quote(texts: Sequence[str]) -> str:
    return "; ".join(f'"{text}"' for text in texts)
