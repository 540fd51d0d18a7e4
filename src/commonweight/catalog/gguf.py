"""GGUF files: metadata and vocabulary, read by llama.cpp itself without loading the weights."""

import contextlib
import ctypes
import logging
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp.llama_cpp as llama

from commonweight.catalog.header import UnreadableModelError, check_header

log = logging.getLogger(__name__)

_GGML_LOG_LEVEL_WARN = 3
_warnings: deque[str] = deque(maxlen=8)
_listeners: list[list[str]] = []


def _collect_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    for listener in _listeners:
        listener.append(text.decode(errors="replace"))
    # llama.cpp explains a failed load only in its log; everything below a warning is noise.
    if level >= _GGML_LOG_LEVEL_WARN:
        line = text.decode(errors="replace").strip()
        if line and line != ".":
            _warnings.append(line)
            log.debug("llama.cpp: %s", line)


# Held here, because llama.cpp keeps only a pointer.
_log_callback = llama.llama_log_callback(_collect_log)
llama.llama_log_set(_log_callback, None)
llama.llama_backend_init()


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


class Gguf:
    """GGUF file opened without its weights: metadata as text, and llama.cpp's handle of the vocabulary."""

    def __init__(self, path: Path) -> None:
        check_header(path)
        params = llama.llama_model_default_params()
        params.vocab_only = True
        take_errors()
        self._model = llama.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise UnreadableModelError(f"llama.cpp cannot read {path}: {take_errors() or 'no reason given'}")
        self.path = path
        self.metadata = self._read_metadata()
        self.vocab: int = llama.llama_model_get_vocab(self._model)
        self.size_bytes: int = llama.llama_model_size(self._model)
        self.parameters: int = llama.llama_model_n_params(self._model)

    def close(self) -> None:
        """Free the native handle; ``vocab`` must not be used afterwards."""
        if self._model:
            llama.llama_model_free(self._model)
            self._model = None

    def _read_metadata(self) -> dict[str, str]:
        count = llama.llama_model_meta_count(self._model)
        found: dict[str, str] = {}
        for i in range(count):
            key = _read_text(llama.llama_model_meta_key_by_index, self._model, i)
            found[key] = _read_text(llama.llama_model_meta_val_str_by_index, self._model, i)
        return found


def _read_text(read: Callable[[int, int, object, int], int], model: int, index: int) -> str:
    """Call a snprintf-like function, again with a larger buffer if the text does not fit."""
    room = 1024
    while True:
        buffer = ctypes.create_string_buffer(room)
        length = read(model, index, buffer, room)
        if length < room:
            return buffer.value.decode(errors="replace")
        room = length + 1
