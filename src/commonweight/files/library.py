"""File library: upload, list, read, delete and expire files, per tenant."""

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from commonweight.files.blobs import BlobFolder, IncomingBlob
from commonweight.files.names import clean_name, make_name
from commonweight.files.types import UNKNOWN, Sniffer
from commonweight.messages.errors import (
    ApiError,
    InvalidRequestError,
    NotFoundError,
    RequestTooLargeError,
    UnavailableError,
)
from commonweight.messages.response import make_id
from commonweight.prompting.documents import UploadedFile
from commonweight.store import Database
from commonweight.store.failures import FAILURES, find_disk_fault, get_reason
from commonweight.store.files import FileTable, Position, StoredFile

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 500_000_000
"""Size of one file."""
EXPIRED_RETENTION_SECONDS = 30 * 86_400
"""Seconds that metadata outlives an expired file, so that clients get ``file_expired``."""
SWEEP_INTERVAL_SECONDS = 600
"""Seconds. An expired file can no longer be read at once; its content is gone after these."""

_ID = re.compile(r"file_[0-9A-Za-z]{1,50}")


class Upload:
    """Upload in progress, invisible until :meth:`Library.keep`."""

    def __init__(self, blobs: BlobFolder, arriving: IncomingBlob, admit: Callable[[int], None]) -> None:
        self.arriving = arriving
        self.size = 0
        self.name = ""
        self.declared = UNKNOWN
        self._blobs = blobs
        self._admit = admit
        self._sniffer = Sniffer()

    def describe(self, name: str, declared: str) -> None:
        """Set the name and the media type that the client declares.

        Raises:
            InvalidRequestError: no file may be called that.
        """
        self.name = clean_name(name)
        self.declared = declared

    def write(self, data: bytes) -> None:
        """Append content. Blocks: to be called in a thread.

        Raises:
            RequestTooLargeError: it is larger than files may be.
            InvalidRequestError: the tenant's quota is used up.
            ApiError: the disk is full.
        """
        if self.size + len(data) > MAX_FILE_BYTES:
            raise make_too_large_error()
        self._admit(len(data))
        self.size += len(data)
        self._sniffer.feed(data)
        self._blobs.write(self.arriving, data)

    def detect_mime_type(self) -> str:
        """Media type of the whole content.

        Raises:
            InvalidRequestError: not what it is declared to be.
        """
        return self._sniffer.detect_mime_type(self.declared)


