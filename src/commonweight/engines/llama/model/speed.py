"""Speed of a model on one of the installed llama.cpp libraries, in a child process that loads only that one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from commonweight.engines.contract import EngineError
from commonweight.llamacpp.library import VARIABLE

PROMPT_TOKENS, ANSWER_TOKENS = 256, 32
ROUNDS = 3
TIMEOUT_SECONDS = 120.0


class Speed(NamedTuple):
    """Seconds that a model takes; the least of a few rounds."""

    prompt: float
    """For :data:`PROMPT_TOKENS` tokens that are read at once."""
    answer: float
    """For :data:`ANSWER_TOKENS` tokens, one after the other."""


def measure_library(kind: str, path: Path, threads: int) -> Speed:
    """Measure a model on the library of this kind (``native``, ``prebuilt``).

    Raises:
        EngineError: the library or the model does not load, or it takes longer than two minutes.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, str(path), str(threads)],
            env=os.environ | {VARIABLE: kind},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.SubprocessError as error:
        raise EngineError(f"the {kind} llama.cpp cannot be measured: {error}") from error
    return Speed(*json.loads(done.stdout))


def _measure(path: Path, threads: int) -> Speed:
    from commonweight.engines.llama.model.native import LlamaBatch, LoadedModel

    rows = PROMPT_TOKENS
    model = LoadedModel(path, cells=2 * PROMPT_TOKENS, sequences=1, batch_rows=rows, outputs=1, threads=threads)
    batch = LlamaBatch(rows)
    best = Speed(float("inf"), float("inf"))
    for _ in range(ROUNDS):
        model.clear_sequence(0)
        times = [time.perf_counter()]
        for start, count in ((0, PROMPT_TOKENS), *((PROMPT_TOKENS + i, 1) for i in range(ANSWER_TOKENS))):
            batch.clear()
            batch.add(0, start, [1 + i % 100 for i in range(count)], outputs=1)
            model.decode(batch)
            times.append(time.perf_counter())
        best = Speed(min(best.prompt, times[1] - times[0]), min(best.answer, times[-1] - times[1]))
    model.close()
    return best


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201 - its result
