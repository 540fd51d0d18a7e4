"""Noise at the end of a text: strings of tokens that no person writes, such as searched suffixes.

A suffix that was searched for token by token (GCG, arXiv 2307.15043) stands out by the served model's own
likelihood, best in windows as short as the suffix (arXiv 2309.00614). The surprise of a text's end is the highest
mean over such windows of its last tokens, in nats a token.
"""

from collections.abc import Awaitable, Callable, Sequence

import numpy as np

MAX_TOKENS = 128
"""At the end of a text that are looked at."""
WINDOW_TOKENS = 16
THRESHOLD = 9.0
"""Surprise from which a text ends in noise, in nats a token: chosen on the starter, between harmless texts of
training sources and technical ones (at most 8.8, of 190) and noise (at least 9.9, of 44); see the figures in
docs/guard.md."""

ScoreEnd = Callable[[str, str], Awaitable[Sequence[float] | None]]
"""Scores the last :data:`MAX_TOKENS` tokens of a text, for a tenant: the natural logarithms of their probabilities
under the served model. None: it cannot be told, as the engine is full or failed."""


def measure_surprise(logprobs: Sequence[float]) -> float:
    """Measure the surprise of a text's end by its tokens' scores; 0 if there are fewer than a window of them."""
    if len(logprobs) < WINDOW_TOKENS:
        return 0.0
    sums = np.cumsum([0.0, *logprobs])
    return float((sums[:-WINDOW_TOKENS] - sums[WINDOW_TOKENS:]).max()) / WINDOW_TOKENS
