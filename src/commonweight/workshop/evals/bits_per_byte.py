"""Bits per byte of texts: how well a model foresees them, whatever its tokens. Lower is better."""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from commonweight.engines.contract import Engine, EngineError
from commonweight.workshop.evals.datasets import Dataset, choose_rows
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import Ledger, SampleLine, digest_text
from commonweight.workshop.evals.results import Figure, Z
from commonweight.workshop.evals.settings import BitsPerByteSettings

TASK = "bits_per_byte"
METRIC, BYTES = "bits per byte", "bytes"
_START = "\n"
"""Comes before a text, so that its first token has a probability, too."""

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Passage:
    """A text to score."""

    id: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return digest_text(self.text)


def read_passages(settings: BitsPerByteSettings, dataset: Dataset) -> list[Passage]:
    """Texts of a data set: its field ``text``, without white space around.

    Raises:
        EvaluationError: a row has none.
    """
    passages = []
    name = dataset.identity.name
    for number, row in choose_rows(dataset.rows, settings.limit, settings.seed):
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise EvaluationError(f"row {number} of {name} needs a text")
        passages.append(Passage(f"{name}:{number}", text.strip()))
    return passages


async def run_passages(
    passages: Sequence[Passage],
    settings: BitsPerByteSettings,
    engine: Engine,
    encode: Encode,
    ledger: Ledger,
    *,
    parallel: int,
) -> list[SampleLine]:
    """Score the texts that the ledger does not hold yet; returns the lines of all, in order."""
    waiting: Iterator[Passage] = iter([p for p in passages if ledger.find(TASK, p.id, p.digest) is None])

    async def work() -> None:
        for passage in waiting:
            ledger.add(await _score(passage, min(settings.context, engine.window), engine, encode))

    await asyncio.gather(*(work() for _ in range(parallel)))
    return [ledger.get(TASK, passage.id) for passage in passages]


def make_figures(lines: Sequence[SampleLine], make: Callable[..., Figure]) -> list[Figure]:
    """The figure of all texts together: the sum of their bits by that of their bytes, which are what is counted.

    The interval is that of a ratio of sums over texts.
    A text with an error counts as one that was not foreseen at all: eight bits a byte.
    """
    errors = sum(line.error is not None for line in lines)
    pairs = [(line.score[METRIC], line.score[BYTES]) for line in lines]
    size = sum(count for _, count in pairs)
    value = sum(bits for bits, _ in pairs) / size if size else 0.0
    spread = 0.0
    if len(pairs) > 1:
        squares = sum((bits - value * count) ** 2 for bits, count in pairs)
        spread = Z * math.sqrt(squares * len(pairs) / (len(pairs) - 1)) / size
    figure = make(METRIC, [])
    return [
        figure.model_copy(
            update={
                "value": round(value, 6),
                "n": size,
                "errors": errors,
                "low": round(max(0.0, value - spread), 6),
                "high": round(value + spread, 6),
            }
        )
    ]


def split_windows(token_ids: Sequence[int], context: int) -> list[list[int]]:
    """Cut tokens into windows, each of which begins with the last token of the one before."""
    starts = [*range(0, len(token_ids) - 1, context - 1), len(token_ids) - 1]
    return [list(token_ids[start : end + 1]) for start, end in pairwise(starts)]


async def _score(passage: Passage, context: int, engine: Engine, encode: Encode) -> SampleLine:
    token_ids = encode(_START + passage.text)
    size = len(passage.text.encode())
    bits = 0.0
    error: Literal[True] | None = None
    try:
        if token_ids[:1] != encode(_START)[:1]:
            raise ValueError("the tokenizer joins the beginning with the text")
        for window in split_windows(token_ids, context):
            async for scored in engine.score(window):
                bits -= math.fsum(scored.logprobs) / math.log(2)
    except (EngineError, ValueError):
        bits = math.nan
    if not math.isfinite(bits):
        bits = 8.0 * size
        error = True
    return SampleLine(
        task=TASK,
        sample_id=passage.id,
        digest=passage.digest,
        answer=None,
        score={METRIC: round(bits), BYTES: size},
        error=error,
    )
