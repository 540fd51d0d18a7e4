"""Checks of the machine and the settings of a server, each with advice."""

import asyncio
import contextlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from rich.filesize import decimal

from commonweight import __version__
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.integrity import check_content
from commonweight.catalog.model import ModelCard
from commonweight.catalog.reference import ModelNotFoundError
from commonweight.catalog.resolve import resolve_local
from commonweight.catalog.starter import find_starter
from commonweight.engines.contract import EngineError
from commonweight.engines.llama import plan_worker
from commonweight.engines.llama.model.load_check import check_loads
from commonweight.engines.llama.model.machine import count_physical_cores, read_memory
from commonweight.engines.llama.model.speed import ANSWER_TOKENS, PROMPT_TOKENS, measure_library
from commonweight.engines.llama.model.threads import LEAST_TAKEN
from commonweight.engines.settings import RemoteSettings
from commonweight.llamacpp import api as llama
from commonweight.llamacpp.library import NATIVE_ADVICE, list_installed, read_cpu_flags
from commonweight.prompting import Renderer, Tokenizer
from commonweight.runtime.assistant import find_excesses, make_remote_engine
from commonweight.runtime.data import DataFolder
from commonweight.runtime.errors import UserError
from commonweight.runtime.findings import Finding, check_cache_folder, check_data_folder
from commonweight.runtime.network import bind_listener
from commonweight.runtime.settings import AssistantSettings
from commonweight.runtime.tracing import ENDPOINT_VARIABLES
from commonweight.store import DatabaseError, read_revisions

LOAD_SECONDS = 0.5
"""Seconds for which the load of the machine is measured."""

_INSTRUCTIONS = {
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "NEON": "asimd",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}
"""What llama.cpp calls them, and what the kernel does."""


def run_checks(settings: AssistantSettings, data: DataFolder, host: str, port: int) -> Iterator[Finding]:
    """Run all checks, in order. Nothing is changed or downloaded."""
    yield check_versions()
    yield check_library(find_starter())
    yield check_processor()
    yield check_load()
    yield check_memory()
    yield from check_model(settings)
    yield check_address(host, port)
    yield check_data_folder(data)
    yield check_cache_folder()
    yield asyncio.run(check_database(data))
    yield check_tracing()


def check_versions() -> Finding:
    """Report the versions."""
    parts = [f"Commonweight {__version__}", f"Python {platform.python_version()}"]
    parts.append(f"llguidance {version('llguidance')}")
    return Finding("versions", "ok", f"{', '.join(parts)}, on {platform.platform(terse=True)}")


def check_library(model: Path | None) -> Finding:
    """Report which llama.cpp computes, what it was built for, and what compiling it here would bring.

    Args:
        model: what both libraries are measured with, where both are installed.
    """
    library = llama.library
    information = llama.llama_print_system_info().decode()
    built = {name for name in _INSTRUCTIONS if f" {name} = 1" in information}
    has = {name for name, flag in _INSTRUCTIONS.items() if flag in read_cpu_flags()}
    text = (
        f"{library.version} ({library.commit}), {library.kind}, from {library.package}; "
        f"it uses {', '.join(sorted(built)) or 'no extensions'}"
    )
    if has and (lacking := built - has):
        return Finding(
            "llama.cpp", "fail", text, f"this processor lacks {', '.join(sorted(lacking))}: {NATIVE_ADVICE}"
        )
    if model is not None and list_installed() == ["native", "prebuilt"]:
        return Finding("llama.cpp", "ok", f"{text}; {_compare_libraries(model)}")
    if library.kind == "prebuilt" and (unused := has - built):
        advice = f"{', '.join(sorted(unused))} of this processor stay unused; to use them, {NATIVE_ADVICE}"
        return Finding("llama.cpp", "ok", text, advice)
    return Finding("llama.cpp", "ok", text)


def _compare_libraries(model: Path) -> str:
    threads = count_physical_cores()
    try:
        native, prebuilt = (measure_library(kind, model, threads) for kind in ("native", "prebuilt"))
    except EngineError as error:
        return str(error)
    return (
        f"measured here: {PROMPT_TOKENS} tokens of a prompt in {native.prompt:.2f} s native, "
        f"{prebuilt.prompt:.2f} s prebuilt, {ANSWER_TOKENS} tokens of an answer in {native.answer:.2f} s and "
        f"{prebuilt.answer:.2f} s"
    )


