"""Stages of a turn as async generators: engine steps -> answer -> screening -> release.

Each stage reads the one before it and closes it when it ends, so that closing the last one cancels the job.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from commonweight.engines.contract import Engine, EngineEvent, Finish, Job, Prefilled, Step
from commonweight.guard import Screening, Verdict
from commonweight.messages.events import StreamEvent
from commonweight.prompting import Prompt
from commonweight.turn.answer import Answer
from commonweight.turn.block_filter import BlockFilter
from commonweight.turn.record import Stopwatch
from commonweight.turn.release import ReleaseGate


@dataclass(frozen=True)
class AnsweredStep:
    """An engine event, and the stream events that the answer makes of it."""

    step: EngineEvent
    events: list[StreamEvent]


@dataclass(frozen=True)
class ScreenedStep:
    """Stream events with the guard's decision on them."""

    events: list[StreamEvent]
    is_held: bool = False
    """They wait until the guard has no doubt."""
    refusal: Verdict | None = None
    """The answer ends with a refusal, after these events."""


async def run_job(
    engine: Engine, job: Job, stopwatch: Stopwatch, count_used: Callable[[], int | None]
) -> AsyncGenerator[EngineEvent]:
    """Engine steps of one job.

    ``count_used``: tokens of prompt and answer that are worth caching, asked for when the job ends; None: all.
    The engine may be ahead of a stop sequence or a refusal, and what it drew past it is of no use.
    """
    async with engine.run(job) as generation:
        try:
            async for step in generation:
                stopwatch.mark_event(step)
                yield step
        finally:
            used = count_used()
            if used is not None:
                generation.truncate(used)


async def answer_steps(steps: AsyncGenerator[EngineEvent], answer: Answer) -> AsyncGenerator[AnsweredStep]:
    """Steps with the events of the message, until that is complete."""
    async with aclosing(steps):
        async for step in steps:
            yield AnsweredStep(step, list(answer.process(step)))
            if answer.is_complete:
                return


async def screen_steps(
    steps: AsyncGenerator[AnsweredStep],
    screening: Screening | None,
    answer: Answer,
    prompt: Prompt,
    blocks: BlockFilter | None = None,
) -> AsyncGenerator[ScreenedStep]:
    """Steps with the guard's decision on each, which may end them. A request that is refused has no steps.

    ``blocks`` screens the blocks of the answer; None: there is nothing to look for in them.
    """
    if screening is not None and screening.refusal is not None:
        yield ScreenedStep([], refusal=screening.refusal)
        return
    async with aclosing(steps):
        async for answered in steps:
            if screening is None:
                yield ScreenedStep(answered.events)
                continue
            await _screen_step(screening, answered.step, answer, prompt)
            events = answered.events
            if blocks is not None and screening.refusal is None:
                events = await blocks.push(events)
            if screening.refusal is not None:
                # The message may begin before it is refused; nothing else of it leaves.
                started = answered.events if isinstance(answered.step, Prefilled) else []
                yield ScreenedStep(started, refusal=screening.refusal)
                return
            yield ScreenedStep(events, is_held=screening.is_holding)


async def release_events(
    steps: AsyncGenerator[ScreenedStep], gate: ReleaseGate, answer: Answer, on_complete: Callable[[], None]
) -> AsyncGenerator[StreamEvent]:
    """Events that leave for the client.

    ``on_complete`` is called before the last ones of a message that is complete or refused.
    """
    async with aclosing(steps):
        async for screened in steps:
            leaving: Iterable[StreamEvent]
            if screened.refusal is not None:
                leaving = [*gate.finish(screened.events), *gate.finish(answer.refuse(screened.refusal))]
                on_complete()
            else:
                leaving = gate.push(screened.events, is_held=screened.is_held)
                if answer.is_complete:
                    on_complete()
            for event in leaving:
                yield event


async def _screen_step(screening: Screening, step: EngineEvent, answer: Answer, prompt: Prompt) -> None:
    latest = "".join(piece.text for piece in answer.latest)
    match step:
        case Prefilled(scores=scores):
            await screening.screen_prompt(scores, *prompt.user_span)
        case Step(scores=scores):
            await screening.screen_token(scores, answer.place, latest, answer.latest)
            if answer.is_complete:
                await screening.screen_rest()
        case Finish():
            if latest:  # what the parser had kept back
                await screening.screen_token(None, answer.place, latest, answer.latest)
            await screening.screen_rest()
        case _:
            pass
