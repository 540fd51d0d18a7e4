"""Content-addressed storage of files: ``FOLDER/ab/abcdef...``, named by SHA-256, written atomically."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from commonweight.messages.errors import ApiError

RESERVED_DISK_BYTES = 64 * 2**20
"""Bytes of the disk that uploads leave to the database and everything else."""
ABANDONED_AFTER_SECONDS = 3600
"""Seconds without a write after which the server that received a file must have died."""

_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"[0-9a-f]{64}")


class BlobFolder:
    """Content-addressed folder, which several servers may share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arriving = folder / "arriving"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._arriving.mkdir(exist_ok=True, mode=0o700)

    def receive(self) -> "IncomingBlob":
        """Start an upload."""
        with self._room():
            return IncomingBlob(self._arriving / secrets.token_hex(16))

    def write(self, arriving: "IncomingBlob", data: bytes) -> None:
        """Append to an upload.

        Raises:
            ApiError: the disk is full.
        """
        with self._room():
            if shutil.disk_usage(self._arriving).free < RESERVED_DISK_BYTES + len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            arriving.write(data)

    def finish(self, arriving: "IncomingBlob") -> str:
        """Flush an upload to disk, still under its temporary name; returns its SHA-256."""
        with self._room():
            return arriving.finish()

    def keep(self, arriving: "IncomingBlob", name: str) -> None:
        """Move a finished upload to its final name; an existing file has the same content."""
        path = self._make_path(name)
        with self._room():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            arriving.path.replace(path)
            for folder in (path.parent, self._folder):
                _sync(folder)

    def open(self, name: str) -> BinaryIO:
        """A content, to read.

        Raises:
            FileNotFoundError: it was removed.
        """
        return self._make_path(name).open("rb")

    def remove(self, name: str) -> None:
        """Remove a content, if it is there."""
        self._make_path(name).unlink(missing_ok=True)

    def list_names(self) -> Iterator[str]:
        """All contents."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            if _NAME.fullmatch(path.name):
                yield path.name

    def sweep(self) -> None:
        """Remove uploads abandoned by servers that died."""
        for path in self._arriving.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another server has finished it
                if path.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS:
                    path.unlink()

    def _make_path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _DISK_FULL_ERRNOS:
                raise
            # To try again at once would not help, and be expensive.
            raise ApiError("The server's disk is full; the file was not stored", should_retry=False) from error


class IncomingBlob:
    """Content that is being uploaded, in a temporary file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A thread may still be writing when the request that wants it to is cancelled.
        self._lock = threading.Lock()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Add to it."""
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._digest.update(data)

    def finish(self) -> str:
        """Flush it to disk; returns its SHA-256."""
        with self._lock:
            os.fsync(self._file)
            self._file.close()
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Remove it, unless it has been kept."""
        with self._lock:
            self._file.close()
            self.path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
