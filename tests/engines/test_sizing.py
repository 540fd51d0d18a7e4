"""How large the engine is made: what llama.cpp will take is known before, and fits into what is free."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from outcomes import starter_options

from commonweight.engines.contract import EngineError
from commonweight.engines.llama import WorkerConfig, plan_worker
from commonweight.engines.llama.model import sizing
from commonweight.engines.llama.model.footprint import Footprint, UnallocatedModel
from commonweight.engines.llama.model.machine import Memory, read_memory
from commonweight.engines.llama.model.native import EXTRA_OUTPUTS, LoadedModel
from commonweight.engines.settings import EngineSettings
from commonweight.llamacpp.log import capture_log

MIB, GIB = 1 << 20, 1 << 30
PER_TOKEN = 30 * 2 * 3 * 64 * 2
"""Bytes: layers of the starter, keys and values, heads, their width, bytes of an f16."""


def footprint(chosen: WorkerConfig) -> Footprint:
    outline = UnallocatedModel(Path(chosen.path))
    try:
        return outline.measure_footprint(chosen)
    finally:
        outline.close()


def allocated(chosen: WorkerConfig) -> Footprint:
    """What llama.cpp reports to have allocated for the engine itself."""
    with capture_log() as lines:
        model = LoadedModel(
            Path(chosen.path),
            cells=chosen.cells,
            sequences=chosen.sequences,
            batch_rows=chosen.batch_rows,
            outputs=chosen.sequences + EXTRA_OUTPUTS,
            threads=chosen.threads,
            settings=chosen.settings,
        )
    model.close()
    kinds = ("(?:KV|RS)", "(?:compute|output)")
    kv, buffers = (
        sum(map(float, re.findall(rf"{kind} buffer size = +([\d.]+) MiB", "".join(lines)))) for kind in kinds
    )
    return Footprint(int(kv * MIB), int(buffers * MIB))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_what_a_context_takes_is_known_without_it(architecture: str, tmp_path: Path) -> None:
    path = tiny.write(tmp_path, architecture)
    chosen = WorkerConfig(path=str(path), window=4096, cells=8192, sequences=3, threads=1)
    told, real = footprint(chosen), allocated(chosen)
    assert real.kv > 0
    # llama.cpp rounds each figure to 0.01 MiB, and allocates logits of extra rows when there are some.
    assert told.kv == pytest.approx(real.kv, abs=0.05 * MIB)
    logits_of_extra_rows = EXTRA_OUTPUTS * tiny.VOCABULARY * 4
    assert told.buffers == pytest.approx(real.buffers + logits_of_extra_rows, abs=0.1 * MIB)


def test_what_the_starter_takes() -> None:
    chosen = starter_options(cells=4096)
    assert footprint(chosen).kv == 4096 * PER_TOKEN
    assert footprint(starter_options(cells=8192)).kv == 8192 * PER_TOKEN
    assert allocated(chosen).kv == 4096 * PER_TOKEN


def test_quantised_cells_take_34_bytes_for_32_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = sized(monkeypatch, kv_type="q8_0")
    assert footprint(chosen).kv == chosen.cells * PER_TOKEN // 64 * 34


def test_a_type_that_the_model_cannot_have_is_said_before_loading(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, "llama")  # its heads are narrower than a block of q8_0
    with pytest.raises(EngineError, match="q8_0"):
        plan_worker(path, 4096, EngineSettings(parallel=1, threads=1, kv_type="q8_0"))


STARTER = Path(starter_options().path)
PLENTY = Memory(64 * GIB, 32 * GIB)


def sized(
    monkeypatch: pytest.MonkeyPatch,
    machine: Memory = PLENTY,
    report: Callable[[str], None] = lambda _: None,
    **wishes: Any,
) -> WorkerConfig:
    """Options for the starter on such a machine."""
    monkeypatch.setattr(sizing, "read_memory", lambda: machine)
    return plan_worker(STARTER, 8192, EngineSettings(**{"threads": 1} | wishes), report)


def test_with_plenty_of_memory_every_job_has_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = sized(monkeypatch)
    assert (chosen.window, chosen.cells, chosen.sequences) == (8192, 8 * 8192, 8)
    assert (chosen.settings.kv_type, chosen.drafts) == ("f16", 15)
    assert 6 * GIB < chosen.ram_bytes < 8 * GIB
    assert sized(monkeypatch, Memory(1 << 50, 1 << 50)).ram_bytes == 8 * GIB


def test_unasked_the_cells_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sized(monkeypatch, parallel=255).cells == 131_072
    assert sized(monkeypatch, parallel=255, kv_memory=4 * GIB).cells == 4 * GIB // PER_TOKEN // 256 * 256


def test_a_context_beyond_the_training_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sized(monkeypatch, context=100_000).window == 8192
    assert sized(monkeypatch, context=1000).window == 1000


def test_kv_memory_is_what_the_cells_take_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = sized(monkeypatch, kv_memory=500 * MIB)
    assert footprint(chosen).kv <= 500 * MIB < footprint(chosen).kv + 256 * PER_TOKEN
    assert sized(monkeypatch, kv_memory=8192 * PER_TOKEN).cells == 8192
    assert sized(monkeypatch, kv_memory=30 * GIB).cells == 8 * 8192


def test_speculation_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sized(monkeypatch, speculation=False).drafts == 0


def test_the_decision_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    sized(monkeypatch, cache_ram=2_000_000_000, cache_disk=10_000_000_000, report=told.append)
    assert told == ["Cache: 65536 tokens in 1.5 GB, idle prefixes 2.0 GB in RAM, 10.0 GB on disk"]


def test_a_model_that_does_not_fit_says_so_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sizing.DoesNotFitError) as refused:
        sized(monkeypatch, Memory(1 * GIB, 760 * MIB))
    message = str(refused.value)
    numbers = r"96\.6 MB weights \+ 188\.7 MB KV cache for 8192 tokens \+ (\S+) MB buffers \+ 536\.9 MB headroom"
    found = re.search(
        rf"it needs {numbers} = (\S+) MB, and 796\.9 MB are available\. Try --context (\d+) or ", message
    )
    assert found, message
    buffers, total = float(found[1]), float(found[2])
    assert 96.6 + 188.7 + buffers + 536.9 == pytest.approx(total, abs=0.2)
    assert "--kv-type q8_0 or a smaller quantisation" in message
    context = int(found[3])
    assert sized(monkeypatch, Memory(1 * GIB, 760 * MIB), context=context).cells == context
    assert sized(monkeypatch, Memory(1 * GIB, 760 * MIB), kv_type="q8_0").window == 8192


def test_advice_that_would_not_help_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(sizing.DoesNotFitError) as refused:
        sized(monkeypatch, Memory(1 * GIB, 100 * MIB))
    assert str(refused.value).endswith("are available. Try a smaller quantisation of the model")


def test_kv_memory_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        sizing.DoesNotFitError, match=r"1\.1 GB KV cache for 46592 tokens.* or a smaller --kv-memory"
    ):
        sized(monkeypatch, Memory(1 * GIB, 1 * GIB), kv_memory=1 * GIB)


PER_CELL, BUFFERS, WEIGHTS = 100_000, 50 * MIB, 3 * GIB


class FakeModel:
    """A model of 3 GiB."""

    weights = WEIGHTS

    def __init__(self, path: Path) -> None:
        pass

    def close(self) -> None:
        pass

    def measure_footprint(self, chosen: WorkerConfig) -> Footprint:
        return Footprint(chosen.cells * PER_CELL, BUFFERS + chosen.cells * 1000)


@contextmanager
def fake(machine: Memory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizing, "UnallocatedModel", FakeModel)
        patch.setattr(sizing, "read_memory", lambda: machine)
        yield


sizes = st.none() | st.integers(0, 64 * GIB)


@given(
    total=st.integers(1 * GIB, 256 * GIB),
    free=st.floats(0, 1),
    window=st.integers(64, 200_000),
    sequences=st.integers(1, 255),
    kv_memory=sizes,
    cache_ram=sizes,
)
def test_never_more_than_is_available(
    total: int, free: float, window: int, sequences: int, kv_memory: int | None, cache_ram: int | None
) -> None:
    available = int(total * free)
    headroom = max(512 * MIB, min(total // 10, 4 * GIB))
    wishes: dict[str, Any] = {"kv_memory": kv_memory, "cache_ram": cache_ram, "cache_disk": 0}
    least = (
        WEIGHTS
        + FakeModel(Path())
        .measure_footprint(WorkerConfig(path="", window=window, cells=window, sequences=sequences, threads=1))
        .total
    )
    with fake(Memory(total, available)):
        try:
            settings = EngineSettings(context=window, parallel=sequences, threads=1, **wishes)
            chosen = plan_worker(Path("model.gguf"), window, settings)
        except sizing.DoesNotFitError as error:
            too_small = kv_memory is not None and kv_memory < window * PER_CELL
            assert too_small or kv_memory is not None or least + headroom + (cache_ram or 0) > available
            assert ("--kv-memory" in str(error)) == (kv_memory is not None)
            return
    used = WEIGHTS + FakeModel(Path()).measure_footprint(chosen).total + chosen.ram_bytes
    assert used + headroom <= available
    assert window <= chosen.cells <= window * sequences
    assert chosen.ram_bytes == cache_ram or (cache_ram is None and 0 <= chosen.ram_bytes <= 8 * GIB)
    if kv_memory is not None:
        assert chosen.cells * PER_CELL <= kv_memory


def test_scarce_memory_is_shared_between_cells_and_idle_prefixes() -> None:
    with fake(Memory(16 * GIB, 12 * GIB)):
        chosen = plan_worker(Path(), 131_072, EngineSettings(context=16_384, threads=1))
    room = 12 * GIB - 16 * GIB // 10 - WEIGHTS
    assert chosen.ram_bytes == pytest.approx(room / 4, abs=1)
    spent = FakeModel(Path()).measure_footprint(chosen).total + chosen.ram_bytes
    assert spent <= room < spent + 256 * (PER_CELL + 1000)


def test_the_disk_cache_is_off_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = sized(monkeypatch, cache_disk=0)
    assert (chosen.disk_folder, chosen.disk_bytes) == (None, 0)


def test_without_room_in_memory_nothing_is_written_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = sized(monkeypatch, cache_ram=0, cache_disk=10_000_000_000)
    assert (chosen.ram_bytes, chosen.disk_folder, chosen.disk_bytes) == (0, None, 0)


def test_the_disk_cache_takes_a_tenth_of_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "not yet there" / name)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 30 * GIB})())
    chosen = sized(monkeypatch)
    assert chosen.disk_folder == str(tmp_path / "not yet there" / "commonweight" / "prefixes")
    assert chosen.disk_bytes == 3 * GIB
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 300 * GIB})())
    assert sized(monkeypatch).disk_bytes == 10 * GIB
    assert sized(monkeypatch, cache_disk=77).disk_bytes == 77
    assert not (tmp_path / "not yet there").exists()


OF_FILES = "anon 5\ninactive_file 70\nactive_file 30\nslab 9\n"
V2, V1 = ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")


@pytest.mark.parametrize("names", [V2, V1])
def test_the_limit_of_a_container_counts(names: tuple[str, str], tmp_path: Path) -> None:
    limit, usage = (tmp_path / name for name in names)
    limit.parent.mkdir(exist_ok=True)
    limit.write_text("10000\n")
    usage.write_text("4000\n")
    (limit.parent / "memory.stat").write_text(OF_FILES)
    assert read_memory(tmp_path) == Memory(total=10_000, available=6_100)
    usage.write_text("11000\n")
    assert read_memory(tmp_path) == Memory(total=10_000, available=0)


@pytest.mark.parametrize("limit", [None, "max\n", "9223372036854771712\n"])
def test_without_a_limit_the_machine_counts(limit: str | None, tmp_path: Path) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("4000\n")
        (tmp_path / "memory.stat").write_text(OF_FILES)
    machine = read_memory(tmp_path)
    assert 100 * MIB < machine.available <= machine.total < 1 << 50
