"""KV cache: computed prefixes as blocks, in llama.cpp's memory, in RAM and on disk."""

from commonweight.engines.llama.kv.cells import Cells
from commonweight.engines.llama.kv.disk_tier import DiskTier
from commonweight.engines.llama.kv.prefix_cache import PrefixCache
from commonweight.engines.llama.kv.sequence_state import SequenceState

__all__ = ["Cells", "DiskTier", "PrefixCache", "SequenceState"]
