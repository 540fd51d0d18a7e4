"""Wire models of cache breakpoints."""

from typing import Literal

from commonweight.messages.wire import WireModel

CacheTtl = Literal["5m", "1h"]
"""Lifetime of a cached prefix."""


class CacheControl(WireModel):
    """Cache breakpoint: the prompt up to here is to be cached."""

    type: Literal["ephemeral"]
    ttl: CacheTtl = "5m"


class Cacheable(WireModel):
    """A part of the prompt that may end with a cache breakpoint."""

    cache_control: CacheControl | None = None
