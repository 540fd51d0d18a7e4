"""Mixes: how much of each input, in which order, and which rows are kept for validation."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from commonweight.workshop.data.rows import DataError, draw_fraction
from commonweight.workshop.data.settings import MixSettings

_VALIDATION = "validation"


@dataclass(frozen=True)
class Selection:
    """What a mix takes of one input's training rows."""

    whole_epochs: int
    in_part_epoch: npt.NDArray[np.bool_]
    """Which rows stand in it once more."""
    rows: int
    characters: int


def is_validation(row_id: str, share: float) -> bool:
    """Whether a row is kept apart: the same answer in every mix, whatever its seed and its inputs."""
    return draw_fraction(_VALIDATION, row_id) < share


def plan_sizes(settings: MixSettings, sizes: Mapping[str, int]) -> dict[str, float]:
    """Training characters that the mix should take of each input.

    Without ``characters``, as many as make every input stand in it at least once, or as many as
    ``max_epochs`` of the scarcest allow.

    Args:
        sizes: training characters that each input has.

    Raises:
        DataError: weights and inputs differ, an input is empty, or one is too small for the size that is asked.
    """
    if set(sizes) != set(settings.weights):
        others = ", ".join(sorted(set(sizes) ^ set(settings.weights)))
        raise DataError(f"The mix has weights or inputs without the other: {others}.")
    empty = [name for name in sorted(sizes) if not sizes[name]]
    if empty:
        raise DataError(f"The mix has no training rows from {', '.join(empty)}.")
    whole = math.fsum(settings.weights.values())
    shares = {name: settings.weights[name] / whole for name in sorted(sizes)}
    most = min(settings.max_epochs * sizes[name] / share for name, share in shares.items())
    if settings.characters is None:
        total = min(most, max(sizes[name] / share for name, share in shares.items()))
    else:
        total = settings.characters
        for name, share in shares.items():
            if total * share > settings.max_epochs * sizes[name]:
                raise DataError(
                    f"The mix of {total:,} characters needs {total * share / sizes[name]:.1f} epochs of {name}, "
                    f"which has {sizes[name]:,}; max_epochs allows {settings.max_epochs:g}."
                )
    return {name: total * share for name, share in shares.items()}


def select_rows(size: float, characters: npt.NDArray[np.int64], order: npt.NDArray[np.float64]) -> Selection:
    """Take so many characters of an input: whole epochs, then rows in a drawn order, to the nearest row.

    Args:
        characters: of each training row.
        order: one drawn number for each.
    """
    per_epoch = int(characters.sum())
    whole_epochs = int(size // per_epoch)
    sequence = np.argsort(order, kind="stable")
    sums = np.concatenate([[0], np.cumsum(characters[sequence])])
    taken = int(np.argmin(np.abs(sums - (size - whole_epochs * per_epoch))))
    if not whole_epochs and not taken:
        taken = 1  # an input with a weight stands in the mix
    in_part = np.zeros(len(characters), np.bool_)
    in_part[sequence[:taken]] = True
    return Selection(
        whole_epochs,
        in_part,
        whole_epochs * len(characters) + taken,
        whole_epochs * per_epoch + int(sums[taken]),
    )


def draw_order(settings: MixSettings, name: str, row_id: str, number: int) -> float:
    """The number that decides whether a row stands in a part of an epoch."""
    return draw_fraction("order", str(settings.seed), name, row_id, str(number))


class Interleaver:
    """Chooses the input of the next row, so that every part of the mix has about the weights of the whole."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = {name: max(sizes[name], 1) for name in sorted(sizes)}
        self._written = dict.fromkeys(self._sizes, 0)

    def choose(self, names: Iterable[str]) -> str:
        """The input that is furthest behind, of those that have rows left."""
        return min(names, key=lambda name: (self._written[name] / self._sizes[name], name))

    def count(self, name: str, characters: int) -> None:
        """Note what was taken."""
        self._written[name] += characters