class Library:
    """Files of all tenants; calls are restricted to one. Servers may share a database and data folder."""

    def __init__(self, table: FileTable, blobs: BlobFolder, quota: int, now: Callable[[], float]) -> None:
        self._table = table
        self._blobs = blobs
        self._quota = quota
        self._now = now
        self._lock = threading.Lock()
        self._arriving: Counter[str] = Counter()  # bytes by tenant, which become files or vanish

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, database: Database, folder: Path, quota: int, now: Callable[[], float] = time.time
    ) -> AsyncIterator["Library"]:
        """The library of a database, with its contents in ``folder``, and swept as long as the block lasts.

        ``quota``: bytes of each tenant's files.
        """
        table = FileTable(database)
        blobs = await asyncio.to_thread(BlobFolder, folder / await table.get_folder_name())
        library = cls(table, blobs, quota, now)
        sweeping = asyncio.create_task(library._sweep_forever())
        try:
            yield library
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def receive(self, tenant: str) -> AsyncIterator[Upload]:
        """Start an upload, which is discarded at the end of the block unless it was kept."""
        with _translate_failures():
            used = await self._table.read_usage(tenant, self._now())

        def admit(size: int) -> None:
            nonlocal used
            with self._lock:
                used += size
                # Those that arrive are not counted together with those that are there, as one of them may just
                # have become one of these. What counts is decided when a file is kept.
                if max(used, self._arriving[tenant] + size) > self._quota:
                    raise self._make_quota_error()
                self._arriving[tenant] += size

        upload = Upload(self._blobs, await asyncio.to_thread(self._blobs.receive), admit)
        try:
            yield upload
        finally:
            await asyncio.to_thread(upload.arriving.discard)
            with self._lock:
                self._arriving[tenant] -= upload.size

    async def keep(
        self, upload: Upload, tenant: str, key_id: str | None = None, lifetime: int | None = None
    ) -> StoredFile:
        """Make a whole upload a file of the tenant, for ``lifetime`` seconds or for good.

        Raises:
            InvalidRequestError: it is not what it is declared to be, or the quota is used up.
            ApiError: the disk is full.
        """
        mime_type = upload.detect_mime_type()
        blob = await asyncio.to_thread(self._blobs.finish, upload.arriving)
        now = self._now()
        file = StoredFile(
            id=make_id("file"),
            tenant=tenant,
            key_id=key_id,
            filename=upload.name or make_name(mime_type),
            mime_type=mime_type,
            size_bytes=upload.size,
            blob=blob,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        with _translate_failures():
            await self._keep(file, upload.arriving, blob)
        return file

    async def _keep(self, file: StoredFile, arriving: IncomingBlob, blob: str) -> None:
        async with self._table.exclusive() as connection:
            if (
                await self._table.compute_usage(connection, file.tenant, file.created_at) + file.size_bytes
                > self._quota
            ):
                raise self._make_quota_error()
            await self._table.add(connection, file)
            # Before the row can be seen, so that no file is without its content.
            await asyncio.to_thread(self._blobs.keep, arriving, blob)

    async def get(self, tenant: str, file_id: str) -> StoredFile:
        """One file, expired or not.

        Raises:
            NotFoundError: the tenant has no such file.
        """
        for file in await self.find(tenant, [file_id]):
            return file
        raise _make_not_found_error(file_id)

    async def find(self, tenant: str, ids: Iterable[str]) -> list[StoredFile]:
        """Those of the files that are there and the tenant's, newest first."""
        names = sorted({name for name in ids if _ID.fullmatch(name)})
        if not names:  # as in most requests, which must not need a database for it
            return []
        with _translate_failures():
            return await self._table.find(tenant, names)

    async def list_page(
        self, tenant: str, limit: int, after: Position | None = None, before: Position | None = None
    ) -> tuple[list[StoredFile], bool]:
        """Files of a tenant, newest first, and whether there are more; see :meth:`FileTable.page`."""
        with _translate_failures():
            return await self._table.list_page(tenant, limit, after, before)

    async def delete(self, tenant: str, file_id: str) -> None:
        """Delete a file, and its content if it is no other file's.

        Raises:
            NotFoundError: the tenant has no such file.
        """
        with _translate_failures():
            file = await self._table.delete(tenant, file_id) if _ID.fullmatch(file_id) else None
        if file is None:
            raise _make_not_found_error(file_id)
        if file.blob is not None:
            with contextlib.suppress(*FAILURES):  # the file is deleted; what it leaves is swept some time
                await self._release([file.blob])

    async def open_content(self, tenant: str, file_id: str) -> tuple[StoredFile, BinaryIO]:
        """A file, and its content to read.

        Raises:
            NotFoundError: the tenant has no such file, or it has expired (``file_expired``).
        """
        file = await self.get(tenant, file_id)
        return file, await asyncio.to_thread(self._open_blob, file)

    async def load(self, tenant: str, ids: Sequence[str]) -> Mapping[str, UploadedFile]:
        """The files that the documents of a request refer to.

        Raises:
            NotFoundError: the tenant has no such file, or it has expired (``file_expired``).
        """
        files = {file.id: file for file in await self.find(tenant, ids)}
        for file_id in ids:
            if file_id not in files:
                raise _make_not_found_error(file_id)
            self._require_content(files[file_id])
        return {
            file.id: UploadedFile(file.mime_type, file.size_bytes, partial(self._read, file))
            for file in files.values()
        }

    async def sweep(self) -> None:
        """Remove the contents of expired files, and what servers left behind when they died."""
        now = self._now()
        await self._table.expire(now, now - EXPIRED_RETENTION_SECONDS)
        await asyncio.to_thread(self._blobs.sweep)
        stored = await asyncio.to_thread(lambda: set(self._blobs.list_names()))
        await self._release(stored - await self._table.list_blobs())

    async def _release(self, blobs: Iterable[str]) -> None:
        """Remove contents that no file refers to."""
        for blob in blobs:
            # An upload of the same content comes before this, and is seen, or after it, and brings it back.
            async with self._table.exclusive() as connection:
                if not await self._table.is_used(connection, blob):
                    await asyncio.to_thread(self._blobs.remove, blob)

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except FAILURES as error:
                log.warning("files could not be swept, which is tried again: %s", get_reason(error))
            await asyncio.sleep(SWEEP_INTERVAL_SECONDS)

    def _require_content(self, file: StoredFile) -> None:
        if file.has_expired(self._now()):
            raise NotFoundError(f"File has expired: {file.id}", details={"error_code": "file_expired"})

    def _open_blob(self, file: StoredFile) -> BinaryIO:
        self._require_content(file)
        assert file.blob is not None
        try:
            return self._blobs.open(file.blob)
        except FileNotFoundError as error:  # it was deleted just now
            raise _make_not_found_error(file.id) from error

    def _read(self, file: StoredFile) -> bytes:
        with self._open_blob(file) as content:
            return content.read()

    def _make_quota_error(self) -> ApiError:
        return InvalidRequestError(
            f"The storage quota of {self._quota} bytes is used up. Delete files to free up space, then try again.",
            details={"error_code": "storage_quota_exceeded"},
        )


@contextlib.contextmanager
def _translate_failures() -> Iterator[None]:
    """Turn database failures into a retryable error of the API."""
    try:
        yield
    except FAILURES as error:
        log.error("files cannot be reached: %s", get_reason(error))
        message = find_disk_fault(error) or "Files cannot be reached"
        raise UnavailableError(f"{message} at the moment", retry_after=5) from error


def make_too_large_error() -> RequestTooLargeError:
    """The error for a file beyond the limit."""
    return RequestTooLargeError(f"file: the file exceeds the maximum size of {MAX_FILE_BYTES} bytes")


def _make_not_found_error(file_id: str) -> NotFoundError:
    return NotFoundError(f"File not found: {file_id}")
