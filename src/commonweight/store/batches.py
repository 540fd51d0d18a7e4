"""Table of Message Batches: upload, listing, results, cancellation, removal.

Unfinished uploads and deleted batches are invisible to clients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from sqlalchemy import func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commonweight.store.database import Database
from commonweight.store.schema import batch_items, batches

VISIBLE = ("in_progress", "canceling", "ended")


@dataclass(frozen=True)
class Batch:
    """Row of the table ``batches``."""

    id: str
    tenant: str
    key_id: str | None
    status: str
    total: int
    succeeded: int
    errored: int
    canceled: int
    expired: int
    created_at: float
    expires_at: float
    ended_at: float | None
    cancel_initiated_at: float | None
    archived_at: float | None


@dataclass(frozen=True)
class NewItem:
    """Request of a batch that is being uploaded."""

    number: int
    custom_id: str
    params: str


@dataclass(frozen=True)
class ItemResult:
    """Outcome of an item; ``result`` is JSON, or None if the state alone is the result."""

    number: int
    custom_id: str
    state: str
    result: str | None


_COLUMNS = [batches.c[field.name] for field in fields(Batch)]
_NEWEST_FIRST = (batches.c.created_at.desc(), batches.c.id.desc())
_OLDEST_FIRST = (batches.c.created_at, batches.c.id)


class BatchStore:
    """Queries of batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, batch_id: str, tenant: str, key_id: str | None, now: float, until: float) -> None:
        """Start an upload, which counts as abandoned unless it goes on by ``until``."""
        counts = dict.fromkeys(("total", "succeeded", "errored", "canceled", "expired"), 0)
        row = {"id": batch_id, "tenant": tenant, "key_id": key_id, "created_at": now, "expires_at": until}
        async with self._database.write() as connection:
            await connection.execute(batches.insert().values(**row, **counts, status="receiving"))

    async def add(self, batch_id: str, items: Sequence[NewItem], until: float) -> None:
        """Store some of its items.

        Raises:
            LookupError: it was given up meanwhile.
        """
        rows = [{**vars(item), "batch_id": batch_id, "state": "waiting"} for item in items]
        async with self._database.write() as connection:
            if not await _change(connection, batch_id, ("receiving",), expires_at=until):
                raise LookupError(batch_id)
            await connection.execute(batch_items.insert(), rows)

    async def complete(self, batch_id: str, total: int, now: float, expires_at: float) -> Batch:
        """Finish an upload: the batch becomes visible.

        Raises:
            LookupError: it was given up meanwhile.
        """
        async with self._database.write() as connection:
            changes = {"status": "in_progress", "total": total, "created_at": now, "expires_at": expires_at}
            if not await _change(connection, batch_id, ("receiving",), **changes):
                raise LookupError(batch_id)
            return Batch(*(await connection.execute(select(*_COLUMNS).where(batches.c.id == batch_id))).one())

    async def get(self, tenant: str, batch_id: str) -> Batch | None:
        """A tenant's batch."""
        async with self._database.read() as connection:
            return await _select_visible(connection, tenant, batch_id)

    async def list_newest(
        self, tenant: str, limit: int, after: Batch | None = None, before: Batch | None = None
    ) -> tuple[list[Batch], bool]:
        """A page, newest first, and whether there is more.

        It begins after the batch ``after``; where ``before`` is given, it is the page that ends at that batch, and
        more are newer ones.
        """
        query = select(*_COLUMNS).where(batches.c.tenant == tenant, batches.c.status.in_(VISIBLE))
        place = tuple_(batches.c.created_at, batches.c.id)
        if after is not None:
            query = query.where(place < (after.created_at, after.id))
        if before is not None:
            query = query.where(place > (before.created_at, before.id))
        query = query.order_by(*(_NEWEST_FIRST if before is None else _OLDEST_FIRST)).limit(limit + 1)
        async with self._database.read() as connection:
            found = [Batch(*row) for row in await connection.execute(query)]
        page = found[:limit]
        return page if before is None else page[::-1], len(found) > limit

    async def cancel(self, tenant: str, batch_id: str, now: float) -> Batch | None:
        """Set a batch in progress to canceling; others stay as they are."""
        async with self._database.write() as connection:
            batch = await _select_visible(connection, tenant, batch_id)
            if batch is not None:
                await _change(connection, batch_id, ("in_progress",), status="canceling", cancel_initiated_at=now)
            return await _select_visible(connection, tenant, batch_id)

    async def delete(self, batch_id: str) -> bool:
        """Mark an ended batch or unfinished upload as deleted; :meth:`clear` removes its rows."""
        async with self._database.write() as connection:
            return await _change(connection, batch_id, ("ended", "receiving"), status="deleted")

    async def read_results(self, batch_id: str, after: int, limit: int) -> list[ItemResult]:
        """Results from the one after number ``after`` on."""
        columns = [batch_items.c[field.name] for field in fields(ItemResult)]
        query = (
            select(*columns)
            .where(batch_items.c.batch_id == batch_id, batch_items.c.number > after)
            .order_by(batch_items.c.number)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [ItemResult(*row) for row in await connection.execute(query)]

    # Maintenance

    async def delete_abandoned(self, now: float) -> None:
        """Mark abandoned uploads as deleted."""
        async with self._database.write() as connection:
            stale = batches.c.status == "receiving", batches.c.expires_at < now
            await connection.execute(update(batches).where(*stale).values(status="deleted"))

    async def archive(self, created_before: float, now: float) -> None:
        """Mark the results of old batches for removal; the batches stay."""
        old = batches.c.status == "ended", batches.c.archived_at.is_(None), batches.c.created_at < created_before
        async with self._database.write() as connection:
            await connection.execute(update(batches).where(*old).values(archived_at=now))

    async def purge_deleted(self, limit: int) -> bool:
        """Remove up to ``limit`` invisible rows; whether more may remain."""
        item = batch_items.c
        gone = or_(batches.c.status == "deleted", batches.c.archived_at.is_not(None))
        has_items = select(item.number).where(item.batch_id == batches.c.id).exists()
        async with self._database.write() as connection:
            batch_id = await connection.scalar(select(batches.c.id).where(gone, has_items).limit(1))
            if batch_id is None:
                await connection.execute(batches.delete().where(batches.c.status == "deleted", ~has_items))
                return False
            some = select(item.number).where(item.batch_id == batch_id).order_by(item.number).limit(limit)
            await connection.execute(
                batch_items.delete().where(item.batch_id == batch_id, item.number.in_(some.scalar_subquery()))
            )
            return True

    async def end_if_done(self, batch_id: str, now: float) -> bool:
        """End the batch if all of its items have ended."""
        item = batch_items.c
        is_left = item.batch_id == batch_id, item.state.in_(("waiting", "running"))
        async with self._database.read() as connection:
            if await connection.scalar(select(item.number).where(*is_left).limit(1)) is not None:
                return False
        counted = (
            select(item.state, func.count().label("items")).where(item.batch_id == batch_id).group_by(item.state)
        )
        async with self._database.write() as connection:
            # Items never go back from what they ended in, so what was read before still holds.
            counts = {row.state: row.items for row in await connection.execute(counted)}
            return await _change(
                connection, batch_id, ("in_progress", "canceling"), status="ended", ended_at=now, **counts
            )


async def _select_visible(connection: AsyncConnection, tenant: str, batch_id: str) -> Batch | None:
    query = select(*_COLUMNS).where(
        batches.c.id == batch_id, batches.c.tenant == tenant, batches.c.status.in_(VISIBLE)
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Batch(*row)


async def _change(connection: AsyncConnection, batch_id: str, states: Sequence[str], **values: object) -> bool:
    """Change a batch if it is in one of these states; whether it was."""
    changed = update(batches).where(batches.c.id == batch_id, batches.c.status.in_(states)).values(**values)
    return (await connection.execute(changed)).rowcount > 0
