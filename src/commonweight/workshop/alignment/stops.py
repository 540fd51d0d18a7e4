"""Words with which an answer that was begun breaks off."""

from functools import cache
from importlib.resources import files

import yaml

from commonweight.lineage.digests import digest_bytes
from commonweight.workshop.data.rows import draw_fraction
from commonweight.workshop.settings import Settings, Several

NAME = "stops"
"""The name of their file among the sources of a stage."""

_FILE = files("commonweight.workshop.alignment") / "stops.yaml"


class Stops(Settings):
    """Sentences that break off, and what ends the line before them."""

    licence: str
    breaks: Several[str]
    stops: Several[str]


@cache
def read_stops() -> Stops:
    """Read the words that ship."""
    return Stops.model_validate(yaml.safe_load(_FILE.read_bytes()))


def digest_stops() -> str:
    """SHA-256 of the words that ship."""
    return digest_bytes(_FILE.read_bytes())


class StopWriter:
    """Writes the words for one answer after another. Sentences take turns, so that none is commoner."""

    def __init__(self, stops: Stops, seed: int) -> None:
        self._stops = stops
        self._seed = str(seed)
        self._count = 0

    def write(self, beginning: str, row_id: str) -> str:
        """What follows a beginning before anything else is said."""
        turn, at = divmod(self._count, len(self._stops.stops))
        self._count += 1
        stop = sorted(self._stops.stops, key=lambda text: draw_fraction("stop", self._seed, str(turn), text))[at]
        if beginning.endswith("\n"):
            return stop
        if beginning.endswith((".", "!", "?", ":")):  # nothing is left open
            return f"\n\n{stop}"
        drawn = draw_fraction("break", self._seed, row_id)
        return self._stops.breaks[int(drawn * len(self._stops.breaks))] + stop
