"""Blocks on disk: real files, a real thread, processes really killed."""

import contextlib
import hashlib
import logging
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from commonweight.engines.llama.kv import block_files as files
from commonweight.engines.llama.kv.block_files import StoredBlock, compute_fingerprint
from commonweight.engines.llama.kv.disk_tier import DiskTier, Loaded, Lost, Stored

PRINT = compute_fingerprint(model="ab" * 32, kv_type="f16", flash_attention=True)
MB = 1 << 20
TENANTS = ["", "acme", "../../etc/passwd", "a/b\\c", ".", "Zoë\0\n雪🌨", "x" * 100_000]


class Opened:
    """A disk and its reports, waited for."""

    def __init__(self, folder: Path, capacity: int, print_: str = PRINT, queue_bytes: int = 256 * MB) -> None:
        self.wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.disk = DiskTier(
            folder, print_, capacity=capacity, wake=lambda: self.wakes.put(None), queue_bytes=queue_bytes
        )

    def reports(self, count: int) -> list[Loaded | Lost | Stored]:
        """The next ``count`` reports."""
        found: list[Loaded | Lost | Stored] = []
        while len(found) < count:
            self.wakes.get(timeout=30)
            found += self.disk.collect()
        return found

    def write(self, *blocks: StoredBlock) -> list[Loaded | Lost | Stored]:
        """Write blocks one after the other; their reports and those of what they drove out."""
        found: list[Loaded | Lost | Stored] = []
        for block in blocks:
            self.disk.write(block)
            answers = self.reports(1)
            while not any(_is_about(report, block) for report in answers):
                answers += self.reports(1)
            found += answers
        return found

    def read(self, tenant: str, name: str) -> StoredBlock | None:
        """A block, or None if it is lost."""
        self.disk.read(tenant, name)
        (report,) = self.reports(1)
        assert isinstance(report, Loaded) or report == Lost(tenant, name)
        return report.block if isinstance(report, Loaded) else None

    def names(self) -> set[str]:
        """What a scan finds."""
        return {entry.name for entry in self.disk.scan()}


def _is_about(report: Loaded | Lost | Stored, block: StoredBlock) -> bool:
    return not isinstance(report, Loaded) and report.name == block.name and report.tenant == block.tenant


Open = Callable[..., Opened]


@contextlib.contextmanager
def opening() -> Iterator[Open]:
    """Opens disks, and closes them in the end."""
    opened: list[Opened] = []

    def open_(folder: Path, capacity: int = 1 << 40, **more: Any) -> Opened:
        opened.append(Opened(folder, capacity, **more))
        return opened[-1]

    yield open_
    for one in opened:
        one.disk.close(patience=20)


@pytest.fixture(name="open_")
def _open() -> Iterator[Open]:
    with opening() as open_:
        yield open_


