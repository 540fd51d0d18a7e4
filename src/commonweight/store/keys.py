"""Table of API keys, which has their SHA-256 instead of the keys."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, or_, select, update
from sqlalchemy.exc import IntegrityError

from commonweight.store.database import Database
from commonweight.store.schema import keys


@dataclass(frozen=True)
class ApiKey:
    """Row of the table ``keys``. Times are seconds since the epoch."""

    id: str
    name: str
    tenant: str
    digest: str
    """SHA-256 of the whole key, in hexadecimal digits."""
    hint: str
    """Its first letters."""
    scopes: str
    """Separated by spaces."""
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    waived: str = ""
    """Principles that are set aside for it, separated by spaces."""

    def is_valid(self, now: float) -> bool:
        """Whether it is accepted at that time: neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class NameTakenError(ValueError):
    """Another key that is not revoked has this name."""


async def add_key(database: Database, key: ApiKey) -> None:
    """Insert a key.

    Raises:
        NameTakenError: another that is not revoked has its name.
    """
    try:
        async with database.write() as connection:
            await connection.execute(keys.insert().values(asdict(key)))
    except IntegrityError as error:  # ids and digests are random
        raise NameTakenError(key.name) from error


async def find_key(database: Database, digest: str) -> ApiKey | None:
    """The key with this digest, also if it is revoked or has expired."""
    found = await _select(database, keys.c.digest == digest)
    return found[0] if found else None


async def list_keys(database: Database) -> list[ApiKey]:
    """All keys there ever were, oldest first."""
    return await _select(database)


async def has_keys(database: Database) -> bool:
    """Whether a key was ever created."""
    async with database.read() as connection:
        return (await connection.execute(select(keys.c.id).limit(1))).first() is not None


async def revoke_keys(database: Database, id_or_name: str, now: float) -> list[ApiKey]:
    """Revoke the key with this id or name, for good; those that were revoked by this call."""
    async with database.write() as connection:
        revoked = await connection.execute(
            update(keys)
            .where(or_(keys.c.id == id_or_name, keys.c.name == id_or_name), keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
            .returning(*keys.c)
        )
        return _keys(revoked.all())


async def _select(database: Database, *where: ColumnElement[bool]) -> list[ApiKey]:
    async with database.read() as connection:
        rows = await connection.execute(select(keys).where(*where).order_by(keys.c.created_at, keys.c.id))
        return _keys(rows.all())


def _keys(rows: Sequence[Row[Any]]) -> list[ApiKey]:
    return [ApiKey(**row._mapping) for row in rows]
