"""Engines on the real starter model, and what their jobs brought."""

from dataclasses import dataclass, field
from typing import Any

from commonweight.catalog.locate import starter
from commonweight.engines.contract import Admitted, Engine, EngineEvent, Finish, Job, Prefilled, Step
from commonweight.engines.llama import Options

WINDOW = 1024


def starter_options(**changes: Any) -> Options:
    """A small engine on the starter model, without files."""
    path = starter()
    assert path is not None, "the starter extra is not installed"
    sizes: dict[str, Any] = {"window": WINDOW, "cells": 4096, "sequences": 4, "threads": 2, "batch_rows": 256}
    return Options(path=str(path), **sizes | changes)


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
    def finish(self) -> Finish:
        last = self.events[-1]
        assert isinstance(last, Finish)
        return last

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
