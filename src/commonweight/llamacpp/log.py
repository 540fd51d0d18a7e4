"""llama.cpp's log: warnings and errors are kept for messages; other lines are dropped unless they are captured."""

import contextlib
import ctypes
import logging
from collections import deque
from collections.abc import Iterator

from commonweight.llamacpp.structs import GGML_LOG_LEVEL_WARN, LogCallback

log = logging.getLogger(__name__)

_warnings: deque[str] = deque(maxlen=8)
_listeners: list[list[str]] = []


def _take_line(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    for listener in _listeners:
        listener.append(text.decode(errors="replace"))
    # llama.cpp explains a failed load only in its log; everything below a warning is noise.
    if level >= GGML_LOG_LEVEL_WARN:
        line = text.decode(errors="replace").strip()
        if line and line != ".":
            _warnings.append(line)
            log.debug("llama.cpp: %s", line)


# Held here, because llama.cpp keeps only a pointer.
_log_callback = LogCallback(_take_line)


def collect_log(library: ctypes.CDLL) -> None:
    """Have libllama log to here from now on, and nothing to the terminal."""
    library.llama_log_set.argtypes, library.llama_log_set.restype = (LogCallback, ctypes.c_void_p), None
    library.llama_log_set(_log_callback, None)


def take_errors() -> str:
    """Take llama.cpp's latest warnings and errors out of the buffer, joined by semicolons."""
    text = "; ".join(_warnings)
    _warnings.clear()
    return text


@contextlib.contextmanager
def capture_log() -> Iterator[list[str]]:
    """Collect llama.cpp's log lines until the block ends; some figures are logged only."""
    listener: list[str] = []
    _listeners.append(listener)
    try:
        yield listener
    finally:
        # By identity: two lists that heard the same are equal.
        _listeners[:] = [other for other in _listeners if other is not listener]
