"""Hashing is right, happens once, and never fails because of its memory."""

import hashlib
import os
import sys
from pathlib import Path

import platformdirs
import pytest

from commonweight.catalog.checksum import compute_sha256


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; it does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: folder / name)
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"weights")
    return path


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_unnoticed(path: Path, content: bytes) -> None:
    """Change the content behind an unchanged size and time, so that only a new reading can tell."""
    before = path.stat()
    path.write_bytes(content)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_is_the_sha256_in_hex(weights: Path) -> None:
    assert compute_sha256(weights) == _hex(b"weights")


def test_an_unchanged_file_is_not_read_again(weights: Path) -> None:
    compute_sha256(weights)
    _write_unnoticed(weights, b"WEIGHTS")
    assert compute_sha256(weights) == _hex(b"weights")


def test_a_link_shares_what_is_known_of_its_target(weights: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(weights)
    compute_sha256(weights)
    _write_unnoticed(weights, b"WEIGHTS")
    assert compute_sha256(link) == _hex(b"weights")


def test_another_size_means_another_reading(weights: Path) -> None:
    compute_sha256(weights)
    mtime = weights.stat().st_mtime_ns
    weights.write_bytes(b"more weights")
    os.utime(weights, ns=(mtime, mtime))
    assert compute_sha256(weights) == _hex(b"more weights")


def test_another_time_means_another_reading(weights: Path) -> None:
    compute_sha256(weights)
    mtime = weights.stat().st_mtime_ns
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(mtime + 1, mtime + 1))
    assert compute_sha256(weights) == _hex(b"WEIGHTS")


def test_remembers_several_files(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"another")
    compute_sha256(weights)
    compute_sha256(other)
    _write_unnoticed(weights, b"WEIGHTS")
    _write_unnoticed(other, b"ANOTHER")
    assert (compute_sha256(weights), compute_sha256(other)) == (_hex(b"weights"), _hex(b"another"))


@pytest.mark.parametrize("wreck", [b"", b"{", b"[]", b'{"%s": 3}', b'{"%s": ["7", 0, null]}', b"\xff\x00"])
def test_a_corrupt_memory_is_replaced(weights: Path, cache: Path, wreck: bytes) -> None:
    compute_sha256(weights)
    (memory,) = (path for path in cache.rglob("*") if path.is_file())
    memory.write_bytes(wreck.replace(b"%s", str(weights).encode()))
    assert compute_sha256(weights) == _hex(b"weights")
    _write_unnoticed(weights, b"WEIGHTS")
    assert compute_sha256(weights) == _hex(b"weights")


def test_an_unwritable_memory_is_no_error(weights: Path, cache: Path) -> None:
    # A file where the folder should be stops every user, root included.
    cache.write_bytes(b"")
    assert compute_sha256(weights) == _hex(b"weights")
    _write_unnoticed(weights, b"WEIGHTS")
    assert compute_sha256(weights) == _hex(b"WEIGHTS")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
def test_a_name_that_is_not_utf8_is_no_error(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.gguf")
    path.write_bytes(b"weights")
    assert compute_sha256(path) == _hex(b"weights")
    assert not list(cache.rglob("*"))


def test_writing_leaves_one_file_behind(weights: Path, cache: Path) -> None:
    for content in (b"one", b"three", b"fifteen"):
        weights.write_bytes(content)
        compute_sha256(weights)
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 1


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        compute_sha256(tmp_path / "missing.gguf")
