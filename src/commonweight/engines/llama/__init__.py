"""Embedded engine: llama.cpp in a process of its own, with a continuous-batching scheduler in Python.

``engine`` is the server's side and ``process.worker`` the process; frames of ``process.protocol`` run between
them. In the process, ``scheduler`` composes batches, ``model`` computes them and samples, and ``kv`` caches
prefixes.
"""

from commonweight.engines.llama.config import WorkerConfig
from commonweight.engines.llama.engine import LlamaEngine, LoadError
from commonweight.engines.llama.model.sizing import plan_worker

__all__ = ["LlamaEngine", "LoadError", "WorkerConfig", "plan_worker"]
