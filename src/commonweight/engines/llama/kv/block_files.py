"""On-disk format of KV blocks, with LRU eviction and verification of files.

A cache may forget but must never be wrong: a block is trusted only when all bytes of its file match their digests
and the file is where it belongs, ``FOLDER/FINGERPRINT/HASH OF TENANT/NAME.kv``. It holds, one after the other,

    magic (8 bytes), length of the header (4), digest of the header (16), header (MessagePack), parts

The header has a digest of its own so that a scan, which reads no further, trusts nothing damaged either. Files are
written under a temporary name first. Nothing is synced: what a power cut tears does not match its digest.
"""

import contextlib
import logging
import os
import re
import struct
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec
import psutil

log = logging.getLogger(__name__)

SURVEY_TTL_SECONDS = 2.0
"""Seconds until the folder is listed again: other processes write to it and evict, too."""
MAX_WRITE_SECONDS = 3600.0
"""Seconds after which a temporary file is a leftover, even if a process of that id exists: ids are reused."""
_SUFFIX = ".kv"
_TEMPORARY = re.compile(r"[0-9a-f]+\.[0-9]{1,9}\.tmp")
_NAME = re.compile(r"[0-9a-f]{1,128}")
_MAGIC = b"CWKV\0\0\0\1"
_START = struct.Struct("<8sI16s")
_SCAN_BYTES = 4096  # holds the header of 256 tokens, and all before it
_OLDER = 1000  # nanoseconds that an ancestor counts as used later, so that it is evicted later

Buffer = bytes | bytearray | memoryview
BlockKey = tuple[str, str]  # tenant and name


class StoredBlock(msgspec.Struct):
    """KV block with its contents, as written to a file.

    ``name`` is a content address in lowercase hexadecimal, over the parent's name and the tokens; ``parent`` the
    name of the block before, "" for the first. ``tokens`` are int32, big-endian. Parts are opaque and contiguous;
    they must not change until stored or lost. Those of a loaded block are views of one buffer, not aligned.
    """

    tenant: str
    name: str
    parent: str
    tokens: bytes
    parts: dict[str, Buffer]


class BlockEntry(msgspec.Struct, frozen=True):
    """Directory entry of a block on disk, its parts by name only. ``size`` in bytes of the file, ``used`` in
    Unix seconds."""

    tenant: str
    name: str
    parent: str
    tokens: bytes
    parts: tuple[str, ...]
    size: int
    used: float


def compute_fingerprint(**facts: str | int) -> str:
    """Folder name, in hexadecimal: digest of all that blocks depend on (model, kernels, KV type)."""
    return _compute_digest(msgspec.json.encode((_MAGIC, facts), order="sorted")).hex()


class _BlockHeader(msgspec.Struct, array_like=True):
    fingerprint: str
    tenant: str
    name: str
    parent: str
    tokens: bytes
    parts: dict[str, int]  # bytes of each, in the file's order
    digest: bytes  # of all parts


@dataclass(slots=True)
class _File:
    size: int
    used: int  # Unix nanoseconds: the file's modification time, so that other processes see it
    key: BlockKey | None = None  # of this model's blocks, as far as this process has met them
    parent: str | None = None  # path


class _UnusableError(Exception):
    """A file is damaged or misplaced, for the reason given."""


_encoder = msgspec.msgpack.Encoder()
_headers = msgspec.msgpack.Decoder(_BlockHeader)


