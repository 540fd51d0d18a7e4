"""GGUF files: metadata and vocabulary, read by llama.cpp itself without loading the weights."""

from pathlib import Path

from commonweight.catalog.header import UnreadableModelError, check_header
from commonweight.llamacpp import api as llama
from commonweight.llamacpp.buffers import read_metadata
from commonweight.llamacpp.log import take_errors


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
            self._model = 0

    def _read_metadata(self) -> dict[str, str]:
        count = llama.llama_model_meta_count(self._model)
        found: dict[str, str] = {}
        for i in range(count):
            key = read_metadata(llama.llama_model_meta_key_by_index, self._model, i)
            found[key] = read_metadata(llama.llama_model_meta_val_str_by_index, self._model, i)
        return found
