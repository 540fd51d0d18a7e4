"""Places of an exchange that principles apply to, and what a charter says of those that it was written before.

A charter of the schema ``charter/1`` could not name the four places of ``charter/2``. What comes in at them
is screened in shadow by the principles that apply to ``input``: recorded, and nothing changes. Documents were
results of tools then, so a principle that applies to ``tool_result`` applies to them as it did.
"""

from collections.abc import Mapping
from typing import NamedTuple, get_args

from commonweight.charter.principle import Action, Charter, Mode, Place, Principle

PLACES: tuple[Place, ...] = get_args(Place)
ANSWER_PLACES: tuple[Place, ...] = ("output", "thinking", "tool_input")
"""Places of what the model writes; the others come in."""
REQUEST_PLACES: tuple[Place, ...] = tuple(place for place in PLACES if place not in ANSWER_PLACES)
LATER_PLACES: tuple[Place, ...] = ("system", "document", "history", "tools")
"""Places that a charter of the schema ``charter/1`` cannot name."""


class PlaceRule(NamedTuple):
    """What a principle does at a place."""

    action: Action
    mode: Mode


def find_rules(charter: Charter, principle: Principle) -> Mapping[Place, PlaceRule]:
    """Find what a principle does, by place; a place that is absent is not screened."""
    rules = {place: PlaceRule(action, principle.mode) for place, action in principle.applies_to.items()}
    if charter.schema_ == "charter/1":
        if "tool_result" in rules:
            rules["document"] = rules["tool_result"]
        if "input" in rules:
            mode: Mode = "off" if principle.mode == "off" else "shadow"
            for place in LATER_PLACES:
                rules.setdefault(place, PlaceRule(principle.applies_to["input"], mode))
    return rules


def list_unscreened(charter: Charter, principle: Principle) -> list[Place]:
    """List the places where a principle is not looked for."""
    rules = find_rules(charter, principle)
    return [place for place in PLACES if place not in rules or rules[place].mode == "off"]
