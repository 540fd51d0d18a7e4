"""Answers composed from a principle: the concern is named, and what the principle permits is offered.

For models that are too small to revise an answer themselves. The wording varies by seed; openings take turns, so
that no beginning stands before more than its share of answers.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from commonweight.workshop.alignment.principle_phrases import Offer, PrinciplePhrases, find_topics
from commonweight.workshop.alignment.revision_frames import FRAMES, Frames, Tone
from commonweight.workshop.data.rows import draw_fraction

MOST_SENTENCES = 5
TOPIC_SHARE, OWN_SHARE, SECOND_SHARE, CLOSED_SHARE, WHOLE_SHARE = 0.7, 0.35, 0.5, 0.5, 0.4
"""Of answers that could: those that name a topic of the request, offer what *Message* offers, make a second offer,
end in a question or invitation, and offer a list as a whole."""

_Item = TypeVar("_Item")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


class Composer:
    """Composes answers, one after another."""

    def __init__(self, seed: int) -> None:
        self._seed = str(seed)
        self._used: Counter[Tone] = Counter()
        """Openings that were used so far."""

    def compose(self, phrases: PrinciplePhrases, request: str, row_id: str) -> str:
        """Compose the answer to a request.

        Args:
            request: the user's words; only names of harms that the principle has, too, are repeated.
        """
        dice, frames = _Dice(self._seed, row_id), FRAMES[phrases.tone]
        opening = self._take_opening(phrases.tone, frames)
        first = dice.choose("offer", phrases.offers)
        parts = [_open(opening, phrases, first, request, dice)]
        extras: list[str] = []
        if phrases.own_offers and dice.draw("own") < OWN_SHARE:
            extras.append(dice.choose("own offer", phrases.own_offers))
        elif "{o}" not in opening:
            extras.append(dice.choose("frame", frames.offers[first.kind]).format(o=_word(first, dice)))
        others = [offer for offer in phrases.offers if offer != first]
        if others and extras and dice.draw("second") < SECOND_SHARE and extras[0] not in phrases.own_offers:
            second = dice.choose("other offer", others)
            extras.append(
                dice.choose("second frame", frames.second_offers[second.kind]).format(o=_word(second, dice))
            )
        if not phrases.care and (
            dice.draw("close") < CLOSED_SHARE or count_sentences(" ".join([*parts, *extras])) < 2
        ):
            extras.append(dice.choose("closer", frames.closers))
        # Where the charter points to help, that is never what is left out.
        while count_sentences(" ".join([*parts, *extras, *phrases.care])) > MOST_SENTENCES and extras:
            extras.pop()
        return " ".join([*parts, *extras, *phrases.care])

    def _take_opening(self, tone: Tone, frames: Frames) -> str:
        """The next opening: each stands once in a round, in an order of its own."""
        turn, at = divmod(self._used[tone], len(frames.openings))
        self._used[tone] += 1
        return sorted(
            frames.openings, key=lambda text: draw_fraction("opening", self._seed, tone, str(turn), text)
        )[at]


class _Dice:
    """Draws that depend on the seed, the row and their name alone."""

    def __init__(self, seed: str, row_id: str) -> None:
        self._parts = ("compose", seed, row_id)

    def draw(self, name: str) -> float:
        return draw_fraction(*self._parts, name)

    def choose(self, name: str, among: Sequence[_Item]) -> _Item:
        return among[int(self.draw(name) * len(among))]


def _open(opening: str, phrases: PrinciplePhrases, offer: Offer, request: str, dice: _Dice) -> str:
    topics = find_topics(phrases, request)
    concern = dice.choose("topic", topics) if topics and dice.draw("named") < TOPIC_SHARE else phrases.concern
    return opening.format(
        c=concern,
        o=_word(offer, dice),
        help="explain" if offer.kind == "explain" else "help with",
        message=phrases.message,
    )


def _word(offer: Offer, dice: _Dice) -> str:
    """An offer in words: of a plain list all of it, or its first entry and another one."""
    if not offer.items or dice.draw(f"whole {offer.text}") < WHOLE_SHARE:
        return offer.text
    return f"{offer.items[0]} or {dice.choose(f'item {offer.text}', offer.items[1:])}"


def count_sentences(text: str) -> int:
    """Sentences of an answer, by their ends."""
    return len(_SENTENCE_END.findall(text))
