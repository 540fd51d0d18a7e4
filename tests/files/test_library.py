"""The library: what is kept of an upload, whose it is, and what remains on disk."""

import asyncio
import contextlib
import errno
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from commonweight.files import Library, blobs, library
from commonweight.files.blobs import BlobFolder
from commonweight.messages.errors import (
    ApiError,
    InvalidRequestError,
    NotFoundError,
    RequestTooLargeError,
    UnavailableError,
)
from commonweight.prompting.documents import UploadedFile
from commonweight.store import Database
from commonweight.store.files import StoredFile

PDF = b"%PDF-1.4\nnothing more"
START = 1_800_000_000.0


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
async def shelf(database: Database, folder: Path, clock: Clock) -> AsyncIterator[Library]:
    """A library with room for a thousand bytes a tenant."""
    async with Library.open(database, folder, 1000, clock) as opened:
        yield opened


async def upload(
    shelf: Library,
    *data: bytes,
    tenant: str = "t",
    name: str = "a.txt",
    declared: str = "",
    lifetime: int | None = None,
) -> StoredFile:
    async with shelf.receive(tenant) as incoming:
        incoming.describe(name, declared)
        for part in data:
            await asyncio.to_thread(incoming.write, part)
        return await shelf.keep(incoming, tenant, "key_1", lifetime)


async def content(shelf: Library, file: StoredFile, tenant: str = "t") -> bytes:
    _, opened = await shelf.open_content(tenant, file.id)
    with opened:
        return opened.read()


async def load(shelf: Library, file_id: str, tenant: str = "t") -> UploadedFile:
    return (await shelf.load(tenant, [file_id]))[file_id]


def on_disk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def test_what_is_kept_can_be_had_again(shelf: Library, folder: Path, clock: Clock) -> None:
    file = await upload(shelf, b"some ", b"text")
    assert (file.filename, file.mime_type, file.size_bytes) == ("a.txt", "text/plain", 9)
    assert (file.created_at, file.expires_at, file.key_id) == (START, None, "key_1")
    assert await content(shelf, file) == b"some text"
    assert await shelf.get("t", file.id) == file
    [path] = on_disk(folder)
    # Named by its content, and no part of a path comes from a client.
    assert file.blob == "b94f6f125c79e3a5ffaa826f584c10d52ada669e6762051b826b55776d05aed2"
    assert path.relative_to(folder).parts[1:] == ("b9", file.blob)
    assert path.stat().st_mode & 0o077 == 0
    await shelf.delete("t", file.id)
    assert on_disk(folder) == []
    with pytest.raises(NotFoundError, match=f"File not found: {file.id}"):
        await shelf.get("t", file.id)
    with pytest.raises(NotFoundError):
        await shelf.delete("t", file.id)


async def test_an_empty_file_is_a_file(shelf: Library) -> None:
    file = await upload(shelf)
    assert (file.size_bytes, file.mime_type, await content(shelf, file)) == (0, "text/plain", b"")


async def test_nothing_remains_of_what_is_not_kept(shelf: Library, folder: Path) -> None:
    with pytest.raises(RuntimeError):
        async with shelf.receive("t") as incoming:
            await asyncio.to_thread(incoming.write, b"x" * 600)
            assert len(on_disk(folder)) == 1
            raise RuntimeError
    assert on_disk(folder) == []
    assert await upload(shelf, b"x" * 600)  # nor of the room that it took


async def test_a_cancelled_upload_leaves_nothing(shelf: Library, folder: Path) -> None:
    begun = asyncio.Event()

    async def send() -> None:
        async with shelf.receive("t") as incoming:
            await asyncio.to_thread(incoming.write, b"x" * 600)
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(send())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert on_disk(folder) == []


async def test_tenants_see_their_own_files_only(shelf: Library, folder: Path) -> None:
    ours = await upload(shelf, b"same", tenant="ours")
    theirs = await upload(shelf, b"same", tenant="theirs")
    assert len(on_disk(folder)) == 1  # once for both
    for call in (
        shelf.get("theirs", ours.id),
        shelf.delete("theirs", ours.id),
        shelf.open_content("theirs", ours.id),
        load(shelf, ours.id, "theirs"),
    ):
        with pytest.raises(NotFoundError, match=f"File not found: {ours.id}"):
            await call
    assert await shelf.find("theirs", [ours.id, theirs.id]) == [theirs]
    assert await shelf.list_page("theirs", 10) == ([theirs], False)
    await shelf.delete("ours", ours.id)
    assert await content(shelf, theirs, "theirs") == b"same"
    await shelf.delete("theirs", theirs.id)
    assert on_disk(folder) == []


@pytest.mark.parametrize(
    "file_id", ["", "file_", "file_nothere", "x", "file_\0", "file_\ud800", "../x", "file_" + "a" * 500, "' OR 1"]
)
async def test_what_is_no_id_is_not_found(shelf: Library, file_id: str) -> None:
    await upload(shelf, b"x")
    for call in (shelf.get("t", file_id), shelf.delete("t", file_id), load(shelf, file_id)):
        with pytest.raises(NotFoundError):
            await call
    assert await shelf.find("t", [file_id]) == []


