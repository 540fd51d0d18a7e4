"""Several servers with the same model: who gets a job, and who gets it next if that one fails."""

import hashlib
from collections.abc import Sequence

from commonweight.engines.remote.upstream import Upstream

LOAD_SLACK = 1.25
"""Of the jobs that a server would have if all had the same number, it may have this much more."""


class UpstreamPool:
    """Keeps the jobs of a conversation in one place, where its prefix is cached, as long as that one has room.

    Rendezvous hashing with bounded loads: a server that comes or goes moves only the conversations that it gets or
    had. Source: https://arxiv.org/abs/1608.01350
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)

    @property
    def is_any_available(self) -> bool:
        """Whether a job would find somebody."""
        return any(upstream.is_available for upstream in self.upstreams)

    def rank_upstreams(self, session: str) -> list[Upstream]:
        """The servers that may be asked, the best first."""
        well = [upstream for upstream in self.upstreams if upstream.is_available]
        if not well:
            return []
        most = LOAD_SLACK * (sum(upstream.running for upstream in well) + 1) / len(well)
        return sorted(well, key=lambda upstream: (upstream.running >= max(most, 1), _weight(session, upstream)))


def _weight(session: str, upstream: Upstream) -> bytes:
    return hashlib.blake2b(f"{session}\0{upstream.url}".encode(), digest_size=8).digest()
