"""Embedded engine: llama.cpp kernels in a process of their own, with our scheduler and prefix cache.

``engine`` is the server's side and ``process.worker`` the engine process; frames of ``process.protocol`` run
between them. In the process, ``scheduler`` plans batches, ``kv`` holds computed prefixes and ``model`` runs
llama.cpp.
"""

from commonweight.engines.llama.config import WorkerConfig
from commonweight.engines.llama.engine import LlamaEngine, LoadError
from commonweight.engines.llama.model.sizing import plan_worker

__all__ = ["LlamaEngine", "LoadError", "WorkerConfig", "plan_worker"]