async def test_many_files_are_found_at_once(shelf: Library) -> None:
    file = await upload(shelf, b"x")
    assert await shelf.find("t", [f"file_{i}" for i in range(40_000)] + [file.id]) == [file]


async def test_pages_go_forward_and_back(shelf: Library, clock: Clock) -> None:
    files = []
    for i in range(7):
        clock.time += i % 2  # some were made at the same moment
        files.append(await upload(shelf, b"%d" % i))
    files.sort(key=lambda file: (file.created_at, file.id), reverse=True)
    places = [(file.created_at, file.id) for file in files]
    assert await shelf.list_page("t", 7) == (files, False)
    assert await shelf.list_page("t", 3) == (files[:3], True)
    assert await shelf.list_page("t", 3, after=places[2]) == (files[3:6], True)
    assert await shelf.list_page("t", 3, after=places[5]) == (files[6:], False)
    assert await shelf.list_page("t", 3, after=places[6]) == ([], False)
    assert await shelf.list_page("t", 3, before=places[5]) == (files[2:5], True)
    assert await shelf.list_page("t", 3, before=places[2]) == (files[:2], False)
    assert await shelf.list_page("t", 9, after=places[0], before=places[4]) == (files[1:4], False)
    await shelf.delete("t", files[2].id)
    assert await shelf.list_page("t", 2, after=places[2]) == (files[3:5], True)


# Limits


async def test_the_quota_counts_every_file_in_full(shelf: Library, folder: Path, clock: Clock) -> None:
    first = await upload(shelf, b"x" * 500)
    await upload(shelf, b"x" * 500)
    assert await upload(shelf, b"x" * 1000, tenant="other")
    with pytest.raises(InvalidRequestError, match="quota of 1000 bytes") as caught:
        await upload(shelf, b"y")
    assert caught.value.details == {"error_code": "storage_quota_exceeded"}
    await shelf.delete("t", first.id)
    await upload(shelf, b"y" * 500, lifetime=3600)
    with pytest.raises(InvalidRequestError):
        await upload(shelf, b"y")
    clock.time += 3600
    await upload(shelf, b"y")  # what has expired counts no longer
    assert len([path for path in on_disk(folder) if path.parent.name == "arriving"]) == 0


async def test_uploads_that_are_under_way_count_too(shelf: Library) -> None:
    async with shelf.receive("t") as first, shelf.receive("t") as second, shelf.receive("other") as other:
        await asyncio.to_thread(first.write, b"x" * 600)
        await asyncio.to_thread(other.write, b"x" * 600)
        with pytest.raises(InvalidRequestError, match="quota"):
            await asyncio.to_thread(second.write, b"x" * 600)
        await shelf.keep(first, "t")


async def test_the_quota_holds_between_servers(database: Database, folder: Path) -> None:
    async with Library.open(database, folder, 1000) as one, Library.open(database, folder, 1000) as other:
        results = await asyncio.gather(
            *(upload((one, other)[i % 2], bytes([i + 40]) * 300) for i in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, StoredFile) for result in results) == 3
        assert len(on_disk(folder)) == 3


async def test_a_file_that_is_too_large_is_refused_at_once(
    shelf: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "MAX_FILE_BYTES", 100)
    await upload(shelf, b"x" * 100)
    async with shelf.receive("t") as incoming:
        incoming.write(b"x" * 100)
        with pytest.raises(RequestTooLargeError, match="maximum size of 100 bytes"):
            incoming.write(b"x")


# Time


async def test_files_expire(shelf: Library, folder: Path, clock: Clock) -> None:
    file = await upload(shelf, b"brief", lifetime=3600)
    twin = await upload(shelf, b"brief", tenant="other")
    alone = await upload(shelf, b"alone", lifetime=3600)
    assert file.expires_at == START + 3600
    clock.time += 3599
    await shelf.sweep()
    assert await content(shelf, file) == b"brief"
    clock.time += 1
    for swept in (False, True):
        if swept:
            await shelf.sweep()
        for call in (shelf.open_content("t", file.id), load(shelf, file.id)):
            with pytest.raises(NotFoundError, match=f"File has expired: {file.id}") as caught:
                await call
            assert caught.value.details == {"error_code": "file_expired"}
        assert (await shelf.get("t", file.id)).expires_at == clock.time
    assert [path.name for path in on_disk(folder)] == [twin.blob]
    assert await content(shelf, twin, "other") == b"brief"
    await shelf.delete("t", alone.id)
    clock.time += library.EXPIRED_RETENTION_SECONDS + 1
    await shelf.sweep()
    assert await shelf.find("t", [file.id, alone.id]) == []
    assert await shelf.list_page("other", 9) == ([twin], False)


# What servers leave behind when they die


