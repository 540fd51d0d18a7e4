"""Databases for tests: each test runs on SQLite, and on a real PostgreSQL where that is installed."""

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from commonweight.store import Database, sqlite_url

_ACCOUNT = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
_numbers = itertools.count()


def _program(name: str) -> str | None:
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
    return shutil.which(name) or (debian[-1] if debian else None)


@contextlib.contextmanager
def postgresql() -> Iterator[Path]:
    """A cluster of its own, thrown away afterwards; the folder of its socket."""
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
        # Nothing needs to survive: without waiting for the disk the tests are much faster.
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": name,
            "fsync": "off",
            "max_connections": "50",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        process = subprocess.Popen(
            [server, "-D", str(folder / "data"), *options],
            user=_ACCOUNT,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        try:
            yield folder
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="session")
def postgresql_folder() -> Iterator[Path]:
    """One cluster for all tests."""
    with postgresql() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "data")
    folder: Path = request.getfixturevalue("postgresql_folder")
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


async def _connected(folder: Path) -> "asyncpg.Connection":
    for attempt in itertools.count():
        try:
            return await asyncpg.connect(host=str(folder), user="postgres", database="postgres")
        except (OSError, asyncpg.CannotConnectNowError):
            if attempt > 200:
                raise
            await asyncio.sleep(0.05)
    raise AssertionError
