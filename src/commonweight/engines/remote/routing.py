"""Routing of jobs to upstreams: session affinity with bounded loads, and order of failover."""

import hashlib
from collections.abc import Sequence

from commonweight.engines.remote.upstream import Upstream

LOAD_SLACK = 1.25
"""Maximum load of an upstream, relative to the mean load of all."""


class UpstreamPool:
    """Routes the jobs of a session to one upstream, where its prefix is cached, as long as that one has room.

    Rendezvous hashing with bounded loads: an upstream that is added or removed moves only its own sessions.
    Source: https://arxiv.org/abs/1608.01350
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)

    @property
    def is_any_available(self) -> bool:
        """Whether any upstream is available."""
        return any(upstream.is_available for upstream in self.upstreams)

    def rank_upstreams(self, session: str) -> list[Upstream]:
        """Available upstreams in order of preference for a session."""
        well = [upstream for upstream in self.upstreams if upstream.is_available]
        if not well:
            return []
        most = LOAD_SLACK * (sum(upstream.running for upstream in well) + 1) / len(well)
        return sorted(
            well, key=lambda upstream: (upstream.running >= max(most, 1), _compute_weight(session, upstream))
        )


def _compute_weight(session: str, upstream: Upstream) -> bytes:
    return hashlib.blake2b(f"{session}\0{upstream.url}".encode(), digest_size=8).digest()
