"""A user's turns joined into one text: a request that is split over turns is whole there."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

MAX_TURNS = 6
"""That are joined, the last ones."""
_BETWEEN = "\n"


@dataclass(frozen=True)
class JoinedTurns:
    """The last turns as one text."""

    text: str
    first: int
    """Number of the first turn in it."""
    starts: tuple[int, ...]
    """Where each turn begins in the text."""

    def locate(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Locate a span in its turns: the number of each, and its characters there."""
        ends = (*(start_of_next - len(_BETWEEN) for start_of_next in self.starts[1:]), len(self.text))
        return [
            (self.first + i, max(start, begin) - begin, min(end, finish) - begin)
            for i, (begin, finish) in enumerate(zip(self.starts, ends, strict=True))
            if max(start, begin) < min(end, finish)
        ]


def join_turns(texts: Sequence[str]) -> JoinedTurns:
    """Join what a user said in turns that follow each other, the newest last."""
    last = [*texts[-MAX_TURNS:]]
    starts = [0, *accumulate(len(text) + len(_BETWEEN) for text in last[:-1])]
    return JoinedTurns(_BETWEEN.join(last), len(texts) - len(last), tuple(starts))
