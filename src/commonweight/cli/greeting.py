"""What ``serve`` and ``chat`` print of a model that is ready: where it computes, and what to try next."""

import shlex
import shutil
import sys
from pathlib import Path

from rich.filesize import decimal

from commonweight.catalog.suggestions import suggest_model
from commonweight.engines.llama import LlamaEngine
from commonweight.engines.llama.model.machine import count_physical_cores, read_memory
from commonweight.llamacpp import api as llama
from commonweight.turn import Assistant


def describe_assistant(assistant: Assistant) -> str:
    """Model, window, where it computes and with which library."""
    engine = assistant.engine
    text = f"{assistant.card.name}, {engine.window} tokens of context"
    if not isinstance(engine, LlamaEngine):
        return text
    cores = count_physical_cores()
    where = "a GPU" if llama.llama_supports_gpu_offload() else f"{cores} core{'s' * (cores != 1)}"
    return f"{text}, on {where} with llama.cpp {llama.library.version} ({llama.library.kind})"


def suggest_next(assistant: Assistant, command: str) -> list[str]:
    """Lines that name a better model for this machine, if there is one that fits. ``command``: serve or chat."""
    if not isinstance(assistant.engine, LlamaEngine):
        return []
    found = suggest_model(read_memory().total, count_physical_cores(), assistant.card.size_bytes)
    if found is None:
        return []
    return [
        f"A better model that fits this machine: {found.name}, {decimal(found.size_bytes)}, {found.licence}:",
        f"    {find_program()} {command} --model {found.reference}",
    ]


def find_program() -> str:
    """How this program can be called again from the same folder."""
    called = Path(sys.argv[0])
    if called.stem == "__main__":
        return f"{shlex.quote(sys.executable)} -m commonweight"
    on_path = shutil.which(called.name)
    return called.name if on_path and Path(on_path).samefile(called) else shlex.quote(str(called))
