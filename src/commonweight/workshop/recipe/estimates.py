"""Time and memory of stages that read, write and train with a model, in words, from stated rates."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from commonweight.workshop.recipe.forecast import ModelSize, Volume
from commonweight.workshop.training.estimate import LIBRARY_BYTES, count_cores, estimate_tuning
from commonweight.workshop.training.tuning_settings import TuningSettings

if TYPE_CHECKING:
    from commonweight.workshop.alignment.settings import ModelSettings

READ_FLOPS_PER_CORE = 80e9
"""Of the engine that reads prompts (SmolLM2 135M, Q8_0, AVX-512: 360 to 720 tokens a second on two cores)."""
WRITE_FLOPS_PER_CORE = 16e9
"""Of the engine that writes many answers at once (the same: 100 to 150 tokens a second)."""
FILE_BYTES = {"F16": 2.0, "Q8_0": 1.07, "Q4_K_M": 0.75}
"""Of a parameter; small models have more in larger types."""
ENGINE_BYTES = 500_000_000
"""Resident size of the processes that an engine runs in, without weights and caches."""


@dataclass(frozen=True)
class Work:
    """What a model reads and writes."""

    answers: int
    read: int
    """Tokens of prompts that are computed."""
    written: int
    """Tokens of answers, at most."""

    def __add__(self, other: "Work") -> "Work":
        return Work(self.answers + other.answers, self.read + other.read, self.written + other.written)


def answer_prompts(prompts: Volume, samples: int, max_tokens: int, each: int = 0) -> Work:
    """The work of answering prompts.

    Args:
        each: further tokens that stand in every prompt, and are not shared.
    """
    answers = prompts.rows * samples
    return Work(answers, samples * prompts.tokens + answers * each, answers * max_tokens)


def describe_generation(settings: "ModelSettings", size: ModelSize | None, work: Work | None) -> str:
    """Needs of a stage in which a model reads and answers; empty where they cannot be foreseen."""
    if work is None:
        return ""
    if settings.engine is not None:
        return f"{work.answers:,} answers, at most {_count(work.written)} tokens, by the server"
    if size is None:
        return ""
    tokens = min(settings.context, (work.read + work.written) // max(1, work.answers))
    return describe_work(size, settings.file, work, settings.parallel, tokens)


def describe_work(size: ModelSize, file: str, work: Work, parallel: int, tokens: int) -> str:
    """Needs of the embedded engine.

    Args:
        parallel: answers at the same time.
        tokens: of a prompt and its answer.
    """
    seconds = compute_seconds(size, work)
    cache = size.cache_bytes * tokens * min(parallel, max(1, work.answers))
    memory = ENGINE_BYTES + FILE_BYTES[file] * size.parameters + cache
    return (
        f"{work.answers:,} answers, {_count(work.read)} tokens read, at most {_count(work.written)} written, "
        f"{memory / 1e9:.1f} GB memory, about {seconds:.0f} s"
    )


def compute_seconds(size: ModelSize, work: Work) -> float:
    """Seconds that the embedded engine takes, two operations for each parameter and token."""
    rates = work.read / READ_FLOPS_PER_CORE + work.written / WRITE_FLOPS_PER_CORE
    return 2.0 * size.parameters * rates / count_cores()


def describe_tuning(
    settings: TuningSettings, size: ModelSize | None, rows: Volume | None, sequences: int = 1
) -> str:
    """Needs of training a model further; empty where they cannot be foreseen.

    Args:
        sequences: of a row; two where answers are compared.
    """
    if size is None or rows is None or not rows.rows:
        return ""
    tokens = min(rows.tokens, rows.rows * settings.max_length * sequences)
    needs = estimate_tuning(settings, size, size.parameters, rows.rows, tokens, sequences)
    steps = settings.max_steps or max(1, round(rows.rows * settings.epochs / settings.batch_size))
    return (
        f"{steps:,} steps, {_count(needs.tokens)} tokens, {needs.memory_bytes / 1e9:.1f} GB memory, "
        f"{needs.disk_bytes / 1e9:.2f} GB disk, about {needs.seconds:.0f} s"
    )


def describe_merge(size: ModelSize | None) -> str:
    """Needs of merging an adapter: base and result, in 32 bits."""
    if size is None:
        return ""
    return f"{(LIBRARY_BYTES + 8 * size.parameters) / 1e9:.1f} GB memory, {4 * size.parameters / 1e9:.2f} GB disk"


def _count(tokens: int) -> str:
    return f"{tokens / 1e6:.1f} M" if tokens >= 1_000_000 else f"{tokens / 1e3:.0f} k"
