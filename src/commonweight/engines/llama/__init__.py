"""Embedded engine: llama.cpp in a process of its own, with a continuous-batching scheduler in Python.

``engine`` is the server's side and ``process.worker`` the process; frames of ``process.protocol`` run between
them. In the process, ``scheduler`` composes batches, ``model`` computes them and samples, and ``kv`` caches
prefixes.
"""

from commonweight.engines.llama.engine import LlamaEngine, LoadError
from commonweight.engines.llama.model.sizing import options
from commonweight.engines.llama.process.protocol import WorkerSettings

__all__ = ["LlamaEngine", "LoadError", "WorkerSettings", "options"]
