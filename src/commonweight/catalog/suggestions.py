"""Larger open-weight models to go on with, by what a machine can hold and compute at reading speed."""

from typing import NamedTuple


class Suggestion(NamedTuple):
    """A model on the hub."""

    name: str
    reference: str
    size_bytes: int
    active_bytes: int
    """Of the weights that one token reads: of mixtures of experts only some."""
    licence: str


SUGGESTIONS = (
    Suggestion("Qwen3-0.6B", "hf:Qwen/Qwen3-0.6B-GGUF:Q8_0", 640_000_000, 640_000_000, "Apache-2.0"),
    Suggestion("Qwen3-1.7B", "hf:Qwen/Qwen3-1.7B-GGUF:Q8_0", 1_830_000_000, 1_830_000_000, "Apache-2.0"),
    Suggestion("Qwen3-4B", "hf:Qwen/Qwen3-4B-GGUF:Q4_K_M", 2_500_000_000, 2_500_000_000, "Apache-2.0"),
    Suggestion("Qwen3-8B", "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M", 5_030_000_000, 5_030_000_000, "Apache-2.0"),
    Suggestion("Qwen3-14B", "hf:Qwen/Qwen3-14B-GGUF:Q4_K_M", 9_000_000_000, 9_000_000_000, "Apache-2.0"),
    Suggestion("Qwen3-30B-A3B", "hf:Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M", 18_600_000_000, 2_200_000_000, "Apache-2.0"),
)
"""From the least capable to the most."""
BYTES_PER_CORE = 1_300_000_000
"""Of weights that a token may read: more makes a processor slower than people read."""
MEMORY_SHARE = 0.6
"""Of the machine's memory, for the weights; the rest is for caches and other programs."""


def suggest_model(memory_bytes: int, cores: int, than_bytes: int) -> Suggestion | None:
    """The most capable model that fits; None if it is not clearly larger than one of ``than_bytes``."""
    fits = [
        one
        for one in SUGGESTIONS
        if one.size_bytes <= MEMORY_SHARE * memory_bytes and one.active_bytes <= BYTES_PER_CORE * cores
    ]
    return fits[-1] if fits and fits[-1].size_bytes > 1.5 * than_bytes else None