def check_processor() -> Finding:
    """Report the cores and the GPU, and whether llama.cpp uses the latter."""
    text = f"{count_physical_cores()} cores, {os.cpu_count()} threads"
    if llama.llama_supports_gpu_offload():
        return Finding("processor", "ok", f"{text}; a GPU computes, too")
    if Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists():
        advice = "compile llama.cpp for it: CMAKE_ARGS=-DGGML_CUDA=on (NVIDIA) or -DGGML_HIP=on (AMD) make native"
        return Finding("processor", "warn", f"{text}; there is a GPU, and this llama.cpp does not use it", advice)
    return Finding("processor", "ok", f"{text}; no GPU that can be used")


def check_load() -> Finding:
    """Check how many cores other processes use at the moment."""
    cores = os.cpu_count() or 1
    busy = psutil.cpu_percent(interval=LOAD_SECONDS) / 100 * cores
    text = f"other processes use {busy:.1f} of {cores} threads"
    if busy <= LEAST_TAKEN:
        return Finding("load", "ok", text)
    advice = "answers are slower meanwhile; a server gives up a thread for each core that others use"
    return Finding("load", "warn", text, advice)


def check_memory() -> Finding:
    """Check how much memory is free, and whether some is swapped."""
    total, available = read_memory()
    text = f"{decimal(available)} of {decimal(total)} available"
    if (swapped := psutil.swap_memory().used) > total / 10:
        return Finding("memory", "warn", f"{text}, {decimal(swapped)} swapped out", "end what else runs")
    return Finding("memory", "ok", text)


def check_model(settings: AssistantSettings) -> Iterator[Finding]:
    """Check the file, its content, and whether it fits into memory. Nothing is downloaded."""
    try:
        path = resolve_local(settings.model)
        if path is None:
            yield Finding("model", "warn", f"{settings.model} is not here yet", "serve pulls it when it starts")
            return
        if settings.remote is None:
            check_loads(path)
        with contextlib.closing(Gguf(path)) as gguf:
            card = ModelCard.from_gguf(gguf)
            Renderer(Tokenizer(gguf), card.chat_template)  # tries the template
            found = asyncio.run(check_servers(settings, settings.remote, gguf)) if settings.remote else None
        is_known = check_content(path)
    except (OSError, ModelNotFoundError) as error:
        yield Finding("model", "fail", str(error))
        return
    checked = "its content is as published" if is_known else "no checksum is known of it"
    yield Finding("model", "ok", f"{card.id}, {decimal(path.stat().st_size)}; {checked}")
    if found is not None:
        yield found
        return
    lines: list[str] = []
    try:
        plan_worker(path, card.trained_window, settings.engine, lines.append)
    except EngineError as error:
        yield Finding("model in memory", "fail", str(error))
    else:
        excesses = "; ".join(find_excesses(settings, card))
        yield Finding("model in memory", "warn" if excesses else "ok", "".join(lines), excesses)


async def check_servers(settings: AssistantSettings, remote: RemoteSettings, gguf: Gguf) -> Finding:
    """Check whether remote servers answer, and have the same model."""
    lines: list[str] = []
    card = ModelCard.from_gguf(gguf)
    renderer = Renderer(Tokenizer(gguf), card.chat_template, card.generation.system)
    engine = make_remote_engine(settings, remote, gguf, renderer, b"")
    try:
        await engine.start(lines.append)
    except EngineError as error:
        return Finding("servers", "fail", str(error))
    finally:
        await engine.aclose()
    absent = len(remote.urls) - len(lines)
    advice = f"{absent} of {len(remote.urls)} do not answer: are they running?" if absent else ""
    return Finding("servers", "warn" if absent else "ok", "; ".join(lines), advice)


def check_address(host: str, port: int) -> Finding:
    """Check whether a server can listen on an address."""
    try:
        bind_listener(host, port).close()
    except UserError as error:
        return Finding("address", "fail", str(error))
    return Finding("address", "ok", f"{host}:{port} is free" if port else f"{host} has free ports")


async def check_database(data: DataFolder) -> Finding:
    """Check whether the database can be reached, and its schema's version. Nothing is changed."""
    try:
        found = await read_revisions(data.database or f"sqlite+aiosqlite:///{data.path / 'commonweight.db'}")
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


def check_tracing() -> Finding:
    """Check whether traces are configured, and can be sent."""
    asked = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
    if asked is None:
        return Finding("traces", "ok", "off; OTEL_EXPORTER_OTLP_ENDPOINT would switch them on")
    try:
        version("opentelemetry-exporter-otlp-proto-http")
    except PackageNotFoundError:
        return Finding("traces", "fail", f"{asked} asks for them", "pip install 'commonweight[tracing]'")
    return Finding("traces", "ok", f"on, since {asked} is set")
