"""Rate limits of API keys: token buckets, and leases of running requests for the limit on concurrency.

Every function is one step of the caller's transaction. Servers that share a PostgreSQL go by its clock; those
that share a SQLite file are on one machine, and go by that. The time is asked for once a row is locked, so that it
never runs backwards between two takers of the same allowance.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, Double, cast, delete, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from commonweight.store.schema import allowances, keys, leases

SECONDS_PER_MINUTE = 60.0
LEASE_SECONDS = 30.0
"""Seconds after which the requests of a server that died stop counting."""
_CLOCK_RESOLUTION_SECONDS = 1e-6
"""Seconds; times since the epoch are floating point numbers, and no more exact than this."""

Now = Callable[[], float]


async def take(
    connection: AsyncConnection, key_id: str, kind: str, capacity: int, amount: int, now: Now = time.time
) -> tuple[bool, float]:
    """Take from a token bucket of ``capacity`` that refills completely in a minute.

    Whether there was enough, and what is left now. What is more than it ever holds is given when it is full, and
    leaves it in debt. Nothing that clocks do gives more than a full one, or keeps it from filling up.
    """
    at, is_this = _clock(connection, now), _match(key_id, kind)
    level = _refill(connection, capacity, at)
    need = min(amount, capacity) - _CLOCK_RESOLUTION_SECONDS * capacity / SECONDS_PER_MINUTE
    first = _insert(connection, allowances).values(
        key_id=key_id, kind=kind, level=float(capacity - amount), updated_at=at
    )
    taken = await connection.execute(
        first.on_conflict_do_update(
            index_elements=["key_id", "kind"],
            set_={"level": level - amount, "updated_at": at},
            where=level >= need,
        ).returning(allowances.c.level)
    )
    left = taken.scalar_one_or_none()
    if left is not None:
        return True, left
    # Written down even so: if the clock was put back, what it says now is what counts from here on.
    refused = update(allowances).where(is_this).values(level=level, updated_at=at).returning(allowances.c.level)
    return False, (await connection.execute(refused)).scalar_one()


async def settle(
    connection: AsyncConnection, key_id: str, kind: str, capacity: int, amount: int, now: Now = time.time
) -> None:
    """Correct an earlier :func:`take` by the difference to actual use; may leave a debt, negative gives back."""
    at = _clock(connection, now)
    level = _least(connection, literal(float(capacity)), _refill(connection, capacity, at) - amount)
    await connection.execute(update(allowances).where(_match(key_id, kind)).values(level=level, updated_at=at))


async def take_lease(
    connection: AsyncConnection, key_id: str, lease_id: str, limit: int, now: Now = time.time
) -> bool:
    """Take one of the ``limit`` leases of a key for :data:`LEASE_SECONDS`; false if all are taken."""
    if _is_postgresql(connection):  # serialises counting; SQLite has one writer anyway
        await connection.execute(select(keys.c.id).where(keys.c.id == key_id).with_for_update(key_share=True))
    at = _clock(connection, now)
    is_own = leases.c.key_id == key_id
    # One that ends later than any could was taken before the clock was put back.
    is_over = or_(leases.c.expires_at <= at, leases.c.expires_at > at + LEASE_SECONDS + 1)
    await connection.execute(delete(leases).where(is_own, is_over))
    taken = await connection.execute(select(func.count()).select_from(leases).where(is_own))
    if taken.scalar_one() >= limit:
        return False
    await connection.execute(leases.insert().values(id=lease_id, key_id=key_id, expires_at=at + LEASE_SECONDS))
    return True


async def renew(connection: AsyncConnection, held: Collection[tuple[str, str]], now: Now = time.time) -> None:
    """Hold leases (their ids, and their keys') for :data:`LEASE_SECONDS` from now, also those that were lost."""
    at = _clock(connection, now)
    rows = _insert(connection, leases).values(
        [{"id": lease_id, "key_id": key_id, "expires_at": at + LEASE_SECONDS} for lease_id, key_id in sorted(held)]
    )
    await connection.execute(
        rows.on_conflict_do_update(index_elements=["id"], set_={"expires_at": rows.excluded.expires_at})
    )


async def release(connection: AsyncConnection, lease_id: str) -> None:
    """Give a lease back."""
    await connection.execute(delete(leases).where(leases.c.id == lease_id))


def _match(key_id: str, kind: str) -> ColumnElement[bool]:
    return (allowances.c.key_id == key_id) & (allowances.c.kind == kind)


def _refill(connection: AsyncConnection, capacity: int, at: ColumnElement[float]) -> ColumnElement[float]:
    elapsed = _greatest(connection, literal(0.0), at - allowances.c.updated_at)
    return _least(
        connection, literal(float(capacity)), allowances.c.level + elapsed * (capacity / SECONDS_PER_MINUTE)
    )


def _clock(connection: AsyncConnection, now: Now) -> ColumnElement[float]:
    if _is_postgresql(connection):
        return cast(func.extract("epoch", func.clock_timestamp()), Double)
    return literal(now(), Double)


def _least(connection: AsyncConnection, *of: ColumnElement[float]) -> ColumnElement[float]:
    return func.least(*of, type_=Double) if _is_postgresql(connection) else func.min(*of, type_=Double)


def _greatest(connection: AsyncConnection, *of: ColumnElement[float]) -> ColumnElement[float]:
    return func.greatest(*of, type_=Double) if _is_postgresql(connection) else func.max(*of, type_=Double)


def _insert(connection: AsyncConnection, table: Any) -> Any:  # noqa: ANN401 - the dialects share no type
    return (postgresql if _is_postgresql(connection) else sqlite).insert(table)


def _is_postgresql(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "postgresql"
