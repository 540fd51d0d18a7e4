"""What a training run needs, computed before it starts: parameters, FLOPs, memory, disk, a rough time."""

import shutil
from pathlib import Path
from typing import Protocol

import psutil
from pydantic import BaseModel, ConfigDict

from commonweight.workshop.training.settings import PretrainSettings, TrainingError
from commonweight.workshop.training.tuning_settings import TuningSettings

MICRO_TOKENS = 1024
"""Tokens of one forward and backward pass; larger batches accumulate gradients. Small ones stay in the cache."""
FLOPS_PER_CORE = 40e9
"""fp32 FLOPs a second that a core reaches in training a small model (50 to 80 GFLOPS measured with AVX-512)."""
TUNING_FLOPS_PER_CORE = 75e9
"""The same where a model is trained further (SmolLM2 135M with AVX-512: 69e9 to 97e9, as counted here)."""
LIBRARY_BYTES = 700_000_000
"""Resident size of a process with the training libraries loaded."""
FLOAT = 4


class Estimate(BaseModel):
    """Needs of a run. Figures are computed from shapes, the time from an assumed speed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int
    tokens: int
    flops: float
    memory_bytes: int
    disk_bytes: int
    seconds: float


def count_parameters(settings: PretrainSettings, vocab_size: int) -> tuple[int, int]:
    """Parameters of the decoder: those of matrices inside layers, and all."""
    dim, heads, kv_heads, head_dim = settings.dim, settings.heads, settings.kv_heads, settings.head_dim
    attention = dim * head_dim * (heads + 2 * kv_heads) + heads * head_dim * dim
    matrices = settings.layers * (attention + 3 * dim * settings.ffn_dim)
    norms = settings.layers * (2 * dim + 2 * head_dim) + dim
    return matrices, matrices + norms + vocab_size * dim


def estimate(settings: PretrainSettings, vocab_size: int) -> Estimate:
    """Needs of a pretraining run."""
    matrices, parameters = count_parameters(settings, vocab_size)
    tokens = settings.total_steps * settings.batch_tokens
    # Six for each parameter (embeddings are tied to the output), twelve for each pair of attention.
    flops = tokens * (6.0 * parameters + 6.0 * settings.layers * settings.dim * settings.context)
    micro = min(settings.batch_tokens, max(MICRO_TOKENS, settings.context))
    # Weights, gradients and one moment of all; a second moment of what AdamW trains.
    state = FLOAT * (3 * parameters + (parameters - matrices))
    # Of each layer about 14 vectors of the width and 4 of the feed-forward's stay for the backward pass; of the
    # output the logits, their logarithms and their gradient.
    activations = FLOAT * micro * (settings.layers * (14 * settings.dim + 4 * settings.ffn_dim) + 3 * vocab_size)
    checkpoint = FLOAT * (2 * parameters + (parameters - matrices))
    return Estimate(
        parameters=parameters,
        tokens=tokens,
        flops=flops,
        memory_bytes=LIBRARY_BYTES + state + activations,
        disk_bytes=2 * checkpoint + FLOAT * parameters,  # a checkpoint is written beside the one before
        seconds=flops / (FLOPS_PER_CORE * count_cores()),
    )


class Shape(Protocol):
    """What a model's configuration says of its shape."""

    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


def estimate_tuning(
    settings: TuningSettings, shape: Shape, parameters: int, rows: int, tokens: int, sequences: int = 1
) -> Estimate:
    """Needs of training a model of this shape further.

    Args:
        rows: those of the dataset.
        tokens: those of all its rows.
        sequences: of a row; two where answers are compared, and then the reference reads them once.
    """
    layers, dim = shape.num_hidden_layers, shape.hidden_size
    if settings.max_steps is not None:
        tokens = tokens * settings.max_steps * settings.batch_size // rows
    else:
        tokens = round(tokens * settings.epochs)
    # Of each layer's seven matrices about nine widths of the model on either side of the adapter.
    trained = parameters if settings.lora is None else min(parameters, 18 * layers * dim * settings.lora.r)
    batch = settings.batch_size // settings.accumulation * sequences
    activations = FLOAT * batch * settings.max_length * (layers * 34 * dim + 3 * shape.vocab_size)
    weights = parameters // 2 if settings.quantised_base else FLOAT * parameters
    flops = (6.0 if sequences == 1 else 8.0) * parameters * tokens
    return Estimate(
        parameters=parameters,
        tokens=tokens,
        flops=flops,
        memory_bytes=LIBRARY_BYTES + weights + 3 * FLOAT * trained + activations,
        # Three checkpoints (the best, the last, the one being written), each with two moments, and the model.
        disk_bytes=FLOAT * (9 * trained + 2 * parameters),
        seconds=flops / (TUNING_FLOPS_PER_CORE * count_cores()),
    )


def count_cores() -> int:
    """Cores that this process may use."""
    return max(1, len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 1)


def check_resources(needs: Estimate, output: Path, stage: str, free_memory: int | None = None) -> None:
    """Stops a run that this machine has too little memory or disk for, before it starts.

    Args:
        free_memory: bytes that are free on the device that trains; None: the processor trains.
    """
    memory = psutil.virtual_memory().available if free_memory is None else free_memory
    if needs.memory_bytes > memory:
        raise TrainingError(
            f"{stage} of {needs.parameters:,} parameters needs about {needs.memory_bytes / 1e9:.1f} GB of memory,"
            f" and {memory / 1e9:.1f} GB are free"
        )
    disk = shutil.disk_usage(output).free
    if needs.disk_bytes > disk:
        raise TrainingError(
            f"{stage} of {needs.parameters:,} parameters needs about {needs.disk_bytes / 1e9:.1f} GB of disk"
            f" for its checkpoints, and {disk / 1e9:.1f} GB are free"
        )
