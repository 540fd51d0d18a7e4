"""SHA-256 of large files, cached on disk by path, size and modification time."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
import platformdirs


class _HashedFile(msgspec.Struct, array_like=True, frozen=True):
    """Cache entry: size in bytes, modification time in nanoseconds, and SHA-256 of a file."""

    size: int
    mtime_ns: int
    sha256: str


def compute_sha256(path: Path) -> str:
    """The SHA-256 of the file's content, in lower-case hex.

    A file whose resolved path, size and modification time are as before is not read again. Raises OSError
    only for the file itself: the cache may be missing, corrupt or unwritable, which costs another reading.
    """
    resolved = path.resolve()
    with resolved.open("rb") as file:
        # Taken before the reading: a file that changes meanwhile will not match the cache entry.
        state = os.fstat(file.fileno())
        seen = _read_cache().get(str(resolved))
        if seen and (seen.size, seen.mtime_ns) == (state.st_size, state.st_mtime_ns):
            return seen.sha256
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _write_cache(str(resolved), _HashedFile(state.st_size, state.st_mtime_ns, digest))
    return digest


def _cache_file() -> Path:
    return platformdirs.user_cache_path("commonweight") / "sha256.json"


def _read_cache() -> dict[str, _HashedFile]:
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(_cache_file().read_bytes(), type=dict[str, _HashedFile])
    return {}


def _write_cache(path: str, seen: _HashedFile) -> None:
    # Of two processes that write at once the later one wins; the other's file is only hashed again.
    # UnicodeError: a file name need not be UTF-8, and JSON is.
    with suppress(OSError, UnicodeError):
        content = msgspec.json.encode(_read_cache() | {path: seen})
        memory = _cache_file()
        memory.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=memory.parent, delete=False) as draft:
            draft.write(content)
        Path(draft.name).replace(memory)
