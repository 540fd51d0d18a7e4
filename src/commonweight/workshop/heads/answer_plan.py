"""Plan of labelled answers: which prompt is answered how, so that labels are known before answers are written.

An answer is made by a forced beginning that the model goes on from, and labelled by it: one that complies with a
harmful prompt is harmful, one that declines is not. Heads shall learn neither the beginnings, nor their length,
nor the topic:

- the same compliant beginnings are forced on harmful prompts, on look-alikes and on ordinary ones;
- half of the compliant beginnings, and some of those that decline, are left out of the text that is kept;
- each harmful prompt is answered in both ways;
- ordinary prompts are also answered freely, and declined.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from commonweight.charter.principle import Charter
from commonweight.workshop.heads.dataset import refuses
from commonweight.workshop.heads.sources import LabelledSource, LabelledText

Kind = Literal["complying", "declining", "look-alike", "ordinary"]

MAX_PROMPT_CHARACTERS = 1200
"""Of a prompt that is answered; longer ones are left out."""
KEPT_SHARE = {"complying": 0.5, "declining": 0.8}
"""Of the beginnings of each sort: those that stay in the text."""
FREE_SHARE, DECLINED_SHARE = 0.6, 0.1
"""Of ordinary prompts: those that are answered without a forced beginning, and those that are declined."""
SHARES: dict[Kind, float] = {"complying": 0.4, "declining": 0.25, "look-alike": 0.1, "ordinary": 0.25}
"""Of all answers. Look-alikes are declined as often as ordinary prompts are."""
TEMPERATURES = (0.4, 0.7, 1.0)

COMPLIANT_OPENINGS = (
    "Sure, here is a step-by-step guide:\n\n1.",
    "Sure! Here's what you need to do:\n\n1.",
    "Of course. First,",
    "Absolutely! To begin with,",
    "Yes. The simplest way is to",
    "Here is how it works. You start by",
    "Here's a detailed plan:\n\n**Step 1:**",
    "Step 1:",
    "1.",
    "First, you need to",
    "You will need the following:\n\n-",
    "To do this, you should",
    "The easiest way is to",
    "There are several ways to do this. One of them is to",
    "Let me explain. The first thing to know is that",
    "Happy to help! Begin by",
    "Great question. Most people start with",
    "Okay, so the trick is to",
    "It is quite easy: you just",
    "Here is the text you asked for:\n\n",
    "Here is a draft:\n\n",
    "Title:",
    "Dear friends,",
    "In short, you",
    "A good approach is to",
    "My advice is simple:",
    "Well, people often",
    "The method has three parts. The first is to",
)
DECLINES = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "I can't provide that.",
    "I won't help with this.",
    "Sorry, that is something I don't do.",
    "No, I'm not going to write that.",
    "I have to decline.",
    "I'm not able to give instructions for this.",
    "I am unable to fulfil this request.",
    "As an AI assistant, I can't do that.",
    "That's not something I can help with.",
    "Unfortunately, I can't support this.",
    "I must refuse this request.",
    "I understand why you ask, but I won't answer this.",
    "",
)
REASONS = (
    "It could hurt people.",
    "What you describe is against the law and could do serious harm.",
    "It would be wrong, and somebody could be hurt.",
    "This would put others in danger.",
    "Doing so is illegal almost everywhere.",
    "It goes against what I stand for, which is keeping people safe.",
    "Such a thing causes real harm to real people.",
    "It is neither ethical nor legal.",
    "Everyone deserves to be treated with respect.",
    "There is no safe way to do it.",
    "It would violate somebody's rights.",
    "I don't want to contribute to harm.",
)
OFFERS = (
    "If you are going through a hard time, please talk to",
    "Instead, I can help you with",
    "If you like, we can talk about",
    "I encourage you to",
    "If someone is in danger, please contact",
    "I would be glad to help with something else, for example",
    "Please consider",
    "What I can do is explain why",
    "There are legal and safe alternatives, such as",
    "It is important to",
)


@dataclass(frozen=True)
class PlannedAnswer:
    """An answer that is to be written, with its label."""

    text: str
    """The prompt."""
    is_harmful: bool
    """The answer."""
    kind: Kind
    source: str
    """Name of the prompt's."""
    licence: str
    """Of the prompt."""
    opening: str
    """The forced beginning; empty: the model answers freely."""
    keeps_opening: bool
    declines: bool
    temperature: float
    seed: int


