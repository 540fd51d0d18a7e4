"""Whose turn it is: tenants one after the other, and of each tenant its batches one after the other."""

from collections.abc import Iterable
from itertools import count

from commonweight.store.batch_items import OpenBatch


class RoundRobin:
    """Remembers who was served last. A large batch holds up no small one."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str | None], int] = {}
        self._ticks = count(1)

    def order(self, batches: Iterable[OpenBatch]) -> list[OpenBatch]:
        """The batches as they should be served; what was known of others is forgotten."""
        batches = list(batches)
        known = {key for batch in batches for key in ((batch.tenant, None), (batch.tenant, batch.id))}
        self._served = {key: tick for key, tick in self._served.items() if key in known}
        return sorted(batches, key=lambda batch: (self._last(batch.tenant), self._last(batch.tenant, batch.id)))

    def serve(self, batch: OpenBatch) -> None:
        """An item of the batch was taken."""
        tick = next(self._ticks)
        self._served[batch.tenant, None] = self._served[batch.tenant, batch.id] = tick

    def _last(self, tenant: str, batch_id: str | None = None) -> int:
        return self._served.get((tenant, batch_id), 0)
