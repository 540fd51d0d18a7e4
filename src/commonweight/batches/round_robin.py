"""Round-robin scheduling of batches, by tenant and then by batch."""

from collections.abc import Iterable
from itertools import count

from commonweight.store.batch_items import OpenBatch


class RoundRobin:
    """Orders batches by when their tenant, and then they themselves, were last served."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str | None], int] = {}
        self._ticks = count(1)

    def order(self, batches: Iterable[OpenBatch]) -> list[OpenBatch]:
        """The batches, least recently served first; state of other batches is dropped."""
        batches = list(batches)
        known = {key for batch in batches for key in ((batch.tenant, None), (batch.tenant, batch.id))}
        self._served = {key: tick for key, tick in self._served.items() if key in known}
        return sorted(
            batches,
            key=lambda batch: (
                self._find_last_served(batch.tenant),
                self._find_last_served(batch.tenant, batch.id),
            ),
        )

    def serve(self, batch: OpenBatch) -> None:
        """Note that an item of the batch was claimed."""
        tick = next(self._ticks)
        self._served[batch.tenant, None] = self._served[batch.tenant, batch.id] = tick

    def _find_last_served(self, tenant: str, batch_id: str | None = None) -> int:
        return self._served.get((tenant, batch_id), 0)
