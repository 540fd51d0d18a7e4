"""Leases of running requests, for the limits on concurrency; they expire if this server dies."""

import asyncio
import logging
from collections.abc import Callable

from commonweight.messages.response import make_id
from commonweight.store import Database
from commonweight.store.failures import FAILURES, get_reason
from commonweight.store.limits import LEASE_SECONDS, release, renew, take_lease

log = logging.getLogger(__name__)

RENEW_INTERVAL_SECONDS = LEASE_SECONDS / 3
"""Seconds between renewals: one may fail."""


class Leases:
    """Leases held by this server, renewed in the background."""

    def __init__(self, database: Database | None, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._held: dict[str, str] = {}
        self._heart: asyncio.Task[None] | None = None

    async def acquire(self, key_id: str, limit: int) -> str | None:
        """Acquire a lease for a key; None if its limit is reached."""
        assert self._database is not None
        lease_id = make_id("lease")
        async with self._database.write() as connection:
            if not await take_lease(connection, key_id, lease_id, limit, self._now):
                return None
        self._held[lease_id] = key_id
        if self._heart is None:
            self._heart = asyncio.create_task(self._renew_forever())
        return lease_id

    def stop_renewing(self, lease_id: str) -> None:
        """Stop renewing a lease; its row in the database is the caller's to release."""
        self._held.pop(lease_id, None)
        if not self._held and self._heart is not None:
            self._heart.cancel()
            self._heart = None

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_INTERVAL_SECONDS)
            try:
                await self._renew()
            except FAILURES as error:
                log.warning("could not renew the leases of running requests (%s)", get_reason(error))

    async def _renew(self) -> None:
        assert self._database is not None
        held = dict(self._held)
        async with self._database.write() as connection:
            await renew(connection, held.items(), self._now)
            # What ended meanwhile must not come back to life.
            for lease_id in held.keys() - self._held.keys():
                await release(connection, lease_id)
