"""Evidence over a streamed answer: smoothed logits with a minimum length, so that one word decides nothing.

The logits of an answer's tokens are smoothed (an exponential mean), and besides several of the last tokens have to
be above the threshold by themselves: k of n. Both follow streaming probes of the literature (arXiv 2601.04603:
smoothed logits; arXiv 2604.14865: several tokens of evidence).
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

State = Literal["calm", "doubt", "alarm"]


@dataclass(frozen=True)
class EvidenceWindow:
    """Amount of evidence that a decision needs, in the unit of the scores: tokens or characters."""

    smoothing: float
    """Weight of the newest piece."""
    min_count: int
    """Pieces before anything is decided."""
    needed: int
    out_of: int
    """So many of the last so many have to be above the threshold."""
    patience: int
    """Pieces that one doubt holds back at most. One that has not hardened by then is none."""


TOKEN_WINDOW = EvidenceWindow(smoothing=1 / 16, min_count=8, needed=12, out_of=32, patience=64)
TEXT_WINDOW = EvidenceWindow(smoothing=1 / 2, min_count=1, needed=1, out_of=3, patience=2)
"""For stretches of text of some 32 tokens each."""


class EvidenceTracker:
    """Tracks the evidence in one answer. Logits: above ``low`` it is in doubt, above ``high`` it alarms."""

    def __init__(self, low: float, high: float, window: EvidenceWindow = TOKEN_WINDOW) -> None:
        self._low, self._high, self._window = low, high, window
        self._recent: deque[bool] = deque(maxlen=window.out_of)
        self._calm_since = 0
        self._cleared_until = 0
        self.count = 0
        """Pieces so far."""
        self.mean = 0.0
        """The smoothed logit."""
        self.peak = -np.inf
        """The highest smoothed logit so far."""
        self.state: State = "calm"

    @property
    def span(self) -> tuple[int, int]:
        """The pieces that the evidence spans."""
        return max(0, self.count - len(self._recent)), self.count

    def update(self, logit: float) -> State:
        """Add the next piece's logit."""
        window = self._window
        self.count += 1
        # A mean of all at first, so that the beginning weighs no more than the rest.
        self.mean += max(window.smoothing, 1 / self.count) * (logit - self.mean)
        self._recent.append(logit >= self._high)
        if self.count < window.min_count:
            return self.state
        self.peak = max(self.peak, self.mean)
        if self.mean < self._low or self.count <= self._cleared_until:
            self.state, self._calm_since = "calm", self.count
        elif self.mean >= self._high and sum(self._recent) >= min(window.needed, len(self._recent)):
            self.state = "alarm"
        else:
            self.state = "doubt" if self.count - self._calm_since <= window.patience else "calm"
        return self.state

    def clear_doubt(self) -> None:
        """Clear the doubt, as the judge found the answer harmless; no new one for a full doubt's length."""
        self.state, self._cleared_until = "calm", self.count + self._window.patience