class BlockFiles:
    """Index of the folder's files with LRU eviction by bytes. For one thread at a time."""

    def __init__(self, folder: Path, fingerprint: str, capacity: int, lose: Callable[[BlockKey], None]) -> None:
        self.used_bytes = 0
        self._folder = folder
        self._fingerprint = fingerprint
        self._home = f"{folder / fingerprint}{os.sep}"
        self._capacity = capacity
        self._lose = lose
        self._files: dict[str, _File] = {}
        self._surveyed = -SURVEY_TTL_SECONDS

    def scan(self) -> list[BlockEntry]:
        self._survey()
        with contextlib.suppress(OSError):
            self._shrink(self._capacity)  # it may have been larger in an earlier life
        entries: dict[str, BlockEntry] = {}
        children: dict[str | None, list[str]] = {}
        for path, file in [item for item in self._files.items() if item[0].startswith(self._home)]:
            with self._drop_on_error(path), Path(path).open("rb") as stream:
                head = self._read_header(path, stream)
                self._add(path, head, file.size, file.used)
                names, used = tuple(head.parts), file.used / 1e9
                entries[path] = BlockEntry(
                    head.tenant, head.name, head.parent, head.tokens, names, file.size, used
                )
                children.setdefault(self._files[path].parent, []).append(path)
        found = children.pop(None, [])
        for path in found:  # grows meanwhile
            found += children.pop(path, [])
        orphans = [path for paths in children.values() for path in paths]
        if orphans:
            log.info("removing %d blocks whose beginnings are gone from %s", len(orphans), self._home)
        for path in orphans:
            self._remove(path)
        return [entries[path] for path in found]

    def load(self, key: BlockKey) -> tuple[int, StoredBlock | None]:
        """Size of the file in bytes and its block, if the file exists and is sound."""
        path = self._path(key)
        with self._drop_on_error(path), Path(path).open("rb") as stream:
            header = self._read_header(path, stream)
            data = bytearray(sum(header.parts.values()))
            stream.seek(-len(data), os.SEEK_END)
            stream.readinto(data)  # if the file was cut meanwhile, the digest differs
            if _compute_digest(data) != header.digest:
                raise _UnusableError("its parts are damaged")
            parts: dict[str, Buffer] = {}
            rest = memoryview(data)
            for part, length in header.parts.items():
                parts[part], rest = rest[:length], rest[length:]
            size = stream.tell()
            self._add(path, header, size, time.time_ns())
            return size, StoredBlock(header.tenant, header.name, header.parent, header.tokens, parts)
        return 0, None

    def store(self, block: StoredBlock) -> int | None:
        """Write a block; returns the file's size in bytes, or None where there is no room for it.

        Raises:
            Exception: the disk failed, or a part is not contiguous.
        """
        sizes = {part: memoryview(data).nbytes for part, data in block.parts.items()}
        digest = _compute_digest(*block.parts.values())
        header = _BlockHeader(
            self._fingerprint, block.tenant, block.name, block.parent, block.tokens, sizes, digest
        )
        data = _encoder.encode(header)
        size = _START.size + len(data) + sum(sizes.values())
        path = self._path((block.tenant, block.name))
        used = time.time_ns()
        if not self._make_room(path, self._parent(header), size):
            return None
        for folder in (self._folder, Path(self._home), Path(path).parent):
            folder.mkdir(mode=0o700, parents=folder is self._folder, exist_ok=True)
        temporary = Path(f"{path.removesuffix(_SUFFIX)}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb", opener=partial(os.open, mode=0o600)) as stream:
                stream.write(_START.pack(_MAGIC, len(data), _compute_digest(data)) + data)
                for part in block.parts.values():
                    stream.write(part)
            os.utime(temporary, ns=(used, used))
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._add(path, header, size, used)
        return size

    def remove(self, key: BlockKey) -> None:
        self._remove(self._path(key))

    def use(self, keys: Iterable[BlockKey]) -> None:
        """Mark files as used now, and their ancestors a moment later than their descendants."""
        self._use([self._path(key) for key in keys])

    def _read_header(self, path: str, stream: BinaryIO) -> _BlockHeader:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(_SCAN_BYTES)
        if len(start) < _START.size or not start.startswith(_MAGIC):
            raise _UnusableError("it has another format")
        _, length, digest = _START.unpack_from(start)
        data = start[_START.size : _START.size + length]
        if len(data) < length <= size:
            data += stream.read(length - len(data))
        if _compute_digest(data) != digest:
            raise _UnusableError("its header is damaged")
        try:
            header = _headers.decode(data)
        except ValueError as error:
            raise _UnusableError(f"its header is another's: {error}") from None
        if header.fingerprint != self._fingerprint or self._path((header.tenant, header.name)) != path:
            raise _UnusableError("it belongs elsewhere")
        if _START.size + length + sum(header.parts.values()) != size:
            raise _UnusableError("it is cut off")
        return header

    @contextlib.contextmanager
    def _drop_on_error(self, path: str) -> Iterator[None]:
        """Drop a file from the index if the block fails to read it, and remove it if it is unusable."""
        try:
            yield
        except FileNotFoundError:  # evicted by another process, or never there
            self._drop(path)
        except _UnusableError as error:
            log.warning("removing %s: %s", path, error)
            self._remove(path)
        except (OSError, MemoryError) as error:
            log.warning("cannot read %s: %s", path, error)

    def _make_room(self, path: str, parent: str | None, size: int) -> bool:
        """Evict for a new file. False if that would take one of its ancestors, or if its parent is missing."""
        if time.monotonic() - self._surveyed > SURVEY_TTL_SECONDS:
            self._survey()
        self._use([path, parent])  # an earlier version goes by being replaced, not before others
        replaced = self._files[path].size if path in self._files else 0
        spared = {path, *self._iter_ancestors(parent)} if parent is None or parent in self._files else self._files
        return self._shrink(self._capacity - size + replaced, spared)

    def _shrink(self, limit: int, spared: Container[str] = ()) -> bool:
        """Evict least recently used files down to ``limit`` bytes; False if that would take a spared one."""
        while self.used_bytes > limit:
            oldest = min(self._files, key=lambda path: self._files[path].used, default="")
            if limit < 0 or oldest in spared:
                return False
            Path(oldest).unlink(missing_ok=True)
            if key := self._drop(oldest):
                self._lose(key)
        return True

    def _use(self, paths: Iterable[str | None]) -> None:
        now = time.time_ns()
        stamps: dict[str, int] = {}
        for leaf in paths:
            for depth, path in enumerate(self._iter_ancestors(leaf)):
                stamp = now + depth * _OLDER
                if stamps.get(path, 0) >= stamp:
                    break  # and so are all of its ancestors
                stamps[path] = stamp
        # Ancestors first: a process killed on the way leaves none to be evicted before what builds on it.
        for path, stamp in sorted(stamps.items(), key=lambda item: -item[1]):
            self._files[path].used = stamp
            with contextlib.suppress(OSError):
                os.utime(path, ns=(stamp, stamp))

    def _iter_ancestors(self, path: str | None) -> Iterator[str]:
        """The file and its known ancestors."""
        while path in self._files:
            yield path
            path = self._files[path].parent

    def _survey(self) -> None:
        """List the whole folder, and remove temporary files of dead processes."""
        known, self._files = self._files, {}
        for model in _list_entries(self._folder):
            for tenant in _list_entries(model):
                for entry in _list_entries(tenant):
                    with contextlib.suppress(OSError):  # gone meanwhile
                        if _TEMPORARY.fullmatch(entry.name):
                            _remove_leftover(entry)
                        elif entry.name.endswith(_SUFFIX) and entry.is_file(follow_symlinks=False):
                            status = entry.stat()
                            file = self._files[entry.path] = known.get(entry.path) or _File(0, 0)
                            file.size, file.used = status.st_size, max(file.used, status.st_mtime_ns)
        self.used_bytes = sum(file.size for file in self._files.values())
        self._surveyed = time.monotonic()
        for path, file in known.items():
            if path not in self._files and file.key:
                self._lose(file.key)

    def _add(self, path: str, header: _BlockHeader, size: int, used: int) -> None:
        self._drop(path)
        self._files[path] = _File(size, used, (header.tenant, header.name), self._parent(header))
        self.used_bytes += size

    def _drop(self, path: str) -> BlockKey | None:
        file = self._files.pop(path, None)
        if file is None:
            return None
        self.used_bytes -= file.size
        return file.key

    def _remove(self, path: str) -> None:
        with contextlib.suppress(OSError):
            Path(path).unlink()
        self._drop(path)

    def _parent(self, header: _BlockHeader) -> str | None:
        return self._path((header.tenant, header.parent)) if header.parent else None

    def _path(self, key: BlockKey) -> str:
        tenant, name = key
        # Surrogates have no UTF-8, and a tenant may be any string.
        return f"{self._home}{_compute_digest(tenant.encode(errors='surrogatepass')).hex()}{os.sep}{name}{_SUFFIX}"


def _remove_leftover(entry: os.DirEntry[str]) -> None:
    """Remove a temporary file unless a process may still be writing it."""
    _, pid, _ = entry.name.split(".")
    if not psutil.pid_exists(int(pid)) or time.time() - entry.stat().st_mtime > MAX_WRITE_SECONDS:
        Path(entry.path).unlink()


def _list_entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """Entries of a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def check_hex_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a hexadecimal name: {name!r}")
    return name


def _compute_digest(*data: Buffer) -> bytes:
    """Portable, fast enough for any disk, and releases the GIL for all but small data."""
    digest = blake2b(digest_size=16)
    for part in data:
        digest.update(part)
    return digest.digest()
