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

BUDGET_SECONDS = 50
"""Seconds of measuring unless rounds are asked for; with the loading of most models that is a minute."""
MAX_ROUNDS = 3
PROBE_TOKENS, PROBE_ANSWER_TOKENS = 32, 8
"""Of the job that tells how long everything will take."""
VOCABULARY = 256
"""Token ids that every model has. How long a token takes does not depend on which it is."""
SAMPLING = Sampling(temperature=1, seed=1)
"""Greedy answers to nonsense are loops, and the engine is quick at guessing those."""


class Sizes(NamedTuple):
    """Tokens of the jobs that are measured."""

    prompt: int
    """Of a long prompt."""
    answer: int

    @property
    def tail(self) -> int:
        """Tokens that a second turn adds."""
        return min(128, self.prompt // 2)


SIZES = (Sizes(2048, 128), Sizes(1024, 64), Sizes(512, 32), Sizes(256, 16))
"""The first that is quick enough is taken."""


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


def bench(settings: AssistantSettings, *, rounds: int | None) -> None:
    """Measure a model, and print the figures.

    Without ``rounds``, sizes and rounds are what fits into a minute; with it, all is measured at full size.
    """
    asyncio.run(_bench(resolve_model(settings), rounds))


async def _bench(settings: AssistantSettings, rounds: int | None) -> None:
    console = make_console()
    progress = make_console(stderr=True)
    async with contextlib.AsyncExitStack() as stack:
        with LoadingBar(progress) as bar:
            assistant = await stack.enter_async_context(
                open_assistant(settings, report=console.print, on_progress=bar.update)
            )
        began = perf_counter()
        bench = _Bench(assistant.engine, settings.engine.parallel)
        seconds = await bench.choose_sizes(BUDGET_SECONDS if rounds is None else None)
        runs = 1 + (rounds or max(1, min(MAX_ROUNDS, int(BUDGET_SECONDS / seconds) - 1)))
        progress.print(f"This takes about {format_seconds(seconds * runs)}.")
        measurements = bench.list_measurements()
        values: list[list[float]] = [[] for _ in measurements]
        # The first round warms up. Whether there is time for another one is known better after each.
        for run in range(runs):
            started = perf_counter()
            for one, taken in zip(measurements, values, strict=True):
                if run == 0:
                    progress.print(f"Measuring: {one.name}")
                taken.append(await one.measure())
            now = perf_counter()
            if rounds is None and run > 0 and now - began + (now - started) > BUDGET_SECONDS:
                break
        count = len(values[0]) - 1
        table = Table("work", "median", "range", title=f"{assistant.card.id}, {count} round{'s' * (count != 1)}")
        for one, (_, *taken) in zip(measurements, values, strict=True):
            low, high = min(taken), max(taken)
            table.add_row(one.name, f"{median(taken):.2f} {one.unit}", f"{low:.2f} to {high:.2f}")
        console.print(table)


def format_seconds(seconds: float) -> str:
    """Format how long something takes, roughly."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    return f"{round(seconds / 60)} minutes"


class _Bench:
    """Runs jobs of meaningless tokens."""

    def __init__(self, engine: Engine, streams: int) -> None:
        self._engine = engine
        self._streams = streams
        largest = SIZES[0]
        self._sizes = largest._replace(prompt=min(largest.prompt, engine.window // 2))
        self._drawn = 0
        if engine.window < 4 * largest.answer:
            raise UserError(f"a context of {engine.window} tokens is too small to measure anything")

    async def choose_sizes(self, budget: float | None) -> float:
        """Choose the largest sizes of which a round and its warm-up fit; returns the seconds of a round."""
        await self._time_jobs([self._make_tokens(PROBE_TOKENS)], PROBE_ANSWER_TOKENS)  # warms up
        [probe] = await self._time_jobs([self._make_tokens(PROBE_TOKENS)], PROBE_ANSWER_TOKENS)
        prompt_token = probe.first / PROBE_TOKENS
        answer_token = (probe.last - probe.first) / max(1, probe.tokens - 1)

        def estimate(sizes: Sizes) -> float:
            # Each of three measurements reads a long prompt; streams share less than they have alone.
            streams = 1 + self._streams / 2
            return 3 * sizes.prompt * prompt_token + streams * sizes.answer * answer_token

        fitting = (one for one in SIZES if budget is None or 2 * estimate(one) < budget)
        chosen = next(fitting, SIZES[-1])
        self._sizes = chosen._replace(prompt=min(chosen.prompt, self._sizes.prompt))
        return estimate(self._sizes)

    def list_measurements(self) -> list[Measurement]:
        """List the measurements, in order."""
        return [
            Measurement(f"reading a new prompt of {self._sizes.prompt} tokens", self._measure_prefill, "tok/s"),
            Measurement("writing, one stream", lambda: self._measure_decode(1), "tok/s"),
            Measurement(
                f"writing, {self._streams} streams together", lambda: self._measure_decode(self._streams), "tok/s"
            ),
            Measurement(
                f"first token of a second turn, {self._sizes.tail} new tokens", self._measure_second_turn, "s"
            ),
            Measurement(
                f"first token of {self._streams} sessions that share a new prompt",
                self._measure_shared_prefix,
                "s",
            ),
        ]

    async def _measure_prefill(self) -> float:
        [answer] = await self._time_jobs([self._make_tokens(self._sizes.prompt)], 1)
        return self._sizes.prompt / answer.first

    async def _measure_decode(self, streams: int) -> float:
        answers = await self._time_jobs([self._make_tokens(8) for _ in range(streams)], self._sizes.answer)
        started, ended = min(answer.first for answer in answers), max(answer.last for answer in answers)
        return sum(answer.tokens - 1 for answer in answers) / (ended - started)

    async def _measure_second_turn(self) -> float:
        first = self._make_tokens(self._sizes.prompt - self._sizes.tail)
        await self._time_jobs([first], 0)
        [answer] = await self._time_jobs([first + self._make_tokens(self._sizes.tail)], 1)
        return answer.first

    async def _measure_shared_prefix(self) -> float:
        shared = self._make_tokens(self._sizes.prompt - self._sizes.tail)
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
