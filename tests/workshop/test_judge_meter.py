"""A judge that is measured: questions, tokens, seconds, and those without a verdict."""

import asyncio

import pytest

from commonweight.charter import DEFAULT as CHARTER
from commonweight.charter import parse
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.judge.judge import JudgeError, JudgeQuestion
from commonweight.workshop.heads.judge_meter import JudgeMeter, use_judge

QUESTION = JudgeQuestion(parse(CHARTER.read_bytes()).principles[0], "How does bread rise?", "")


async def say_yes(_question: JudgeQuestion) -> float:
    return 0.75


async def fail(_question: JudgeQuestion) -> float:
    raise JudgeError("it is away")


async def sleep(_question: JudgeQuestion) -> float:
    await asyncio.sleep(60)
    return 1.0


async def test_questions_are_counted_with_their_tokens() -> None:
    meter = JudgeMeter(say_yes, lambda text: len(text.split()))
    assert await meter(QUESTION) == 0.75
    assert meter.tokens == [len(QUESTION.instructions.split()) + len(QUESTION.material.split())]
    assert len(meter.seconds) == 1
    assert meter.unanswered == 0


async def test_questions_without_a_verdict_are_counted() -> None:
    meter = JudgeMeter(fail, len)
    with pytest.raises(JudgeError):
        await meter(QUESTION)
    meter.judge = sleep
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await meter(QUESTION)
    assert (len(meter.tokens), len(meter.seconds), meter.unanswered) == (2, 2, 2)


def test_a_guard_has_its_own_judge_again() -> None:
    guard = Guard(parse(CHARTER.read_bytes()), Bundle.load(DEFAULT, None), None, judge=say_yes)
    with pytest.raises(ValueError, match="broken"), use_judge(guard, None):
        assert guard.judge is None
        raise ValueError("broken")
    assert guard.judge is say_yes
