"""Memory of values by tenant, bounded for all together, of which each tenant has a fair share."""

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

MAX_SHARES = 16
"""Into which the memory is divided at most, so that many idle tenants leave room for the others."""

V = TypeVar("V")


class _Kept(NamedTuple, Generic[V]):
    value: V
    size: int


class _Values(Generic[V]):
    """One tenant's values, the oldest first."""

    def __init__(self) -> None:
        self.kept: OrderedDict[bytes, _Kept[V]] = OrderedDict()
        self.size = 0

    def remove(self, name: bytes) -> int:
        size = self.kept.pop(name).size
        self.size -= size
        return size


class TenantMemory(Generic[V]):
    """Keeps values by tenant and name, up to a total size.

    Where there is no room, the oldest value goes of a tenant that holds more than its share: of the one that adds,
    before that of another. Where no tenant does, it is that of the tenant that was idle longest.

    Args:
        capacity: the total size, in the unit of the values' sizes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tenants: OrderedDict[str, _Values[V]] = OrderedDict()
        """The tenant that was idle longest first."""
        self.size = 0

    def get(self, tenant: str, name: bytes) -> V | None:
        """Get a value, which is the tenant's newest from now on."""
        values = self._tenants.get(tenant)
        if values is None or name not in values.kept:
            return None
        self._tenants.move_to_end(tenant)
        values.kept.move_to_end(name)
        return values.kept[name].value

    def put(self, tenant: str, name: bytes, value: V, size: int = 1) -> None:
        """Put a value; one that is larger than a share is not kept."""
        self.remove(tenant, name)
        if size > max(1, self._capacity // MAX_SHARES):
            return
        values = self._tenants.setdefault(tenant, _Values())
        self._tenants.move_to_end(tenant)
        values.kept[name] = _Kept(value, size)
        values.size += size
        self.size += size
        while self.size > self._capacity:
            self._remove_oldest(self._choose_tenant(tenant))

    def remove(self, tenant: str, name: bytes) -> None:
        """Remove a value, if it is there."""
        values = self._tenants.get(tenant)
        if values is None or name not in values.kept:
            return
        self.size -= values.remove(name)
        if not values.kept:
            del self._tenants[tenant]

    def _choose_tenant(self, adding: str) -> str:
        share = max(1, self._capacity // min(MAX_SHARES, len(self._tenants)))
        if self._tenants[adding].size > share:
            return adding
        return next((name for name, one in self._tenants.items() if one.size > share), next(iter(self._tenants)))

    def _remove_oldest(self, tenant: str) -> None:
        self.remove(tenant, next(iter(self._tenants[tenant].kept)))
