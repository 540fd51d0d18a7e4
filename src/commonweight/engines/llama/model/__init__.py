"""Model execution on llama.cpp: weights and batches, sampling, layer probes, and how much memory it all takes."""

from commonweight.engines.llama.model.native import LlamaBatch, LoadedModel
from commonweight.engines.llama.model.sampler import Sampler

__all__ = ["LlamaBatch", "LoadedModel", "Sampler"]
