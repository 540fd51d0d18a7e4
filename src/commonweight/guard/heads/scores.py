"""Scores of texts: what heads say of a text, before any threshold. They hold no text, so that they may be kept."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from commonweight.guard.encoders.arrays import Floats


class HarmScore(NamedTuple):
    """Score of one span of text."""

    logit: float
    log_shares: Floats
    """``log P(principle | violated)``, for the manifest's principles."""
    span: tuple[int, int]
    """Characters of the text as it was given; of scores of states alone, tokens."""

    def compute_logit(self, columns: Collection[int]) -> float:
        """Logit that any of these principles is violated."""
        return self.logit + float(np.logaddexp.reduce(self.log_shares[list(columns)])) if columns else -np.inf


class OrdersScore(NamedTuple):
    """Score of orders to the model: role play that lifts rules, forced beginnings and the like."""

    logit: float
    span: tuple[int, int]


class TextScores(NamedTuple):
    """Scores of a text by the heads that read text."""

    own: HarmScore
    """The text as it stands."""
    members: str
    """The parts on text whose logits are in it: those that were asked, as the bundle's ensembles name them."""
    prose: dict[str, tuple[float, tuple[int, int]]]
    """Logits of the principles without training data (refused from 0 on), and the spans that they come from."""
    hidden: HarmScore | None = None
    """The highest of all units of all views; None: there is one, and no other view."""
    orders: OrdersScore | None = None
    foreign: HarmScore | None = None
    """All units by the multilingual encoder alone, of a text in another language than English that it knows."""
    language: str | None = None
    """ISO 639 code; None: it was not told."""
    is_read: bool = True
    """Whether the heads can read that language, as far as is known."""
