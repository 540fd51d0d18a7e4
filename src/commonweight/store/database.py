"""Database connection, SQLite or PostgreSQL, with migrations on opening."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from commonweight.store.urls import STATEMENT_TIMEOUT_SECONDS, DatabaseError, hide_password, parse_database_url

_MIGRATIONS = Path(__file__).with_name("migrations")
_UNUSABLE = (DBAPIError, OSError, ValueError, OverflowError)
"""What opening raises; the last two of a port or an option in the URL that makes no sense."""
_LOCK = 0x636F6D6D6F6E  # of PostgreSQL's advisory locks: one server migrates at a time


class Database:
    """Connection pool of one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Database"]:
        """Open the database at a URL, such as ``sqlite+aiosqlite:////folder/commonweight.db``.

        Raises:
            DatabaseError: it cannot be reached, or a newer version of this program has changed it.
        """
        engine = _make_engine(url)
        try:
            try:
                await _upgrade_tables(engine)
            except _UNUSABLE as error:
                raise DatabaseError(
                    f"cannot use the database at {hide_password(url)}: {_get_reason(error)}"
                ) from error
            yield cls(engine)
        finally:
            await engine.dispose()

    @property
    def is_postgresql(self) -> bool:
        """Whether it is PostgreSQL; SQLite otherwise."""
        return self._engine.dialect.name == "postgresql"

    async def ping(self) -> None:
        """Run an empty query. Raises the driver's errors."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read from."""
        async with self._engine.connect() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Transaction: committed at the end of the block, rolled back on an error.

        SQLite has one writer at a time, and takes the lock at once, so that what was read in it stays true.
        """
        async with self._engine.connect() as connection:
            if not self.is_postgresql:
                await connection.execute(text("BEGIN IMMEDIATE"))
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(connection.rollback)  # of what was not committed
                yield connection
                await connection.commit()


@dataclass(frozen=True)
class Revisions:
    """Migration state: the revision of the tables, and the newest one."""

    current: str | None
    """None: there are none yet."""
    newest: str
    """The revision that this version needs, and migrates to."""
    is_known: bool
    """False: a newer version of this program has changed them."""


async def read_revisions(url: str) -> Revisions:
    """Read the migration state of the database at a URL, without changing it.

    Raises:
        DatabaseError: it cannot be reached.
    """
    engine = _make_engine(url)
    try:
        file = None if engine.dialect.name == "postgresql" else engine.url.database
        if file is not None and not await asyncio.to_thread(Path(file).exists):
            return _read_revisions(None)  # to look would make it
        async with engine.connect() as connection:
            return await connection.run_sync(_read_revisions)
    except _UNUSABLE as error:
        raise DatabaseError(f"cannot use the database at {hide_password(url)}: {_get_reason(error)}") from error
    finally:
        await engine.dispose()


def make_sqlite_url(folder: Path) -> str:
    """URL of the SQLite database in a data folder; creates both, readable by this user only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "commonweight.db"
    # The folder may have been there, open to all. SQLite gives the files beside this one the same mode.
    file.touch(mode=0o600)
    return f"sqlite+aiosqlite:///{file}"


def _make_engine(url: str) -> AsyncEngine:
    parsed, arguments = parse_database_url(url)
    if parsed.drivername.startswith("postgresql"):
        return create_async_engine(parsed, pool_pre_ping=True, hide_parameters=True, connect_args=arguments)
    engine = create_async_engine(parsed, hide_parameters=True, connect_args=arguments)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - what the driver makes
        # Transactions begin where `write` says, not where the driver guesses.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    rollbacks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly

    @event.listens_for(engine.sync_engine, "invalidate")
    def roll_back(connection: Any, _record: object, _error: BaseException | None) -> None:  # noqa: ANN401
        # The connection of a canceled task is closed, but SQLite ends its transaction only with the last of its
        # statements, which a traceback may hold: until then no other could write. In the driver's queue this
        # comes before the closing.
        rollbacks.add(task := asyncio.ensure_future(_roll_back(connection.driver_connection)))
        task.add_done_callback(rollbacks.discard)

    return engine


async def _roll_back(connection: aiosqlite.Connection) -> None:
    with contextlib.suppress(ValueError, sqlite3.Error):  # it was closed already
        await connection.rollback()


async def _upgrade_tables(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        else:
            await _enable_wal(connection)
            await connection.execute(text("BEGIN IMMEDIATE"))
        await connection.run_sync(_run_migrations)
        await connection.commit()


async def _enable_wal(connection: AsyncConnection) -> None:
    """Switch the file to write-ahead logging, so that a writer does not block readers; permanent."""
    deadline = time.monotonic() + STATEMENT_TIMEOUT_SECONDS
    while True:
        try:
            await connection.execute(text("PRAGMA journal_mode=WAL"))
        except OperationalError as error:
            # Another opens it at this moment; for this one statement SQLite does not wait by itself.
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            return


def _run_migrations(connection: Connection) -> None:
    found = _read_revisions(connection)
    if not found.is_known:
        raise DatabaseError(
            "the database was changed by a newer version of Commonweight "
            f"(its version is {found.current}); run that one"
        )
    config = _make_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _read_revisions(connection: Connection | None) -> Revisions:
    scripts = ScriptDirectory.from_config(_make_config())
    current = MigrationContext.configure(connection).get_current_revision() if connection else None
    known = {None, *(script.revision for script in scripts.walk_revisions())}
    return Revisions(current, scripts.get_current_head() or "", current in known)


def _make_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _get_reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
