"""The embedded engine: llama.cpp's kernels in a process of its own, scheduled by us.

``engine`` is the server's side and ``worker`` the process; frames of ``channel`` run between them. In the
process, ``scheduler`` decides what is computed next, ``native`` computes it and ``sampler`` draws from it.
"""

from commonweight.engines.llama.engine import LlamaEngine, LoadError
from commonweight.engines.llama.model.sizing import options
from commonweight.engines.llama.process.protocol import WorkerSettings

__all__ = ["LlamaEngine", "LoadError", "WorkerSettings", "options"]
