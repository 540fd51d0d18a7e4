"""Phrases of a principle that sentences are composed of: the concern it restricts, and the offers it permits.

Charters are free prose. What is taken from them are whole clauses that fit a sentence; what does not fit is left.
"""

import math
import re
from dataclasses import dataclass

from commonweight.charter import Principle
from commonweight.workshop.alignment.ngrams import list_words
from commonweight.workshop.alignment.revision_frames import OfferKind, Tone
from commonweight.workshop.alignment.settings import AlignmentError

MOST_CONCERN_WORDS = 12
MOST_OFFER_WORDS = 14
MOST_WORRIED_OFFERS = 3
OFFERED_SHARE = (2 / 3, 1 / 2)
"""Of the clauses of *Permits*, the first ones: the last tell of words that only sound alike. Fewer under a hard
principle."""
_NEGATION = re.compile(
    r"^no (?:(?:help (?:with|towards|for)|talk (?:about|of)|encouragement of|promotion of|advice (?:on|about)) )?"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_CLAUSE_END = re.compile(r"[;:.]|, (?:real|where|without|whatever)\b|\b(?:that|which) ")
_TAIL = re.compile(r",? (?:such as|with its|with their)\b.*| \(.*")
_LABEL = re.compile(r"^[A-Za-z]+: ")
_LEAD = re.compile(r"^(?:(?:honest |open )?(?:talk|discussion) about|discussing|explaining) ")
_UNFIT = re.compile(r"\b(?:words|nothing|not|senses of|everything else)\b|^\w+ing (?:it|them)\b|\babout it$")
_FUNCTION = frozenset(
    [
        *("a", "an", "about", "as", "for", "from", "in", "it", "its", "of", "on", "that", "the", "their", "them"),
        *("to", "under", "where", "which", "who", "whose", "with", "within", "without", "your"),
    ]
)
_QUESTION = re.compile(r"^(?:how|what|when|where|whether|which|why) ")
_SECOND_PERSON = (
    (re.compile(r"\bone's\b"), "your"),
    (re.compile(r"\boneself\b"), "yourself"),
    (re.compile(r"\bone (\w+?)s or is\b"), r"you \1 or are"),
    (re.compile(r"\bone (\w+?)s\b"), r"you \1"),
    (re.compile(r"^help for\b"), "support for"),
)
_TOPICS = (
    *("weapons", "explosives", "poison", "torture", "kidnapping", "terrorism", "arson", "cruelty to animals"),
    *("suicide", "malware", "ransomware", "phishing", "credential theft", "scams", "forged documents"),
    *("counterfeiting", "theft", "burglary", "embezzlement", "insider dealing", "money laundering"),
    *("tax evasion", "bribery", "smuggling", "trafficking", "forced labour", "illegal gambling", "slurs"),
    *("stereotypes", "bullying", "stalking", "intimidation", "blackmail", "secret surveillance"),
    *("false accounts", "grooming", "rape"),
)
"""Topics that an answer may name where principle and request both contain them; no other word of a request."""
_WORRY = re.compile(r"\b(?:worried|concerned)\b")
_DOUBLED = re.compile(r"([bdgmnprt])\1$")
_SUFFIX = re.compile(r"(?:ings?|ers?|ed|es|s|e|ion|y|ies)$")


@dataclass(frozen=True)
class Offer:
    """Something that a principle permits, fit for a sentence."""

    kind: OfferKind
    text: str
    items: tuple[str, ...] = ()
    """Of a plain list: its entries, each of which may be offered alone."""


@dataclass(frozen=True)
class PrinciplePhrases:
    """What sentences under a principle are composed of."""

    tone: Tone
    concern: str | None
    """None: the principle has no short name for it."""
    offers: tuple[Offer, ...]
    message: str
    """First sentence of *Message*."""
    own_offers: tuple[str, ...]
    """Sentences of *Message* that offer something."""
    care: tuple[str, ...]
    """Sentences of *Message* that point to help."""
    restricted_stems: frozenset[str]


def read_phrases(principle: Principle) -> PrinciplePhrases:
    """Read the phrases of a principle.

    Raises:
        AlignmentError: *Permits* has nothing that could be offered.
    """
    offers = _choose_offers(principle)
    if not offers:
        raise AlignmentError(
            f"The principle {principle.id} permits nothing that a revision could offer: "
            "write under ### Permits what is welcome, in clauses of two to fourteen words."
        )
    first, *others = _SENTENCE.split(_join_lines(principle.message))
    care = tuple(sentence for sentence in others if "please" in sentence.lower())
    concern, is_worried = name_concern(principle), _WORRY.search(first) is not None
    is_severe = principle.severity in ("critical", "high")
    return PrinciplePhrases(
        tone="unnamed" if concern is None else "worried" if is_worried else "sober" if is_severe else "plain",
        concern=concern,
        # To a reader in trouble, what is nearest.
        offers=offers[:MOST_WORRIED_OFFERS] if is_worried else offers,
        message=first,
        own_offers=tuple(one for one in others if one not in care and re.search(r"\bI can\b", one)),
        care=care,
        restricted_stems=frozenset(map(_stem, list_words(f"{principle.title} {principle.restricts}"))),
    )


def name_concern(principle: Principle) -> str | None:
    """What a principle restricts, as a short noun phrase of its title, or else of *Restricts*."""
    title = _lower_first(principle.title.rstrip("."))
    if match := _NEGATION.match(title):
        concern = title[match.end() :].replace(" and no ", " or ")
    else:
        concern = _lower_first(_CLAUSE_END.split(_join_lines(principle.restricts))[0]).strip(" ,")
        if "," in concern:  # a list that was cut
            return None
    return concern if 0 < len(concern.split()) <= MOST_CONCERN_WORDS else None


def find_topics(phrases: PrinciplePhrases, request: str) -> list[str]:
    """Names of harms that both the principle and a request have; none of the request's own words."""
    wanted = phrases.restricted_stems & set(map(_stem, list_words(request)))
    return [topic for topic in _TOPICS if wanted.issuperset(map(_stem, _list_content_words(topic)))]


def _choose_offers(principle: Principle) -> tuple[Offer, ...]:
    """The first ones that *Permits* has.

    Under a hard principle nothing is explained unasked: how things work is close to what was asked for.
    """
    offers = list_offers(principle.permits)
    if principle.tier == "hard":
        offers = [offer for offer in offers if offer.kind != "explain"] or offers
    share = OFFERED_SHARE[principle.tier == "hard"]
    return tuple(offers[: max(2, math.ceil(len(offers) * share))])


def list_offers(permits: str) -> list[Offer]:
    """What the clauses of *Permits* offer, as far as they fit a sentence."""
    clauses: list[str] = []
    for clause in _lower_first(_join_lines(permits)).rstrip(".").split(";"):
        label = _LABEL.match(clause.strip())
        clauses += clause.strip()[label.end() :].split(",") if label else [clause]
    fit = [(clause, offer) for clause in clauses if (offer := _make_offer(clause.strip())) is not None]
    # A word alone ("games") says little, unless there is nothing else.
    return [offer for clause, offer in fit if " " in clause.strip()] or [offer for _, offer in fit]


def _make_offer(clause: str) -> Offer | None:
    if _UNFIT.search(clause):
        return None
    text = _LEAD.sub("", _TAIL.sub("", clause))
    for pattern, replacement in _SECOND_PERSON:
        text = pattern.sub(replacement, text)
    is_question = _QUESTION.match(text) is not None
    if is_question and len(text.split()) > MOST_OFFER_WORDS:
        text = text.partition(",")[0]
    if not 0 < len(text.split()) <= MOST_OFFER_WORDS or len(text) < 4:
        return None
    return Offer("explain" if is_question else "help", text, () if is_question else _split_list(text))


def _split_list(text: str) -> tuple[str, ...]:
    """Entries of a list of at least three short entries that stand for themselves."""
    items = tuple(item.strip() for item in re.split(r", (?:and )?| and ", text))
    is_plain = all(0 < len(item.split()) <= 3 and _FUNCTION.isdisjoint(item.lower().split()) for item in items)
    return items if len(items) >= 3 and is_plain else ()


def _list_content_words(topic: str) -> list[str]:
    return [word for word in list_words(topic) if word not in _FUNCTION and word != "people"]


def _stem(word: str) -> str:
    """The beginning of a word that its forms share, roughly."""
    return _DOUBLED.sub(r"\1", _SUFFIX.sub("", word)) if len(word) > 4 else word.removesuffix("s")


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def _lower_first(text: str) -> str:
    """Without the capital of a sentence's beginning; that of an abbreviation stays."""
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] in " -" else text
