"""Whether llama.cpp survives a model file, tried in a process that may die of it.

A header can be well-formed and still say what no model is: heads that do not divide its width, more layers than
there are tensors. llama.cpp knows that better than anybody, but for much of it its answer is to abort.
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
    """Raise :class:`UnreadableModelError` if llama.cpp would take this process with it.

    What it refuses in an ordinary way is left to those who open the file.
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
    """Everything that is done with a model before its weights are read."""
    gguf = Gguf(path)
    window = ModelCard.of(gguf).trained_window
    plan_worker(path, window, EngineSettings(parallel=1, threads=1, cache_ram=0, cache_disk=0))


if __name__ == "__main__":
    _open(Path(sys.argv[1]))
