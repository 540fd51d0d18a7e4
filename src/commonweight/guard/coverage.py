"""Coverage: which heads a guard has for each principle at each place where a charter puts it."""

from collections.abc import Iterator
from typing import NamedTuple

from commonweight.charter.places import ANSWER_PLACES, PLACES
from commonweight.charter.principle import Place
from commonweight.guard.guard import Guard
from commonweight.guard.reader import PROSE_ENCODER, STATES, name_members


class Gap(NamedTuple):
    """A place where a principle is enforced with less than its bundle was compiled for."""

    principle: str
    place: Place
    heads: tuple[str, ...]
    """Those that are left: ``states``, encoders, ``grams``; ``phrases``, which need none."""


def find_gaps(guard: Guard) -> Iterator[Gap]:
    """Find where enforced principles have no head, or lack the one that needs the text encoder."""
    for place in PLACES:
        for principle in guard.find_active_principles(place, ()).refusing:
            heads = tuple(_list_heads(guard, principle.id, place))
            lacks_encoder = guard.scorer.members != name_members(guard.scorer.manifest.encoders)
            is_lower = place not in ANSWER_PLACES and lacks_encoder
            if not heads or is_lower:
                yield Gap(principle.id, place, heads)


def _list_heads(guard: Guard, principle: str, place: Place) -> Iterator[str]:
    manifest = guard.scorer.manifest
    if guard.get_principle(principle).phrases:
        yield "phrases"
    if principle in manifest.prose and guard.scorer.has_encoder:
        yield PROSE_ENCODER
    if principle == manifest.injection_principle and manifest.injection is not None and place not in ANSWER_PLACES:
        yield "grams"
    if principle not in manifest.principles:
        return
    if place in ANSWER_PLACES:
        part = "states" if guard.reads_states else "grams"
        if part in manifest.output:
            yield part
        return
    if guard.scorer.members not in manifest.input:
        return
    if place == "input" and guard.reads_states:
        yield STATES
    yield from guard.scorer.members.split("+")
