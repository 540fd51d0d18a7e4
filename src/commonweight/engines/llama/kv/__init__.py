"""KV cache: cell accounting in llama.cpp's memory, and a prefix cache of blocks in RAM and on disk."""

from commonweight.engines.llama.kv.cells import Cells
from commonweight.engines.llama.kv.disk_tier import DiskTier
from commonweight.engines.llama.kv.prefix_cache import PrefixCache
from commonweight.engines.llama.kv.sequence_state import SequenceState

__all__ = ["Cells", "DiskTier", "PrefixCache", "SequenceState"]
