"""Usage records, one per turn and append-only, with their sums."""

import functools
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Integer, cast, delete, func, literal, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from commonweight.store.database import Database
from commonweight.store.schema import contents, keys, usage

SECONDS_PER_DAY = 86400
By = Literal["day", "key", "tenant", "model"]


@dataclass(frozen=True)
class UsageRecord:
    """Row of the table ``usage``: one turn and its tokens. Times are in seconds, ``at`` since the epoch."""

    request_id: str
    at: float
    tenant: str
    key_id: str | None
    kind: str
    """``message``, or ``batch``."""
    model: str
    input_tokens: int
    cache_read_tokens: int
    cache_5m_tokens: int
    cache_1h_tokens: int
    output_tokens: int
    thinking_tokens: int
    stop_reason: str | None
    error: str | None
    """The error's type. Without it and without a stop reason, the client left."""
    verdict: str | None
    first_token_seconds: float | None
    seconds: float


@dataclass(frozen=True)
class StoredContent:
    """Request and response of one turn, as JSON."""

    request_id: str
    tenant: str
    request: str
    response: str | None
    expires_at: float


@dataclass(frozen=True)
class Total:
    """Sums of one group of records."""

    group: dict[By, str]
    requests: int
    errors: int
    input_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    output_tokens: int


async def add_usage(
    database: Database, records: Sequence[UsageRecord], kept: Sequence[StoredContent] = ()
) -> None:
    """Write records, and the contents that are kept. What is there already, after a doubtful failure, stays."""
    async with database.write() as connection:
        for table, rows in ((usage, records), (contents, kept)):
            if rows:
                insert = (postgresql if database.is_postgresql else sqlite).insert(table)
                await connection.execute(insert.on_conflict_do_nothing(), [asdict(row) for row in rows])


async def find_usage(database: Database, request_id: str) -> UsageRecord | None:
    """The record of one turn."""
    async with database.read() as connection:
        row = (await connection.execute(select(usage).where(usage.c.request_id == request_id))).first()
    return None if row is None else UsageRecord(**row._mapping)


async def forget_contents(database: Database, now: float) -> int:
    """Delete expired contents; returns their number."""
    async with database.write() as connection:
        return (await connection.execute(delete(contents).where(contents.c.expires_at <= now))).rowcount


async def compute_totals(
    database: Database,
    by: Sequence[By],
    since: float | None = None,
    key: str | None = None,
    tenant: str | None = None,
) -> list[Total]:
    """Sums for each group, in order; of one key (its id or name) or tenant, if wanted. Days are those of UTC."""
    async with database.read() as connection:
        groups = [_group(name, connection).label(f"by_{name}") for name in by]
        where = []
        if since is not None:
            where.append(usage.c.at >= since)
        if key is not None:
            where.append(or_(usage.c.key_id == key, keys.c.name == key))
        if tenant is not None:
            where.append(usage.c.tenant == tenant)
        query = (
            select(
                *groups,
                func.count().label("requests"),
                func.count(usage.c.error).label("errors"),
                *(_sum(name, *columns) for name, columns in _SUMS.items()),
            )
            .select_from(usage.outerjoin(keys, keys.c.id == usage.c.key_id))
            .where(*where)
            .group_by(*groups)
            .order_by(*groups)
        )
        rows = (await connection.execute(query)).all()
    return [Total(dict(zip(by, map(str, row), strict=False)), *row[len(by) :]) for row in rows]


_SUMS = {
    "input_tokens": (usage.c.input_tokens,),
    "cache_write_tokens": (usage.c.cache_5m_tokens, usage.c.cache_1h_tokens),
    "cache_read_tokens": (usage.c.cache_read_tokens,),
    "output_tokens": (usage.c.output_tokens,),
}


def _sum(name: str, *columns: ColumnElement[int]) -> ColumnElement[int]:
    return func.sum(functools.reduce(operator.add, columns), type_=BigInteger).label(name)


def _group(name: By, connection: AsyncConnection) -> ColumnElement[Any]:
    match name:
        case "key":
            return func.coalesce(keys.c.name, usage.c.key_id, literal("-"))
        case "day" if connection.dialect.name == "postgresql":
            return func.to_char(func.timezone("UTC", func.to_timestamp(usage.c.at)), "YYYY-MM-DD")
        case "day":
            return func.date(cast(usage.c.at, Integer), "unixepoch")
        case _:
            return usage.c[name]