def make(number: int, parent: str = "", tenant: str = "acme", size: int = 3000) -> StoredBlock:
    """A block with an honest address and parts that follow from it."""
    tokens = b"".join((number * 1000 + position).to_bytes(4, "big") for position in range(256))
    name = hashlib.sha256(parent.encode() + tokens).hexdigest()
    cells = (hashlib.sha256(f"{tenant} {name}".encode()).digest() * (size // 32 + 1))[:size]
    return StoredBlock(
        tenant, name, parent, tokens, {"cells": cells, "scores:v1": bytearray(b"s" * 10), "empty": b""}
    )


def chain(length: int, tenant: str = "acme", size: int = 3000, first: int = 0) -> list[StoredBlock]:
    """A path of blocks from its start."""
    blocks: list[StoredBlock] = []
    for number in range(length):
        blocks.append(make(first + number, blocks[-1].name if blocks else "", tenant, size))
    return blocks


def files_in(folder: Path) -> list[Path]:
    """All files below."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_block_comes_back_as_it_was_written(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path / "deep" / "folder")
    block = make(1, size=2 * MB)
    assert opened.disk.read_rate is None
    assert opened.write(block) == [Stored("acme", block.name, opened.disk.used_bytes)]
    assert opened.read("acme", block.name) == block
    assert opened.disk.read_rate is not None
    assert opened.disk.read_rate > MB
    assert opened.disk.used_bytes == sum(path.stat().st_size for path in files_in(tmp_path))


def test_parts_may_be_views_of_more_than_bytes(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path)
    block = make(1)
    block.parts = {"cells": memoryview(bytes(range(240))).cast("I", (10, 6)), "none": memoryview(b"")}
    opened.write(block)
    read = opened.read("acme", block.name)
    assert read is not None
    assert {part: bytes(data) for part, data in read.parts.items()} == {"cells": bytes(range(240)), "none": b""}


def test_an_absent_block_is_lost_without_a_word(
    open_: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_(tmp_path / "never there").read("acme", "ab") is None
    assert not caplog.records


def test_tenants_are_apart_whatever_they_are_called(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path / "kv")
    blocks = [make(1, tenant=tenant) for tenant in TENANTS]
    assert len({block.name for block in blocks}) == 1
    opened.write(*blocks[1:])
    assert opened.read(TENANTS[0], blocks[0].name) is None
    for block in blocks[1:]:
        assert opened.read(block.tenant, block.name) == block
    assert {entry.tenant for entry in open_(tmp_path / "kv").disk.scan()} == set(TENANTS[1:])
    assert {path.relative_to(tmp_path).parts[0] for path in files_in(tmp_path)} == {"kv"}


def test_names_that_are_no_addresses_are_refused(open_: Open, tmp_path: Path) -> None:
    disk = open_(tmp_path).disk
    for name in ("", "..", "AB", "a/b", "a" * 200, "ab\n"):
        for call in (disk.read, disk.touch, disk.forget):
            with pytest.raises(ValueError, match="hexadecimal"):
                call("acme", name)
        with pytest.raises(ValueError, match="hexadecimal"):
            disk.write(StoredBlock("acme", name, "", b"", {}))
    with pytest.raises(ValueError, match="hexadecimal"):
        disk.write(StoredBlock("acme", "ab", "../ab", b"", {}))


def test_only_the_user_may_look(open_: Open, tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        open_(tmp_path / "kv").write(make(1))
    finally:
        os.umask(old_mask)
    for path in (tmp_path / "kv").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert (tmp_path / "kv").stat().st_mode & 0o777 == 0o700


def test_a_scan_finds_what_an_earlier_process_wrote_parents_first(open_: Open, tmp_path: Path) -> None:
    blocks = chain(5)
    open_(tmp_path).write(*reversed(blocks))
    opened = open_(tmp_path)
    entries = opened.disk.scan()
    assert [(e.tenant, e.name, e.parent, e.tokens) for e in entries] == [
        (b.tenant, b.name, b.parent, b.tokens) for b in blocks
    ]
    assert all(entry.parts == ("cells", "scores:v1", "empty") for entry in entries)
    assert sum(entry.size for entry in entries) == opened.disk.used_bytes
    assert all(abs(entry.used - time.time()) < 60 for entry in entries)
    assert opened.read("acme", blocks[3].name) == blocks[3]


def test_a_block_without_its_beginning_is_removed_with_all_behind_it(open_: Open, tmp_path: Path) -> None:
    blocks, others = chain(4), chain(2, first=50)
    open_(tmp_path).write(*blocks, *others)
    next(path for path in files_in(tmp_path) if blocks[1].name in path.name).unlink()
    kept = {blocks[0].name, *(block.name for block in others)}
    assert open_(tmp_path).names() == kept
    assert {path.stem for path in files_in(tmp_path)} == kept


@pytest.fixture(scope="module", name="written")
def _written(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredBlock, str, bytes]:
    """A block, its file's path below the folder and the file's bytes."""
    folder = tmp_path_factory.mktemp("written")
    with opening() as open_:
        open_(folder).write(block := make(1, size=500))
    (path,) = files_in(folder)
    return block, str(path.relative_to(folder)), path.read_bytes()


def _is_never_trusted(block: StoredBlock, path: str, data: bytes) -> None:
    """A file with other content is lost and removed, by the scan already or by reading it."""
    for scans in (True, False):
        with TemporaryDirectory() as folder, opening() as open_:
            file = Path(folder) / path
            file.parent.mkdir(parents=True)
            file.write_bytes(data)
            opened = open_(Path(folder))
            if scans:
                for entry in opened.disk.scan():
                    assert (entry.tenant, entry.name, entry.tokens) == (block.tenant, block.name, block.tokens)
            assert opened.read(block.tenant, block.name) is None
            assert not file.exists()
            assert opened.disk.used_bytes == 0


@settings(max_examples=60)
@given(offset=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@example(offset=0.0, flip=1)
@example(offset=8.5 / 1900, flip=255)
@example(offset=11.5 / 1900, flip=255)
def test_any_damaged_byte_is_noticed(written: tuple[StoredBlock, str, bytes], offset: float, flip: int) -> None:
    block, path, data = written
    at = int(offset * len(data))
    _is_never_trusted(block, path, data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])


@settings(max_examples=30)
@given(share=st.floats(0, 1, exclude_max=True))
def test_any_missing_end_is_noticed(written: tuple[StoredBlock, str, bytes], share: float) -> None:
    block, path, data = written
    _is_never_trusted(block, path, data[: int(share * len(data))])


def test_a_longer_file_is_noticed(written: tuple[StoredBlock, str, bytes]) -> None:
    block, path, data = written
    _is_never_trusted(block, path, data + b"\0")


@pytest.mark.parametrize("moved", ["model", "tenant", "name"])
def test_a_file_in_the_place_of_another_is_removed_with_one_line(
    open_: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, moved: str
) -> None:
    block, other = make(1), make(2)
    open_(tmp_path).write(block, make(1, tenant="other"))
    (source,) = (path for path in files_in(tmp_path) if b"\xa4acme" in path.read_bytes())
    (their,) = (path.parent for path in files_in(tmp_path) if path != source)
    target, print_, tenant, name = {
        "model": (tmp_path / "ff" / source.parent.name / source.name, "ff", "acme", block.name),
        "tenant": (their / source.name, PRINT, "other", block.name),
        "name": (source.with_name(f"{other.name}.kv"), PRINT, "acme", other.name),
    }[moved]
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    assert open_(tmp_path, print_=print_).read(tenant, name) is None
    assert not target.exists()
    assert source.exists()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(target) in record.message


def test_files_of_others_are_left_alone(open_: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    block = make(1)
    open_(tmp_path).write(block)
    (path,) = files_in(tmp_path)
    strangers = [tmp_path / "README", path.with_suffix(".txt"), path.parent / "x.tmp", tmp_path / PRINT / "y.kv"]
    for stranger in strangers:
        stranger.write_text("mine")
    (path.parent / "folder.kv").mkdir()
    (path.parent / "link.kv").symlink_to(tmp_path / "README")
    imposter = path.with_name("0123.kv")
    imposter.write_text("not a block")
    assert open_(tmp_path).names() == {block.name}
    assert all(stranger.read_text() == "mine" for stranger in strangers)
    assert (path.parent / "link.kv").is_symlink()
    assert not imposter.exists()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_least_recently_used_goes_first_and_is_told(open_: Open, tmp_path: Path) -> None:
    blocks = [make(number, size=1000) for number in range(6)]
    (stored,) = open_(tmp_path / "sample").write(blocks[0])
    assert isinstance(stored, Stored)
    opened = open_(tmp_path / "kv", capacity=3 * stored.size)
    assert all(isinstance(report, Stored) for report in opened.write(*blocks[:3]))
    opened.disk.touch("acme", blocks[0].name)
    assert opened.read("acme", blocks[2].name) is not None
    assert opened.write(blocks[3])[0] == Lost("acme", blocks[1].name)
    assert opened.write(blocks[4])[0] == Lost("acme", blocks[0].name)
    assert opened.disk.used_bytes == 3 * stored.size
    # Another process knows who was used from the files' times.
    opened = open_(tmp_path / "kv", capacity=3 * stored.size)
    assert opened.names() == {block.name for block in blocks[2:5]}
    assert opened.write(blocks[5])[0] == Lost("acme", blocks[2].name)
    assert len(files_in(tmp_path / "kv")) == 3


def test_use_of_a_block_is_use_of_what_it_builds_on(open_: Open, tmp_path: Path) -> None:
    blocks, other = chain(3, size=1000), make(50, size=1000)
    (sample,) = open_(tmp_path / "sample").write(other)
    assert isinstance(sample, Stored)
    roomy = int(4.5 * sample.size)
    opened = open_(tmp_path / "kv", capacity=roomy)
    opened.write(*blocks, other)
    opened.disk.touch("acme", blocks[2].name)
    new = [make(number, size=1000) for number in range(60, 65)]
    lost = [report.name for report in opened.write(*new) if isinstance(report, Lost)]
    # After the stranger leaves come before what they build on, never the other way round.
    assert lost[:4] == [other.name, *(block.name for block in reversed(blocks))]
    # No block is written at the cost of its own beginning.
    long = chain(8, size=1000, first=70)
    reports = [report for report in opened.write(*long) if any(_is_about(report, block) for block in long)]
    assert [isinstance(report, Stored) for report in reports] == [True] * 4 + [False] * 4
    assert open_(tmp_path / "kv", capacity=roomy).names() == {block.name for block in long[:4]}


def test_a_rewritten_block_replaces_itself(open_: Open, tmp_path: Path) -> None:
    first, second = make(1, size=1000), make(2, size=1000)
    (sample,) = open_(tmp_path / "sample").write(first)
    assert isinstance(sample, Stored)
    opened = open_(tmp_path / "kv", capacity=2 * sample.size)
    opened.write(first, second)
    first.parts["cells"] = b"n" * 1000
    (again,) = opened.write(first)
    assert isinstance(again, Stored)
    assert opened.disk.used_bytes == 2 * sample.size
    assert opened.read("acme", first.name) == first
    second.parts["cells"] = b"n" * 1100  # was used least recently, and yet is not what has to go for this
    assert [type(report) for report in opened.write(second)] == [Lost, Stored]
    assert opened.read("acme", second.name) == second


def test_all_models_and_tenants_share_the_capacity(open_: Open, tmp_path: Path) -> None:
    theirs, ours = make(1, tenant="other"), make(2)
    open_(tmp_path, print_="ff").write(theirs)
    size = files_in(tmp_path)[0].stat().st_size
    opened = open_(tmp_path, capacity=int(1.5 * size))
    assert not opened.disk.scan()
    assert opened.disk.used_bytes == size
    assert [type(report) for report in opened.write(ours)] == [Stored]
    assert [path.stem for path in files_in(tmp_path)] == [ours.name]


def test_a_smaller_capacity_than_before_holds_from_the_scan_on(open_: Open, tmp_path: Path) -> None:
    blocks = chain(4)
    open_(tmp_path).write(*blocks)
    size = files_in(tmp_path)[0].stat().st_size
    assert open_(tmp_path, capacity=int(2.5 * size)).names() == {block.name for block in blocks[:2]}


def test_a_block_beyond_the_capacity_drives_nothing_out(open_: Open, tmp_path: Path) -> None:
    small, large = make(1, size=1000), make(2, size=20_000)
    opened = open_(tmp_path, capacity=10_000)
    opened.write(small)
    assert opened.write(large) == [Lost("acme", large.name)]
    assert opened.read("acme", small.name) == small
    assert open_(tmp_path, capacity=0).write(small)[-1] == Lost("acme", small.name)


def test_queued_writes_are_bounded_read_from_and_forgotten(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path, queue_bytes=3 * 3100)
    blocks = chain(3)
    loose = [make(number) for number in range(50, 54)]
    with opened.disk._changed:  # holds the thread up, as a slow disk does
        opened.disk.write(loose[0])
        for block in blocks:
            opened.disk.write(block)
        # The oldest is dropped, and of a path its end: the beginning is of use alone.
        assert opened.disk.collect() == [Lost("acme", loose[0].name)]
        opened.disk.write(loose[1])
        assert opened.disk.collect() == [Lost("acme", blocks[2].name)]
        opened.disk.forget("acme", loose[1].name)
        opened.disk.write(make(99, size=50_000))
        assert set(opened.disk.collect()) == {Lost("acme", block.name) for block in blocks[:2]}
        opened.disk.read("acme", make(99, size=50_000).name)
    loaded, stored = opened.reports(2)
    assert isinstance(loaded, Loaded)
    assert isinstance(stored, Stored)
    assert loaded.block == make(99, size=50_000)
    assert len(files_in(tmp_path)) == 1


def test_forgotten_blocks_are_gone(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path)
    block = make(1)
    opened.write(block)
    opened.disk.forget("acme", block.name)
    opened.disk.forget("acme", "ab")
    assert opened.write(block) != []  # forgotten before, so this one stays
    assert opened.read("acme", block.name) == block
    opened.disk.forget("acme", block.name)
    opened.disk.close(patience=20)
    assert not files_in(tmp_path)
    assert opened.disk.used_bytes == 0


def test_reads_go_before_writes(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path)
    block = make(1)
    opened.write(block)
    with opened.disk._changed:
        for number in range(2, 12):
            opened.disk.write(make(number))
        opened.disk.read("acme", block.name)
    assert isinstance(opened.reports(11)[0], Loaded)


def test_closing_finishes_what_is_queued(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path)
    blocks = chain(20, size=MB // 4)
    for block in blocks:
        opened.disk.write(block)
    opened.disk.touch("acme", blocks[0].name)
    opened.disk.close(patience=30)
    assert open_(tmp_path).names() == {block.name for block in blocks}


def test_closing_without_patience_leaves_at_once(open_: Open, tmp_path: Path) -> None:
    opened = open_(tmp_path)
    with opened.disk._changed:
        for number in range(50):
            opened.disk.write(make(number, size=MB))
        opened.disk.close(patience=0)
    opened.disk._thread.join(20)
    assert len(files_in(tmp_path)) <= 1


def test_processes_that_share_a_folder_evict_for_each_other(
    open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SURVEY_TTL_SECONDS", 0.0)
    blocks = [make(number, size=1000) for number in range(4)]
    (sample,) = open_(tmp_path / "sample").write(blocks[0])
    assert isinstance(sample, Stored)
    one, two = (open_(tmp_path / "kv", capacity=2 * sample.size) for _ in range(2))
    one.write(blocks[0], blocks[1])
    two.write(blocks[2])  # drives out blocks[0], which only `one` knew
    assert len(files_in(tmp_path / "kv")) == 2
    assert one.read("acme", blocks[0].name) is None
    assert one.read("acme", blocks[2].name) == blocks[2]
    two.write(blocks[3])  # drives out blocks[1]
    reports = one.write(make(9, size=1000))
    assert Lost("acme", blocks[1].name) in reports
    assert len(files_in(tmp_path / "kv")) == 2


def test_a_folder_that_vanishes_comes_back(open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SURVEY_TTL_SECONDS", 0.0)
    opened = open_(tmp_path / "kv")
    block = make(1)
    opened.write(block)
    shutil.rmtree(tmp_path / "kv")
    assert opened.read("acme", block.name) is None
    opened.write(block)
    assert opened.read("acme", block.name) == block


def _pausing(open_: Open, folder: Path, caplog: pytest.LogCaptureFixture) -> Opened:
    """Nothing can be written: blocks are lost, one line says so, and no file is left."""
    opened = open_(folder)
    opened.disk.scan()
    blocks = [make(number, size=MB) for number in range(3)]
    assert opened.write(*blocks) == [Lost("acme", block.name) for block in blocks]
    opened.disk.touch("acme", blocks[0].name)
    opened.disk.forget("acme", blocks[0].name)
    assert opened.read("acme", blocks[0].name) is None
    assert len([record for record in caplog.records if "cannot keep" in record.message]) == 1
    return opened


def test_a_full_disk_pauses_writing(
    open_: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (MB // 2, hard)
    )  # fails in the middle of a write, as a full disk does
    try:
        opened = _pausing(open_, tmp_path, caplog)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not files_in(tmp_path)
    opened.disk._paused_until = 0.0  # later
    assert isinstance(opened.write(make(1))[0], Stored)


def test_a_file_in_the_folders_place_pauses_writing(
    open_: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kv").write_text("mine")
    _pausing(open_, tmp_path / "kv", caplog)
    assert (tmp_path / "kv").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_can_still_be_read(
    open_: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    block = make(50)
    open_(tmp_path).write(block)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert _pausing(open_, tmp_path, caplog).read("acme", block.name) == block
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_leftovers_of_dead_processes_are_removed(open_: Open, tmp_path: Path) -> None:
    open_(tmp_path).write(make(1))
    (path,) = files_in(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, live, old = (
        path.with_name(f"{n}.{pid}.tmp") for n, pid in (("a", gone.pid), ("b", os.getppid()), ("c", 1))
    )
    for temporary in (dead, live, old):
        temporary.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    open_(tmp_path).disk.scan()
    assert files_in(tmp_path) == sorted([path, live])


def test_a_killed_process_leaves_nothing_wrong(open_: Open, tmp_path: Path) -> None:
    told: set[str] = set()
    for life in range(8):
        with subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), str(life)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            # Some time after it has told of a block it hashes the next one, is within a file or renames it.
            told.add(child.stdout.readline().strip())
            time.sleep(0.003 * life)
            if life == 7:
                _stop_within_a_file(child, tmp_path)
            child.kill()
            told |= {line.strip() for line in child.stdout if line.endswith("\n")}
    assert any(f".{child.pid}." in path.name for path in files_in(tmp_path))
    opened = open_(tmp_path)
    entries = opened.disk.scan()
    assert told <= {entry.name for entry in entries}
    assert {path.stem for path in files_in(tmp_path)} == {entry.name for entry in entries}
    for entry in entries:
        number = int.from_bytes(entry.tokens[:4], "big") // 1000
        assert opened.read(entry.tenant, entry.name) == make(number, entry.parent, entry.tenant, 8 * MB)


def test_fingerprints_differ_in_any_fact() -> None:
    facts: list[dict[str, str | int]] = [{}, {"a": 1}, {"a": "1"}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1}]
    assert len({compute_fingerprint(**each) for each in facts}) == len(facts)
    assert compute_fingerprint(a=1, b="x") == compute_fingerprint(b="x", a=1)


def _stop_within_a_file(child: subprocess.Popen[str], folder: Path) -> None:
    while True:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        if any(f".{child.pid}." in path.name for path in files_in(folder)):
            return
        child.send_signal(signal.SIGCONT)
        time.sleep(0.001)


def _write_until_killed(folder: Path, life: int) -> None:
    opened = Opened(folder, capacity=1 << 40)
    block: StoredBlock | None = None
    for number in range(1000):
        block = make(life * 1000 + number, block.name if block else "", size=8 * MB)
        opened.write(block)
        os.write(1, f"{block.name}\n".encode())


if __name__ == "__main__":
    _write_until_killed(Path(sys.argv[1]), int(sys.argv[2]))
