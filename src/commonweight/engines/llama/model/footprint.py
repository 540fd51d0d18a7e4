"""Memory footprint of a llama.cpp context, parsed from its log of a dry run without weights."""

import logging
import re
from pathlib import Path
from typing import NamedTuple

from commonweight.catalog.header import UnreadableModelError
from commonweight.engines.contract import EngineError
from commonweight.engines.llama.config import WorkerConfig
from commonweight.engines.llama.model.native import EXTRA_OUTPUTS, make_context_params
from commonweight.llamacpp import api as llama
from commonweight.llamacpp.log import capture_log, take_errors
from commonweight.llamacpp.structs import LLAMA_LOAD_MODE_NONE, ContextParams

log = logging.getLogger(__name__)

_KV_SIZE = re.compile(r"\bsize = +([\d.]+) MiB \( *\d+ cells")
_OUTPUT_SIZE = re.compile(r"output buffer size = +([\d.]+) MiB")
_COMPUTE_SIZE = re.compile(r"compute buffer size = +([\d.]+) MiB")


class Footprint(NamedTuple):
    """Memory of a llama.cpp context in bytes, without the weights."""

    kv: int
    """KV cache, and the states of recurrent layers."""
    buffers: int

    @property
    def total(self) -> int:
        """KV cache plus buffers."""
        return self.kv + self.buffers


class UnallocatedModel:
    """A model loaded without its weights, to measure contexts with.

    Not computed from metadata: which layers share, slide, recur or compress is written in llama.cpp for each
    architecture, and files need not say it. Its public functions tell no sizes; its log does, to 0.01 MiB.
    """

    def __init__(self, path: Path) -> None:
        params = llama.llama_model_default_params()
        params.no_alloc, params.load_mode = True, LLAMA_LOAD_MODE_NONE
        take_errors()
        self._model = llama.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise UnreadableModelError(f"llama.cpp cannot load {path}: {take_errors() or 'no reason given'}")
        self.weights: int = llama.llama_model_size(self._model)
        """Bytes."""
        self._recurs = llama.llama_model_is_recurrent(self._model) or llama.llama_model_is_hybrid(self._model)

    def close(self) -> None:
        """Free the handle."""
        llama.llama_model_free(self._model)

    def measure_footprint(self, config: WorkerConfig) -> Footprint:
        """Measure the footprint of a context with this configuration.

        Raises:
            EngineError: llama.cpp cannot make such a context of this model.
        """
        params = make_context_params(
            cells=config.cells,
            sequences=config.sequences,
            batch_rows=config.batch_rows,
            outputs=config.sequences + EXTRA_OUTPUTS,
            threads=config.threads,
            settings=config.settings,
        )
        if not self._recurs:
            return self._measure_context(params)
        # Recurrent states, one a sequence, are allocated even here: two are enough to know what more would take.
        params.n_seq_max = 1
        one = self._measure_context(params)
        params.n_seq_max = 2
        two = self._measure_context(params)
        more = config.sequences
        return Footprint(one.kv + more * (two.kv - one.kv), one.buffers + more * (two.buffers - one.buffers))

    def _measure_context(self, params: ContextParams) -> Footprint:
        with capture_log() as lines:
            context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise EngineError(f"llama.cpp cannot set up this cache: {take_errors() or 'no reason given'}")
        llama.llama_free(context)
        said = "".join(lines)
        kv, output, compute = (
            int(sum(map(float, size.findall(said))) * (1 << 20))
            for size in (_KV_SIZE, _OUTPUT_SIZE, _COMPUTE_SIZE)
        )
        if not kv:
            log.warning("this llama.cpp does not say how much memory a cache takes, so nothing is checked")
        # The output buffer begins with a row a sequence, and grows when a batch has more.
        return Footprint(kv, compute + int(output * max(1, params.n_outputs_max / params.n_seq_max)))
