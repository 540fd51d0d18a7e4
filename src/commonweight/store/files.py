"""Table of uploaded files. Contents are on disk, named by their SHA-256."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commonweight.store.database import Database
from commonweight.store.schema import files, library

_LOCK = 0x66696C6573  # of PostgreSQL's advisory locks
_MAX_IDS_PER_QUERY = 500  # values in one query: databases have limits


@dataclass(frozen=True)
class StoredFile:
    """Row of the table ``files``."""

    id: str
    tenant: str
    key_id: str | None
    filename: str
    mime_type: str
    size_bytes: int
    blob: str | None
    """SHA-256 of the content, in hexadecimal. None: it has expired, and its content is gone."""
    created_at: float
    expires_at: float | None

    def has_expired(self, now: float) -> bool:
        """Whether its content is no longer available."""
        return self.blob is None or (self.expires_at is not None and self.expires_at <= now)


Position = tuple[float, str]
"""Sort key of a file in listings: creation time and id."""


class FileTable:
    """Queries of files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[AsyncConnection]:
        """Exclusive transaction, across all servers of the database.

        So what is done to the folder of contents in it agrees with what is read and written in it.
        """
        async with self._database.write() as connection:
            if self._database.is_postgresql:  # SQLite has but one writer anyway
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield connection

    async def get_folder_name(self) -> str:
        """The name of the folder that holds the contents of this database's files, and of no other's."""
        async with self.exclusive() as connection:
            name = (await connection.execute(select(library.c.folder))).scalar_one_or_none()
            if name is None:
                name = secrets.token_hex(8)
                await connection.execute(insert(library).values(folder=name))
        return name

    async def compute_usage(self, connection: AsyncConnection, tenant: str, now: float) -> int:
        """Bytes of a tenant's live files, without deduplication."""
        total = select(func.coalesce(func.sum(files.c.size_bytes), 0))
        return int((await connection.execute(total.where(files.c.tenant == tenant, _is_live(now)))).scalar_one())

    async def read_usage(self, tenant: str, now: float) -> int:
        """The same, outside of a transaction."""
        async with self._database.read() as connection:
            return await self.compute_usage(connection, tenant, now)

    async def add(self, connection: AsyncConnection, file: StoredFile) -> None:
        """Add a file."""
        await connection.execute(insert(files).values(**asdict(file)))

    async def is_used(self, connection: AsyncConnection, blob: str) -> bool:
        """Whether any file has this content."""
        found = await connection.execute(select(files.c.id).where(files.c.blob == blob).limit(1))
        return found.first() is not None

    async def list_blobs(self) -> set[str]:
        """The contents of all files."""
        async with self._database.read() as connection:
            found = await connection.execute(select(files.c.blob).where(files.c.blob.is_not(None)).distinct())
            return set(found.scalars())

    async def find(self, tenant: str, ids: Sequence[str]) -> list[StoredFile]:
        """Those of the files that are there and the tenant's, newest first."""
        found: list[StoredFile] = []
        async with self._database.read() as connection:
            for start in range(0, len(ids), _MAX_IDS_PER_QUERY):
                some = ids[start : start + _MAX_IDS_PER_QUERY]
                query = select(files).where(files.c.tenant == tenant, files.c.id.in_(some))
                found += [StoredFile(**row) for row in (await connection.execute(query)).mappings()]
        return sorted(found, key=lambda file: (file.created_at, file.id), reverse=True)

    async def list_page(
        self, tenant: str, limit: int, after: Position | None = None, before: Position | None = None
    ) -> tuple[list[StoredFile], bool]:
        """Files of a tenant, newest first, and whether there are more.

        ``after`` one file and ``before`` another, whether or not they are still there. A page before a file is the
        one that ends there.
        """
        position = tuple_(files.c.created_at, files.c.id)
        query: Select[Any] = select(files).where(files.c.tenant == tenant)
        if after is not None:
            query = query.where(position < tuple_(*after))
        if before is not None:
            query = query.where(position > tuple_(*before)).order_by(files.c.created_at, files.c.id)
        else:
            query = query.order_by(files.c.created_at.desc(), files.c.id.desc())
        async with self._database.read() as connection:
            rows = (await connection.execute(query.limit(limit + 1))).mappings().all()
        page = [StoredFile(**row) for row in rows[:limit]]
        return page[::-1] if before is not None else page, len(rows) > limit

    async def delete(self, tenant: str, file_id: str) -> StoredFile | None:
        """Delete a file and return it; None if it does not exist."""
        query = delete(files).where(files.c.tenant == tenant, files.c.id == file_id).returning(*files.c)
        async with self._database.write() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else StoredFile(**row)

    async def expire(self, now: float, forgotten: float) -> None:
        """Take the contents from expired files, and forget those that expired before ``forgotten``."""
        async with self._database.write() as connection:
            await connection.execute(update(files).where(files.c.expires_at <= now).values(blob=None))
            await connection.execute(delete(files).where(files.c.expires_at < forgotten))


def _is_live(now: float) -> ColumnElement[bool]:
    return or_(files.c.expires_at.is_(None), files.c.expires_at > now)
