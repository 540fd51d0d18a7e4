"""Databases for tests: each test runs on SQLite, and on a real PostgreSQL where that is installed."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text

from commonweight.store import Database, make_sqlite_url

_ACCOUNT = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
_numbers = itertools.count()


def _program(name: str) -> str | None:
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
    return shutil.which(name) or (debian[-1] if debian else None)


class Cluster:
    """A PostgreSQL of its own, which tests may stop and start."""

    def __init__(self, server: str, folder: Path) -> None:
        self.folder = folder
        """Of its socket."""
        # Nothing needs to survive: without waiting for the disk the tests are much faster.
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "max_connections": "50",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._command = [server, "-D", str(folder / "data"), *options]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; connections are taken a moment later."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, user=_ACCOUNT, cwd="/", stdout=subprocess.DEVNULL, stderr=log
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it if it runs. SIGQUIT is as if it crashed."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None


@contextlib.contextmanager
def postgresql() -> Iterator[Cluster]:
    """A cluster of its own, thrown away afterwards."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with tempfile.TemporaryDirectory(prefix="cw-pg-") as name:
        folder = Path(name)
        if _ACCOUNT:
            shutil.chown(folder, _ACCOUNT)
        command = [
            initdb,
            "--pgdata",
            str(folder / "data"),
            "--username",
            "postgres",
            "--no-sync",
            "--auth",
            "trust",
        ]
        subprocess.run(command, user=_ACCOUNT, cwd="/", check=True, capture_output=True)
        cluster = Cluster(server, folder)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def postgresql_folder() -> Iterator[Path]:
    """One cluster for all tests."""
    with postgresql() as cluster:
        yield cluster.folder


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return make_sqlite_url(tmp_path / "data")
    return await empty_database(request.getfixturevalue("postgresql_folder"))


async def empty_database(folder: Path) -> str:
    """The URL of a new database of the cluster whose socket lies there."""
    name = f"test_{next(_numbers)}"
    connection = await _connected(folder)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return f"postgresql+asyncpg://postgres@/{name}?host={folder}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database, open."""
    async with Database.open(database_url) as database:
        yield database


class Clock:
    """What databases take for the time: it goes on when a test says so, and not with how busy a machine is."""

    def __init__(self, database: Database) -> None:
        self.at = 1_000_000.0
        self._database = database

    def __call__(self) -> float:
        return self.at

    async def forward(self, seconds: float) -> None:
        """Put it forward."""
        self.at += seconds
        await self.show()

    async def show(self) -> None:
        """Let PostgreSQL, which has a clock of its own, go by this one."""
        if self._database.is_postgresql:
            async with self._database.write() as connection:
                await connection.execute(text("UPDATE clock.now SET at = :at"), {"at": self.at})


@pytest.fixture
async def database_clock(database: Database) -> Clock:
    """The clock of the database."""
    clock = Clock(database)
    if database.is_postgresql:
        async with database.write() as connection:
            for statement in (
                "CREATE SCHEMA clock",
                "CREATE TABLE clock.now AS SELECT CAST(0 AS double precision) AS at",
                "CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
                " AS 'SELECT to_timestamp(at) FROM clock.now'",
                f"ALTER DATABASE {await connection.scalar(text('SELECT current_database()'))}"
                " SET search_path = clock, public, pg_catalog",
            ):
                await connection.execute(text(statement))
        await database._engine.dispose()  # the settings are those of new connections
        await clock.show()
    return clock


async def _connected(folder: Path) -> "asyncpg.Connection":
    for attempt in itertools.count():
        try:
            return await asyncpg.connect(host=str(folder), user="postgres", database="postgres")
        except (OSError, asyncpg.CannotConnectNowError):
            if attempt > 1200:  # a minute, for busy machines
                raise
            await asyncio.sleep(0.05)
    raise AssertionError
