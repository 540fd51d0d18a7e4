"""Coverage: which heads a guard has for each principle at each place where a charter puts it."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from commonweight.charter.places import ANSWER_PLACES, PLACES
from commonweight.charter.principle import Place
from commonweight.guard.heads.reader import GRAMS, PROSE_ENCODER, STATES, name_members
from commonweight.guard.screening.guard import Guard


class Gap(NamedTuple):
    """A place where a principle is enforced with less than its bundle was compiled for."""

    principle: str
    place: Place
    heads: tuple[str, ...]
    """Those that are left: ``states``, encoders, ``grams``; ``phrases``, which need none."""


def find_gaps(guard: Guard) -> Iterator[Gap]:
    """Find where enforced principles have no head, or lack one for want of an encoder."""
    known = {*guard.scorer.manifest.encoders, PROSE_ENCODER}
    for place in PLACES:
        for principle in guard.find_active_principles(place, ()).refusing:
            heads = tuple(_list_heads(guard, principle.id, place, guard.scorer.encoders))
            if not heads or heads != tuple(_list_heads(guard, principle.id, place, known)):
                yield Gap(principle.id, place, heads)


def _list_heads(guard: Guard, principle: str, place: Place, encoders: Collection[str]) -> Iterator[str]:
    """List the heads that a principle has at a place with these encoders."""
    manifest = guard.scorer.manifest
    if guard.get_principle(principle).phrases:
        yield "phrases"
    if principle in manifest.prose and PROSE_ENCODER in encoders:
        yield PROSE_ENCODER
    if principle == manifest.injection_principle and manifest.injection is not None and place not in ANSWER_PLACES:
        yield GRAMS
    if principle not in manifest.principles:
        return
    if place in ANSWER_PLACES:
        part = STATES if guard.reads_states else GRAMS
        if part in manifest.output:
            yield part
    elif manifest.input:
        if place == "input" and guard.reads_states:
            yield STATES
        yield from name_members(set(encoders).intersection(manifest.encoders)).split("+")
