"""What a server needs of its machine, looked at before it is missed: what is there, and what to do about it."""

import asyncio
import contextlib
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import platformdirs
import psutil
from rich.filesize import decimal

from commonweight import __version__
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.integrity import check_content
from commonweight.catalog.model import ModelCard
from commonweight.catalog.reference import ModelNotFoundError
from commonweight.catalog.resolve import resolve_local
from commonweight.cli.data import Data
from commonweight.cli.loading import Elsewhere, Setup, open_remote
from commonweight.cli.terminal import UserError
from commonweight.cli.tracing import ENDPOINTS
from commonweight.engines.contract import EngineError
from commonweight.engines.llama import options
from commonweight.engines.llama.model.load_check import check_loads
from commonweight.engines.llama.model.machine import count_physical_cores, read_memory
from commonweight.store import DatabaseError, revisions

log = logging.getLogger(__name__)

LEAST_FREE, LITTLE_FREE = 64 << 20, 2 << 30
"""Bytes of a disk: with less nothing works for long, and with less than the second it soon may not."""

Status = Literal["ok", "warn", "fail"]

_INSTRUCTIONS = {"AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "AVX512": "avx512f", "NEON": "asimd"}
"""What llama.cpp calls them, and what the kernel does."""


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    subject: str
    status: Status
    text: str
    advice: str = ""
    """What to do about it."""


def insist(finding: Finding) -> None:
    """Go on only if nothing failed.

    Raises:
        UserError: it did.
    """
    said = "; ".join(filter(None, (finding.text, finding.advice)))
    if finding.status == "fail":
        raise UserError(f"{finding.subject}: {said}")
    if finding.status == "warn":
        log.warning("%s: %s", finding.subject, said)


def versions() -> Finding:
    """Which programs these are."""
    parts = [f"Commonweight {__version__}", f"Python {platform.python_version()}"]
    for package in ("llama-cpp-python", "llguidance"):
        with contextlib.suppress(PackageNotFoundError):
            parts.append(f"{package} {version(package)}")
    return Finding("versions", "ok", f"{', '.join(parts)}, on {platform.platform(terse=True)}")


def processor() -> Finding:
    """Cores, and whether llama.cpp was built for their instructions."""
    import llama_cpp.llama_cpp as llama

    information = llama.llama_print_system_info().decode()
    built = {name for name in _INSTRUCTIONS if f" {name} = 1" in information}
    has = {name for name, flag in _INSTRUCTIONS.items() if flag in _flags()}
    cores = f"{count_physical_cores()} cores, {os.cpu_count()} threads"
    text = f"{cores}; llama.cpp uses {', '.join(sorted(built)) or 'no extensions'}"
    if has and (lacking := built - has):
        needs = ", ".join(sorted(lacking))
        return Finding("processor", "fail", text, f"it lacks {needs}: build llama-cpp-python for it")
    if unused := has - built:
        advice = f"it has {', '.join(sorted(unused))}, too: llama-cpp-python built for it would be faster"
        return Finding("processor", "warn", text, advice)
    return Finding("processor", "ok", text)


def _flags() -> frozenset[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, values = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(values.split())
    return frozenset()


def gpu() -> Finding:
    """Whether there is one, and llama.cpp was built to use it."""
    import llama_cpp.llama_cpp as llama

    has_gpu = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
    if llama.llama_supports_gpu_offload():
        return Finding("GPU", "ok", "llama.cpp was built to use one")
    if has_gpu:
        advice = "build llama-cpp-python with CMAKE_ARGS=-DGGML_CUDA=on (NVIDIA) or -DGGML_HIP=on (AMD)"
        return Finding("GPU", "warn", "there is one, and this build of llama.cpp does not use it", advice)
    return Finding("GPU", "ok", "none; the processor computes")


def free_memory() -> Finding:
    """What is left of it, and whether some of it is on disk."""
    total, available = read_memory()
    text = f"{decimal(available)} of {decimal(total)} available"
    if (swapped := psutil.swap_memory().used) > total / 10:
        return Finding("memory", "warn", f"{text}, {decimal(swapped)} swapped out", "end what else runs")
    return Finding("memory", "ok", text)


def model(setup: Setup) -> Iterator[Finding]:
    """The file, its content, and whether it fits into memory. Nothing is downloaded."""
    try:
        path = resolve_local(setup.model)
        if path is None:
            yield Finding("model", "warn", f"{setup.model} is not here yet", "serve pulls it when it starts")
            return
        if setup.elsewhere is None:
            check_loads(path)
        with contextlib.closing(Gguf(path)) as gguf:
            card = ModelCard.of(gguf)
            found = asyncio.run(servers(setup, setup.elsewhere, gguf)) if setup.elsewhere else None
        is_known = check_content(path)
    except (OSError, ModelNotFoundError) as error:
        yield Finding("model", "fail", str(error))
        return
    checked = "its content is as published" if is_known else "no checksum is known of it"
    yield Finding("model", "ok", f"{card.id}, {decimal(path.stat().st_size)}; {checked}")
    if found is not None:
        yield found
        return
    told: list[str] = []
    try:
        options(
            path,
            card.trained_window,
            context=setup.context,
            sequences=setup.parallel,
            threads=setup.threads,
            kv_memory=setup.kv_memory,
            kv_type=setup.kv_type,
            cache_ram=setup.cache_ram,
            cache_disk=setup.cache_disk,
            tell=told.append,
        )
    except EngineError as error:
        yield Finding("model in memory", "fail", str(error))
    else:
        yield Finding("model in memory", "ok", "".join(told))


async def servers(setup: Setup, elsewhere: Elsewhere, gguf: Gguf) -> Finding:
    """Whether those that compute are there, and have the same model."""
    told: list[str] = []
    try:
        async with open_remote(setup, elsewhere, gguf, b"", told.append):
            absent = len(elsewhere.urls) - len(told)
            advice = f"{absent} of {len(elsewhere.urls)} do not answer: are they running?" if absent else ""
            return Finding("servers", "warn" if absent else "ok", "; ".join(told), advice)
    except EngineError as error:
        return Finding("servers", "fail", str(error))


def folder(subject: str, path: Path, remedy: str) -> Finding:
    """Whether a folder can be written to, or made, and has space. ``remedy`` is what else a person can do."""
    existing = next(place for place in (path, *path.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(subject, "fail", f"cannot write to {path}: {error.strerror}", remedy)
    text = f"{path}, {decimal(free)} free"
    if free < LITTLE_FREE:
        return Finding(subject, "fail" if free < LEAST_FREE else "warn", text, f"make space there, or {remedy}")
    return Finding(subject, "ok", text)


def data_folder(data: Data) -> Finding:
    """Where keys, batches and files are kept."""
    return folder("data folder", data.folder, "choose another with --data")


def cache_folder() -> Finding:
    """Where prefixes are kept across restarts. Without it a server runs all the same."""
    found = folder("cache folder", platformdirs.user_cache_path("commonweight"), "set --cache-disk 0")
    return replace(found, status="warn") if found.status == "fail" else found


async def database(data: Data) -> Finding:
    """Whether it can be reached, and which version its tables have. Nothing is changed."""
    try:
        found = await revisions(data.url or f"sqlite+aiosqlite:///{data.folder / 'commonweight.db'}")
    except DatabaseError as error:
        return Finding("database", "fail", str(error), "is the URL right, and the database running?")
    if not found.is_known:
        text = f"changed by a newer version of Commonweight ({found.current})"
        return Finding("database", "fail", text, "run that version")
    if found.current is None:
        return Finding("database", "ok", "no tables yet; serve makes them")
    if found.current != found.newest:
        text = f"tables of version {found.current}; serve brings them to {found.newest}"
        return Finding("database", "warn", text, "make a copy first, since there is no way back")
    return Finding("database", "ok", f"tables of version {found.current}, up to date")


def tracing() -> Finding:
    """Whether traces are asked for, and can be sent."""
    asked = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if asked is None:
        return Finding("traces", "ok", "off; OTEL_EXPORTER_OTLP_ENDPOINT would switch them on")
    try:
        version("opentelemetry-exporter-otlp-proto-http")
    except PackageNotFoundError:
        return Finding("traces", "fail", f"{asked} asks for them", "pip install 'commonweight[tracing]'")
    return Finding("traces", "ok", f"on, since {asked} is set")
