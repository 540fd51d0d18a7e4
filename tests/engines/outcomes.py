"""Engines on the real starter model, and what their jobs brought."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.starter import find_starter
from commonweight.engines.contract import Admitted, Engine, EngineEvent, Finish, Job, Prefilled, Sampling, Step
from commonweight.engines.llama import WorkerConfig
from commonweight.prompting import Tokenizer

WINDOW = 1024
GREEDY = Sampling(temperature=0)


def starter_path() -> Path:
    path = find_starter()
    assert path is not None, "the starter extra is not installed"
    return path


@cache
def starter_tokenizer() -> Tokenizer:
    return Tokenizer(Gguf(starter_path()))


def starter_options(**changes: Any) -> WorkerConfig:
    """A small engine on the starter model, without files."""
    sizes: dict[str, Any] = {"window": WINDOW, "cells": 4096, "sequences": 4, "threads": 2, "batch_rows": 256}
    return WorkerConfig(path=str(starter_path()), **sizes | changes)


@dataclass
class Outcome:
    """Everything that one job brought."""

    events: list[EngineEvent] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [event.token_id for event in self.events if isinstance(event, Step)]

    @property
    def logprobs(self) -> list[float]:
        return [event.logprob for event in self.events if isinstance(event, Step) and event.logprob is not None]

    @property
    def cached(self) -> int:
        """How much of its prompt needed no computing."""
        first = self.events[0]
        assert isinstance(first, Admitted)
        return first.cached_tokens

    @property
    def prefilled(self) -> Prefilled:
        second = self.events[1]
        assert isinstance(second, Prefilled)
        return second

    @property
    def is_done(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finish)

    @property
    def finish(self) -> Finish:
        last = self.events[-1]
        assert isinstance(last, Finish)
        return last

    def scores(self, heads: int) -> npt.NDArray[np.float32]:
        """The probe's, of the prompt and of all but the last token drawn, shape ``(tokens, heads)``."""
        _, *drawn = [event.scores or b"" for event in self.events if isinstance(event, Step)] or [b""]
        return np.frombuffer(b"".join([self.prefilled.scores or b"", *drawn]), "<f4").reshape(-1, heads)

    def check_order(self) -> None:
        """Admitted, Prefilled, steps, Finish: what the contract promises."""
        assert isinstance(self.events[0], Admitted)
        assert isinstance(self.events[1], Prefilled)
        assert all(isinstance(event, Step) for event in self.events[2:-1])
        assert isinstance(self.events[-1], Finish)


async def outcome(engine: Engine, job: Job) -> Outcome:
    """Run a job to its end."""
    result = Outcome()
    async with engine.run(job) as events:
        async for event in events:
            result.events.append(event)
    return result
