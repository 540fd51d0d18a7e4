"""The database: made and brought up to date when it is opened, and all or nothing when it is written."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.exc import IntegrityError

from commonweight.store import Database, DatabaseError, make_sqlite_url, urls
from commonweight.store.schema import keys, leases, metadata
from commonweight.store.urls import parse_database_url
from databases import empty_database

KEY = {"name": "n", "tenant": "t", "hint": "h", "scopes": "", "created_at": 1.0}


async def count(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(keys))).scalar_one()


async def test_the_migrations_make_the_tables(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_what_is_written_is_there_when_it_is_opened_again(database_url: str) -> None:
    async with Database.open(database_url) as database, database.write() as connection:
        await connection.execute(keys.insert().values(id="a", digest="d", **KEY))
    async with Database.open(database_url) as database:
        assert await count(database) == 1


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await connection.execute(keys.insert().values(id="a", digest="d", **KEY))
            raise RuntimeError
    assert await count(database) == 0
    async with database.write() as connection:  # and locks nothing
        await connection.execute(keys.insert().values(id="a", digest="d", **KEY))
    assert await count(database) == 1


async def test_a_cancelled_transaction_leaves_nothing(database: Database) -> None:
    begun = asyncio.Event()

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(keys.insert().values(id="a", digest="d", **KEY))
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with database.write() as connection:
        await connection.execute(keys.insert().values(id="b", digest="d", **KEY))
    assert await count(database) == 1


async def test_a_write_canceled_at_any_moment_keeps_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen: a canceled write whose traceback was kept locked the database until the next garbage collection.
    monkeypatch.setattr(urls, "STATEMENT_TIMEOUT_SECONDS", 2)
    kept: list[BaseException | None] = []
    async with Database.open(make_sqlite_url(tmp_path)) as database:

        async def write() -> None:
            async with database.write() as connection:
                await connection.execute(keys.delete())
                await connection.execute(select(func.count()).select_from(keys))

        for number in range(300):
            tasks = [asyncio.create_task(write()) for _ in range(3)]
            await asyncio.sleep(number % 30 / 3000)
            for task in tasks:
                task.cancel()
            kept += await asyncio.gather(*tasks, return_exceptions=True)
            await write()


async def test_references_hold(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(leases.insert().values(id="l", key_id="nobody", expires_at=1.0))


async def test_writers_wait_for_each_other(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(keys.insert().values(id="a", digest="d", **KEY | {"created_at": 0.0}))

    async def increment() -> None:
        async with database.write() as connection:
            await connection.execute(update(keys).values(created_at=keys.c.created_at + 1))

    await asyncio.gather(*(increment() for _ in range(40)))
    async with database.read() as connection:
        assert (await connection.execute(select(keys.c.created_at))).scalar_one() == 40


async def test_many_may_open_a_new_database_at_once(database_url: str) -> None:
    async def use(number: int) -> None:
        async with Database.open(database_url) as database, database.write() as connection:
            name = str(number)
            await connection.execute(keys.insert().values(**KEY | {"id": name, "digest": name, "name": name}))

    await asyncio.gather(*map(use, range(6)))
    async with Database.open(database_url) as database:
        assert await count(database) == 6


async def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    async with Database.open(database_url) as database, database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"newer version of Commonweight \(its version is 9999\)"):
        async with Database.open(database_url):
            pass


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "no database URL"),
        ("mysql://u:secret@h/d", r"mysql://u:\*\*\*@h/d: use a URL that begins with postgresql://"),
        (
            "postgresql+asyncpg://u:secret@127.0.0.1:1/d",
            r"cannot use .*u:\*\*\*@127\.0\.0\.1:1/d: .*refused|Connect",
        ),
        ("postgresql://u:secret@127.0.0.1:1,127.0.0.1:2/d", r"cannot use .*u:\*\*\*@127.*: .*refused|Connect"),
        ("postgres://u@127.0.0.1:1/d?password=secret", r"u@127\.0\.0\.1:1/d\?password=\*\*\*: "),
        ("postgresql://u:secret@127.0.0.1:99999/d", "port must be 0-65535"),
        ("postgresql://u:secret@h:high/d", "cannot use .*'high'"),
        ("postgresql://u:secret@h/d?sslmode=some", "`sslmode` parameter must be one of: disable, "),
        ("postgresql://u:secret@h/d?connect_timeout=soon", "connect_timeout=soon is no number of seconds"),
        (
            "postgresql+asyncpg://u:secret@h/d?sslmode=require",
            r"postgresql\+asyncpg:// knows no sslmode; postgresql:// takes the options that psql takes",
        ),
        ("sqlite+aiosqlite:////nowhere/at/all/x.db", "cannot use .*unable to open database file"),
    ],
)
async def test_what_is_wrong_is_said_without_the_password(url: str, problem: str) -> None:
    with pytest.raises(DatabaseError, match=problem) as caught:
        async with Database.open(url):
            pass
    assert "secret" not in str(caught.value)


async def test_urls_as_psql_takes_them(postgresql_folder: Path) -> None:
    address = (await empty_database(postgresql_folder)).removeprefix("postgresql+asyncpg://")
    for scheme in ("postgres", "postgresql"):
        url = (
            f"{scheme}://{address}&sslmode=prefer&connect_timeout=5&application_name=ours&options=-cwork_mem%3D2MB"
        )
        async with Database.open(url) as database, database.read() as connection:
            assert database.is_postgresql
            for name, value in (("application_name", "ours"), ("work_mem", "2MB"), ("server_version_num", None)):
                found = await connection.scalar(text(f"SHOW {name}"))
                assert value in (None, found)
    with pytest.raises(DatabaseError, match='unrecognized configuration parameter "channel_binding"'):
        async with Database.open(f"postgresql://{address}&channel_binding=require"):
            pass


def test_the_driver_is_told_what_the_url_says_of_tls_and_time() -> None:
    query = "sslmode=verify-full&sslrootcert=/root.pem"
    _, arguments = parse_database_url(f"postgres://u:p%40ss@h1,h2:2/d?{query}&connect_timeout=0")
    assert arguments["dsn"] == "postgresql://u:p%40ss@h1,h2:2/d?sslmode=verify-full&sslrootcert=%2Froot.pem"
    assert arguments["timeout"] is None
    _, arguments = parse_database_url("postgresql://h/d")
    assert arguments["timeout"] == urls.CONNECT_TIMEOUT_SECONDS


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "commonweight.db").write_bytes(b"no database at all, but long enough to be read as one" * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        async with Database.open(make_sqlite_url(tmp_path)):
            pass


async def test_sqlite_writes_ahead_and_keeps_others_out(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with Database.open(make_sqlite_url(folder)):
        connection = sqlite3.connect(folder / "commonweight.db")
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()
    assert folder.stat().st_mode & 0o077 == 0


async def test_nobody_else_reads_a_database_in_a_folder_that_is_open_to_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    async with Database.open(make_sqlite_url(tmp_path)) as database, database.write() as connection:
        await connection.execute(keys.insert().values(id="a", digest="d", **KEY))
        files = list(tmp_path.iterdir())
        assert len(files) == 3
        assert all(file.stat().st_mode & 0o077 == 0 for file in files)
