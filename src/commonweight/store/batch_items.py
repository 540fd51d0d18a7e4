"""Queue of batch items for batch runners: claim, lease, record, requeue.

An item is waiting, then running, then has ended in one of four states, and never leaves those. A server that runs
an item holds a lease on it, and only while it does can it say how the item ended: of an item that two servers came
to run, because one was cut off for a while, one result counts. Clocks decide how soon an item is run again, and
nothing else.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, and_, case, func, or_, select, tuple_, update

from commonweight.store.database import Database
from commonweight.store.schema import batch_items, batches, keys

ItemOutcome = Literal["succeeded", "errored", "canceled", "expired"]

MAX_LEASE_SECONDS = 300.0
"""Seconds: more than leases last and the clocks of servers differ."""

_item, _batch = batch_items.c, batches.c
_NO_LEASE = {"owner": None, "lease_until": None}


@dataclass(frozen=True)
class OpenBatch:
    """Batch with items that have not been claimed."""

    id: str
    tenant: str
    key_id: str | None
    waived: frozenset[str] = frozenset()
    """The principles that its key sets aside, as it does for other requests."""


@dataclass(frozen=True)
class Claim:
    """Item leased to this runner."""

    batch: OpenBatch
    number: int
    params: str

    @property
    def item_key(self) -> tuple[str, int]:
        """Primary key of the item: batch id and number."""
        return self.batch.id, self.number


class BatchItemStore:
    """Queries of batch items on behalf of one runner, the owner of their leases."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    async def list_open(self, now: float) -> list[OpenBatch]:
        """Batches in progress that have unclaimed items."""
        has_waiting = select(_item.number).where(_item.state == "waiting", _item.batch_id == _batch.id).exists()
        query = (
            select(_batch.id, _batch.tenant, _batch.key_id, func.coalesce(keys.c.waived, ""))
            .select_from(batches.outerjoin(keys, keys.c.id == _batch.key_id))
            .where(_batch.status == "in_progress", _batch.expires_at > now, has_waiting)
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [OpenBatch(*row[:3], frozenset(row[3].split())) for row in rows]

    async def claim(self, batch: OpenBatch, until: float) -> Claim | None:
        """Lease the next unclaimed item of a batch; None if there is none.

        An item with a lost lease is a suspect: a server may have died of it. This runner holds one suspect at a
        time, so that those which were just in bad company do not share the blame again, and suspects come last.
        """
        other = batch_items.alias().c
        holds_suspect = (
            select(other.number)
            .where(other.state == "running", other.owner == self._owner, other.lost_leases > 0)
            .exists()
        )
        next_one = (
            select(_item.number)
            .where(_item.state == "waiting", _item.batch_id == batch.id)
            .where(or_(_item.lost_leases == 0, ~holds_suspect))
            .order_by(_item.lost_leases, _item.number)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        query = (
            update(batch_items)
            .where(_item.batch_id == batch.id, _item.number == next_one.scalar_subquery())
            .values(state="running", owner=self._owner, lease_until=until)
            .returning(_item.number, _item.params)
        )
        async with self._database.write() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Claim(batch, row.number, row.params)

    async def renew(self, places: Collection[tuple[str, int]], until: float) -> set[tuple[str, int]]:
        """Extend this runner's leases on these items; returns those that it still holds.

        Only on these: items that are leased but no longer run were lost when the database failed, and must expire.
        """
        if not places:
            return set()
        query = (
            update(batch_items)
            .where(*self._is_ours(), tuple_(_item.batch_id, _item.number).in_(sorted(places)))
            .values(lease_until=until)
            .returning(_item.batch_id, _item.number)
        )
        async with self._database.write() as connection:
            return {(batch_id, number) for batch_id, number in await connection.execute(query)}

    async def record(self, batch_id: str, number: int, state: ItemOutcome, result: str | None = None) -> bool:
        """Store the outcome of a leased item. False: the lease was lost, and nothing was changed."""
        query = (
            update(batch_items)
            .where(_item.batch_id == batch_id, _item.number == number, *self._is_ours())
            .values(state=state, result=result, **_NO_LEASE)
        )
        async with self._database.write() as connection:
            return (await connection.execute(query)).rowcount > 0

    async def release_all(self) -> None:
        """Release all leases of this runner."""
        query = update(batch_items).where(*self._is_ours()).values(state="waiting", **_NO_LEASE)
        async with self._database.write() as connection:
            await connection.execute(query)

    async def requeue_expired(self, now: float, max_lost: int, result: str) -> list[tuple[str, int]]:
        """Requeue items whose leases have run out, and count it.

        Those that lost ``max_lost`` leases are errored with ``result`` instead; returns their keys.
        """
        is_running = _item.state == "running"
        # A lease of this runner that has ended was not lost by a death: the database failed when it was taken.
        is_lost = and_(is_running, _item.lease_until < now, _item.owner != self._owner)
        # A lease that lasts longer than any does was taken before the clock was put back.
        is_over = or_(_item.lease_until < now, _item.lease_until > now + MAX_LEASE_SECONDS)
        give_up = (
            update(batch_items)
            .where(is_lost, _item.lost_leases >= max_lost - 1)
            .values(state="errored", result=result, **_NO_LEASE)
            .returning(_item.batch_id, _item.number)
        )
        requeue = update(batch_items).values(state="waiting", **_NO_LEASE)
        async with self._database.write() as connection:
            given_up = [(batch_id, number) for batch_id, number in await connection.execute(give_up)]
            await connection.execute(requeue.where(is_lost).values(lost_leases=_item.lost_leases + 1))
            await connection.execute(requeue.where(is_running, is_over))
        return given_up

    async def list_stopping(self, now: float) -> list[tuple[str, ItemOutcome]]:
        """Canceled and expired batches that have not ended, with the outcome of their remaining items."""
        fate = case((_batch.status == "canceling", "canceled"), else_="expired")
        is_canceled, is_old = _batch.status == "canceling", _batch.expires_at <= now
        query = select(_batch.id, fate).where(is_canceled | and_(_batch.status == "in_progress", is_old))
        async with self._database.read() as connection:
            return [(batch_id, ending) for batch_id, ending in await connection.execute(query)]

    async def settle(self, batch_id: str, ending: ItemOutcome, limit: int) -> bool:
        """Give up to ``limit`` unclaimed items of a batch this outcome; whether more may remain."""
        is_waiting = _item.batch_id == batch_id, _item.state == "waiting"
        some = select(_item.number).where(*is_waiting).order_by(_item.number).limit(limit)
        query = update(batch_items).where(*is_waiting, _item.number.in_(some.scalar_subquery()))
        async with self._database.write() as connection:
            return (await connection.execute(query.values(state=ending))).rowcount > 0

    async def list_finished(self) -> list[str]:
        """Batches that have not ended, although all of their items have."""
        is_left = _item.batch_id == _batch.id, _item.state.in_(("waiting", "running"))
        query = select(_batch.id).where(
            _batch.status.in_(("in_progress", "canceling")), ~select(_item.number).where(*is_left).exists()
        )
        async with self._database.read() as connection:
            return list(await connection.scalars(query))

    def _is_ours(self) -> tuple[ColumnElement[bool], ...]:
        return _item.state == "running", _item.owner == self._owner