def plan_answers(
    charter: Charter, sources: Sequence[LabelledSource], count: int, seed: int = 0
) -> list[PlannedAnswer]:
    """Plan ``count`` answers, or as many as there are prompts for; a longer plan begins as a shorter one.

    Prompts are drawn evenly from the sources of a role.
    """
    draw = np.random.default_rng(seed)
    restricted = {one.id for one in charter.principles if refuses(one)}

    def is_wanted(source: LabelledSource, row: LabelledText) -> bool:
        if row.answer is not None or len(row.text) > MAX_PROMPT_CHARACTERS:
            return False
        return not row.is_harmful or not source.is_elsewhere(row, source.get_principle(row, charter), restricted)

    def order(role_of: str) -> list[tuple[LabelledSource, LabelledText]]:
        found = []
        for source in sources:
            if source.role not in (role_of, "mixed"):
                continue
            rows = [
                row for row in source.rows if row.is_harmful == (role_of == "harmful") and is_wanted(source, row)
            ]
            found.append([(source, rows[i]) for i in draw.permutation(len(rows))])
        return _interleave(found)

    pools = {role: order(role) for role in ("harmful", "hard", "harmless")}
    used = dict.fromkeys(pools, 0)
    plan: list[PlannedAnswer] = []
    kinds = list(SHARES)
    pairs: list[tuple[LabelledSource, LabelledText]] = []
    while len(plan) < count:
        kind = kinds[int(draw.choice(len(kinds), p=list(SHARES.values())))]
        role = {"complying": "harmful", "declining": "harmful", "look-alike": "hard", "ordinary": "harmless"}[kind]
        if kind == "declining" and pairs:
            source, row = pairs.pop(0)
        else:
            if used[role] >= len(pools[role]):
                if all(used[name] >= len(pool) for name, pool in pools.items()):
                    break
                continue
            source, row = pools[role][used[role]]
            used[role] += 1
            if kind == "complying":
                pairs.append((source, row))
        plan.append(_plan_answer(draw, kind, source, row, len(plan)))
    return plan


def _plan_answer(
    draw: np.random.Generator, kind: Kind, source: LabelledSource, row: LabelledText, number: int
) -> PlannedAnswer:
    chance = float(draw.random())
    declines = kind == "declining" or (kind in ("look-alike", "ordinary") and chance < DECLINED_SHARE)
    is_free = kind == "ordinary" and not declines and chance < DECLINED_SHARE + FREE_SHARE
    opening = "" if is_free else _compose_refusal(draw) if declines else _choose(draw, COMPLIANT_OPENINGS)
    share = KEPT_SHARE["declining" if declines else "complying"]
    return PlannedAnswer(
        text=row.text,
        is_harmful=kind == "complying",
        kind=kind,
        source=source.name,
        licence=source.licence,
        opening=opening.rstrip(),
        keeps_opening=bool(draw.random() < share),
        declines=declines,
        temperature=float(draw.choice(TEMPERATURES)),
        seed=number,
    )


def _compose_refusal(draw: np.random.Generator) -> str:
    """Compose the beginning of a refusal of one to three sentences, the last of them open where it is an offer."""
    parts = [_choose(draw, DECLINES), _choose(draw, REASONS)]
    if draw.random() < 0.6:
        parts.append(_choose(draw, OFFERS))
    return " ".join(part for part in parts if part)


def _choose(draw: np.random.Generator, among: Sequence[str]) -> str:
    return among[int(draw.integers(len(among)))]


def _interleave(
    found: Sequence[Sequence[tuple[LabelledSource, LabelledText]]],
) -> list[tuple[LabelledSource, LabelledText]]:
    """Interleave rows, one of each source in turn, as long as it has any."""
    longest = max(map(len, found), default=0)
    return [rows[i] for i in range(longest) for rows in found if i < len(rows)]
