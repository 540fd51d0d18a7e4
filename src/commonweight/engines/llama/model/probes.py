"""Linear probes on layer inputs, which llama.cpp exposes for every row of a batch."""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from commonweight.engines.contract import Probe
from commonweight.engines.llama.model.native import read_floats
from commonweight.llamacpp import api as llama

# Exported, but as C++: mangled names (the same on Linux and macOS: dlsym adds macOS's underscore itself).
# They encode the argument types, so a llama.cpp with other types is found to lack the function.
SET_LAYER_INPUT = "_Z30llama_set_embeddings_layer_inpP13llama_contextjb"
GET_LAYER_INPUT = "_Z30llama_get_embeddings_layer_inpP13llama_contextj"

ARCHITECTURES = frozenset(
    {
        "bailingmoe3",
        "gemma4",
        "gpt-oss",
        "hunyuan-dense",
        "hunyuan_vl",
        "lfm2",
        "lfm2moe",
        "llama",
        "mimo2",
        "minimax-01",
        "minimax-m2",
        "muse-glimmer",
        "nanbeige",
        "nemotron_h",
        "nemotron_h_moe",
        "qwen3",
        "qwen35",
        "qwen35moe",
        "qwen3moe",
        "qwen3next",
    }
)
"""Architectures whose graphs name the input of every layer (``t_layer_inp`` in llama.cpp's ``src/models``);
elsewhere asking for one aborts the process. Left out, though named there: ``deepseek4`` (a mean of parallel
streams, no layer's input), ``qwen4exp`` (wider than the model, which aborts) and ``llama-embed`` (does not
generate)."""


class LayerTaps:
    """Layer inputs of a context: selected before a decode, reduced to probe scores after it.

    llama.cpp keeps float32 of ``n_batch x width`` for each selected layer, filled in the order of the batch
    whether or not a row has logits, and overwritten by the next decode.
    """

    def __init__(self, context: int) -> None:
        model = llama.llama_get_model(context)
        architecture = ctypes.create_string_buffer(128)
        llama.llama_model_meta_val_str(model, b"general.architecture", architecture, len(architecture))
        self._architecture = architecture.value.decode(errors="replace")
        self._layers: int = llama.llama_model_n_layer(model)
        self._width: int = llama.llama_model_n_embd(model)
        self._rows: int = llama.llama_n_batch(context)
        self._context = context
        self._selected: frozenset[int] = frozenset()
        self._set: Any = llama.library.find_symbol(SET_LAYER_INPUT)
        self._get: Any = llama.library.find_symbol(GET_LAYER_INPUT)
        if self._set and self._get:
            self._set.argtypes, self._set.restype = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_bool), None
            self._get.argtypes, self._get.restype = (ctypes.c_void_p, ctypes.c_uint32), ctypes.c_void_p

    @property
    def supported(self) -> bool:
        """Whether this llama.cpp exposes layer inputs of this model."""
        return self._architecture in ARCHITECTURES and bool(self._set and self._get)

    def check_probe(self, probe: Probe) -> str | None:
        """Reason, fit for a client, why the probe cannot be used on this model; ``None`` if it can."""
        if not self.supported:
            return f"probes do not work on models of the architecture {self._architecture!r} here"
        if not probe.layers or probe.heads < 1:
            return f"probe {probe.version!r} has no layers or no heads"
        if outside := [layer for layer in probe.layers if not 0 <= layer < self._layers]:
            return f"probe {probe.version!r} reads layers {outside}; this model has layers 0 to {self._layers - 1}"
        expected = len(probe.layers) * self._width * probe.heads * 4
        if len(probe.weights) != expected:
            return (
                f"probe {probe.version!r} has {len(probe.weights)} bytes of weights, not the {expected} that "
                f"{len(probe.layers)} layers, width {self._width} and {probe.heads} heads take in float32"
            )
        # They would make scores that exceed no threshold.
        if not np.isfinite(self._weights(probe)).all():
            return f"probe {probe.version!r} has weights that are not finite"
        return None

    def select_layers(self, layers: Iterable[int]) -> None:
        """Have the following decodes keep the inputs of exactly these layers: all that running probes read.

        A change makes the next decode reserve its graphs again (milliseconds); naming the same layers is free.

        Raises:
            ValueError: there is no such layer, or none can be had on this model; nothing has changed.
        """
        wanted = frozenset(layers)
        if wanted and not (self.supported and min(wanted) >= 0 and max(wanted) < self._layers):
            raise ValueError(f"no input of layers {sorted(wanted)}: {self._architecture!r}, {self._layers} layers")
        for layer in wanted ^ self._selected:
            self._set(self._context, layer, layer in wanted)
        self._selected = wanted

    def compute_scores(self, probe: Probe, rows: slice) -> npt.NDArray[np.float32]:
        """``sum over layers of state @ weights`` at rows of the last batch, shape ``(rows, heads)``; a copy.

        The probe passed :meth:`check_probe`, and its layers have been selected since before that batch was
        computed; llama.cpp aborts the process over a layer that was selected only afterwards.

        Raises:
            ValueError: a layer of the probe is not selected.
        """
        if not self._selected.issuperset(probe.layers):
            raise ValueError(f"probe {probe.version!r} reads layers {probe.layers}, not {sorted(self._selected)}")
        total = np.zeros((len(range(*rows.indices(self._rows))), probe.heads), np.float32)
        for layer, weights in zip(probe.layers, self._weights(probe), strict=True):
            total += self._states(layer)[rows] @ weights
        return total

    def read_states(self, layers: Sequence[int], rows: slice) -> npt.NDArray[np.float32]:
        """The states themselves, shape ``(rows, layers, width)``; a copy. The layers have been selected."""
        return np.stack([self._states(layer)[rows] for layer in layers], 1)

    def _weights(self, probe: Probe) -> npt.NDArray[np.float32]:
        """A view of shape ``(layers, width, heads)``: a microsecond, so it is not cached."""
        return np.frombuffer(probe.weights, "<f4").reshape(len(probe.layers), self._width, probe.heads)

    def _states(self, layer: int) -> npt.NDArray[np.float32]:
        """A view of shape ``(n_batch, width)`` of what the last decode left."""
        floats = read_floats(self._get(self._context, layer), self._rows * self._width)
        return floats.reshape(self._rows, self._width)
