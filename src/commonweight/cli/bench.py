"""``commonweight bench``: throughput and latency of a model on this machine."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

from rich.table import Table

from commonweight.cli.progress import LoadingBar
from commonweight.cli.terminal import make_console
from commonweight.engines.contract import Engine, Job, Sampling, Step
from commonweight.runtime.assistant import open_assistant, resolve_model
from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import AssistantSettings

PROMPT_TOKENS = 2048
"""Tokens of a long prompt, or half the window where that is less."""
TAIL_TOKENS = 128
"""Tokens that a second turn adds."""
ANSWER_TOKENS = 128
VOCABULARY = 256
"""Token ids that every model has. How long a token takes does not depend on which it is."""
SAMPLING = Sampling(temperature=1, seed=1)
"""Greedy answers to nonsense are loops, and the engine is quick at guessing those."""


class JobTiming(NamedTuple):
    """Timing of one job: tokens, and seconds since it was submitted."""

    first: float
    last: float
    tokens: int


class Measurement(NamedTuple):
    """A line of the report: its name, measurement and unit."""

    name: str
    measure: Callable[[], Awaitable[float]]
    unit: str


def bench(settings: AssistantSettings, *, rounds: int) -> None:
    """Measure a model, and print the figures."""
    asyncio.run(_bench(resolve_model(settings), rounds))


async def _bench(settings: AssistantSettings, rounds: int) -> None:
    console = make_console()
    progress = make_console(stderr=True)
    async with contextlib.AsyncExitStack() as stack:
        with LoadingBar(progress) as bar:
            assistant = await stack.enter_async_context(
                open_assistant(settings, report=console.print, on_progress=bar.update)
            )
        bench = _Bench(assistant.engine, settings.engine.parallel)
        table = Table("work", "median", "range", title=assistant.card.id)
        for work in bench.list_measurements():
            progress.print(f"Measuring: {work.name}")
            await work.measure()  # warms up
            values = [await work.measure() for _ in range(rounds)]
            low, high = min(values), max(values)
            table.add_row(work.name, f"{median(values):.2f} {work.unit}", f"{low:.2f} to {high:.2f}")
        console.print(table)


class _Bench:
    """Runs jobs of meaningless tokens."""

    def __init__(self, engine: Engine, streams: int) -> None:
        self._engine = engine
        self._streams = streams
        self._prompt = min(PROMPT_TOKENS, engine.window // 2)
        self._drawn = 0
        if engine.window < 4 * ANSWER_TOKENS:
            raise UserError(f"a context of {engine.window} tokens is too small to measure anything")

    def list_measurements(self) -> list[Measurement]:
        """List the measurements, in order."""
        return [
            Measurement(f"reading a new prompt of {self._prompt} tokens", self._measure_prefill, "tok/s"),
            Measurement("writing, one stream", lambda: self._measure_decode(1), "tok/s"),
            Measurement(
                f"writing, {self._streams} streams together", lambda: self._measure_decode(self._streams), "tok/s"
            ),
            Measurement(f"first token of a second turn, {TAIL_TOKENS} new tokens", self._measure_second_turn, "s"),
            Measurement(
                f"first token of {self._streams} sessions that share a new prompt",
                self._measure_shared_prefix,
                "s",
            ),
        ]

    async def _measure_prefill(self) -> float:
        [answer] = await self._time_jobs([self._make_tokens(self._prompt)], 1)
        return self._prompt / answer.first

    async def _measure_decode(self, streams: int) -> float:
        answers = await self._time_jobs([self._make_tokens(8) for _ in range(streams)], ANSWER_TOKENS)
        started, ended = min(answer.first for answer in answers), max(answer.last for answer in answers)
        return sum(answer.tokens - 1 for answer in answers) / (ended - started)

    async def _measure_second_turn(self) -> float:
        first = self._make_tokens(self._prompt - TAIL_TOKENS)
        await self._time_jobs([first], 0)
        [answer] = await self._time_jobs([first + self._make_tokens(TAIL_TOKENS)], 1)
        return answer.first

    async def _measure_shared_prefix(self) -> float:
        shared = self._make_tokens(self._prompt - TAIL_TOKENS)
        answers = await self._time_jobs([shared + self._make_tokens(8) for _ in range(self._streams)], 1)
        return max(answer.first for answer in answers)

    def _make_tokens(self, count: int) -> list[int]:
        """Make tokens that no earlier prompt began with, by a linear congruential generator."""
        tokens = []
        for _ in range(count):
            self._drawn = (self._drawn * 1_103_515_245 + 12_345) % 2**31
            tokens.append((self._drawn >> 8) % VOCABULARY)
        return tokens

    async def _time_jobs(self, prompts: list[list[int]], max_tokens: int) -> list[JobTiming]:
        return await asyncio.gather(*(self._time_job(prompt, max_tokens) for prompt in prompts))

    async def _time_job(self, prompt: list[int], max_tokens: int) -> JobTiming:
        started = perf_counter()
        tokens = 0
        first = last = 0.0
        async with self._engine.run(Job(prompt, max_tokens, sampling=SAMPLING)) as events:
            async for event in events:
                if isinstance(event, Step):
                    tokens += 1
                    last = perf_counter() - started
                    first = first or last
        return JobTiming(first, last, tokens)
