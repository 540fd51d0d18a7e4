"""Crash test of a model file: opens it with llama.cpp in a child process.

A header can be well-formed and still describe an impossible model: heads that do not divide its width, more
layers than there are tensors. llama.cpp detects that, but often by aborting the process.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.header import UnreadableModelError, check_header
from commonweight.catalog.model import ModelCard
from commonweight.engines.llama.model.sizing import plan_worker
from commonweight.engines.settings import EngineSettings

TIMEOUT_SECONDS = 120.0
"""Seconds. Most models take less than one; no weights are read."""


def check_loads(path: Path) -> None:
    """Raise :class:`UnreadableModelError` if llama.cpp would abort the process that opens the file.

    Ordinary errors are left to the code that opens the file.
    """
    check_header(path)
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, path],
            # Where a debugger is installed, ggml has it write pages about an abort.
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableModelError(f"llama.cpp does not come to an end with {path}") from error
    if done.returncode < 0:
        said = re.findall(r"GGML_ASSERT\(.*\) failed", done.stderr.decode(errors="replace"))
        reason = said[0] if said else signal.Signals(-done.returncode).name
        raise UnreadableModelError(f"llama.cpp breaks down over {path}, which must be damaged: {reason}")


def _open(path: Path) -> None:
    """Open a model as far as possible without reading its weights."""
    gguf = Gguf(path)
    window = ModelCard.from_gguf(gguf).trained_window
    plan_worker(path, window, EngineSettings(parallel=1, threads=1, cache_ram=0, cache_disk=0))


if __name__ == "__main__":
    _open(Path(sys.argv[1]))
