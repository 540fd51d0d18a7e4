"""Several servers with the same model: who gets a job, and who gets it next if that one fails."""

import hashlib
from collections.abc import Sequence

from commonweight.engines.remote.place import Place

SLACK = 1.25
"""Of the jobs that a server would have if all had the same number, it may have this much more."""


class Places:
    """Keeps the jobs of a conversation in one place, where its prefix is cached, as long as that one has room.

    Rendezvous hashing with bounded loads: a server that comes or goes moves only the conversations that it gets or
    had. Source: https://arxiv.org/abs/1608.01350
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.all = tuple(places)

    @property
    def is_any_well(self) -> bool:
        """Whether a job would find somebody."""
        return any(place.is_well for place in self.all)

    def order(self, session: str) -> list[Place]:
        """The servers that may be asked, the best first."""
        well = [place for place in self.all if place.is_well]
        if not well:
            return []
        most = SLACK * (sum(place.running for place in well) + 1) / len(well)
        return sorted(well, key=lambda place: (place.running >= max(most, 1), _weight(session, place)))


def _weight(session: str, place: Place) -> bytes:
    return hashlib.blake2b(f"{session}\0{place.url}".encode(), digest_size=8).digest()