async def test_leftovers_are_swept(
    shelf: Library, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await upload(shelf, b"kept")
    [path] = on_disk(folder)
    root = path.parents[1]
    orphan = root / "ab" / ("ab" + "0" * 62)
    orphan.parent.mkdir()
    orphan.write_bytes(b"renamed, and then the server died before it was written down")
    foreign = root / "ab" / "notes"
    foreign.write_bytes(b"not ours")
    async with shelf.receive("t") as incoming:
        incoming.write(b"still coming")
        await shelf.sweep()
        assert await content(shelf, await shelf.keep(incoming, "t")) == b"still coming"
    (root / "arriving" / "abandoned").write_bytes(b"half")
    await shelf.sweep()
    assert (root / "arriving" / "abandoned").exists()  # it may be another server's
    monkeypatch.setattr(blobs, "ABANDONED_AFTER_SECONDS", -1)
    await shelf.sweep()
    assert not (root / "arriving" / "abandoned").exists()
    assert not orphan.exists()
    assert foreign.exists()
    assert await content(shelf, kept) == b"kept"


async def test_another_database_with_the_same_folder_takes_nothing_away(
    shelf: Library, folder: Path, tmp_path: Path
) -> None:
    file = await upload(shelf, b"ours")
    async with (
        Database.open(f"sqlite+aiosqlite:///{tmp_path}/another.db") as another,
        Library.open(another, folder, 10**9) as theirs,
    ):
        await theirs.sweep()
        same = await upload(theirs, b"ours")
        await theirs.delete("t", same.id)
    assert await content(shelf, file) == b"ours"


async def test_uploads_and_deletions_of_the_same_content_never_lose_it(database: Database, folder: Path) -> None:
    """Two servers upload and delete one content over and over: whoever has a file can read it."""
    async with Library.open(database, folder, 10**9) as one, Library.open(database, folder, 10**9) as other:

        async def client(shelf: Library, tenant: str) -> None:
            for _ in range(12):
                file = await upload(shelf, b"shared", tenant=tenant)
                assert await content(shelf, file, tenant) == b"shared"
                await shelf.delete(tenant, file.id)

        async def sweeper() -> None:
            while True:
                await one.sweep()
                await other.sweep()

        sweeping = asyncio.create_task(sweeper())
        await asyncio.gather(*(client(shelf, f"{i}{j}") for i in range(3) for j, shelf in enumerate((one, other))))
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
    assert on_disk(folder) == []


async def test_a_database_that_is_gone_is_the_servers_trouble(
    shelf: Library, database: Database, folder: Path
) -> None:
    file = await upload(shelf, b"x")
    async with shelf.receive("t") as incoming:
        async with database.write() as connection:
            await connection.execute(text("ALTER TABLE files RENAME TO gone"))
        for call in (
            shelf.keep(incoming, "t"),
            shelf.get("t", file.id),
            shelf.list_page("t", 1),
            shelf.delete("t", file.id),
            upload(shelf, b"y"),
        ):
            with pytest.raises(UnavailableError, match="Files cannot be reached at the moment"):
                await call
        assert await shelf.load("t", []) == {}  # who needs no file does not learn of it
    assert [path.name for path in on_disk(folder)] == [file.blob]
    async with database.write() as connection:
        await connection.execute(text("ALTER TABLE gone RENAME TO files"))
    assert await content(shelf, file) == b"x"


# The disk


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of its own with ``size`` bytes."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("reserve", [0, 2 * 2**20])
async def test_a_full_disk_is_an_error_and_leaves_nothing(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, reserve: int
) -> None:
    monkeypatch.setattr(blobs, "RESERVED_DISK_BYTES", reserve)
    if reserve == 0:  # then it is the disk itself that says so
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    with small_disk(folder, 8 * 2**20):
        async with Library.open(database, folder, 10**9) as shelf:
            kept = await upload(shelf, b"k" * 2**20)
            with pytest.raises(ApiError, match="disk is full; the file was not stored") as caught:
                await upload(shelf, *[b"x" * 2**20] * 9)
            assert (caught.value.status, caught.value.should_retry) == (500, False)
            assert [path.name for path in on_disk(folder)] == [kept.blob]
            assert await shelf.list_page("t", 9) == ([kept], False)
            await upload(shelf, *[b"y" * 2**20] * 3)  # what fits still comes in


async def test_a_file_system_that_refuses_large_files(database: Database, folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Library.open(database, folder, 10**9) as shelf:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with pytest.raises(ApiError, match="disk is full"):
                await upload(shelf, b"x" * 1_500_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert on_disk(folder) == []


def test_other_failures_of_the_disk_are_not_called_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    opened = BlobFolder(folder)
    arriving = opened.receive()
    monkeypatch.setattr(arriving, "write", fail)
    with pytest.raises(OSError, match="broken"):
        opened.write(arriving, b"x")


@pytest.mark.parametrize(("data", "mime_type"), [(PDF, "application/pdf"), ("grün".encode(), "text/plain")])
async def test_documents_are_loaded(shelf: Library, data: bytes, mime_type: str) -> None:
    file = await upload(shelf, data)
    loaded = await load(shelf, file.id)
    assert (loaded.mime_type, loaded.size) == (mime_type, len(data))
    assert loaded.read() == data
    await shelf.delete("t", file.id)
    with pytest.raises(NotFoundError):  # between the look-up and the reading
        loaded.read()
