"""Judge that is measured: what it is asked, how long it takes, and how often it gives no verdict."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from commonweight.guard import Guard, Judge
from commonweight.guard.judge.judge import JudgeQuestion


@dataclass
class JudgeMeter:
    """Asks another judge, and notes each question's tokens and seconds."""

    judge: Judge
    count_tokens: Callable[[str], int]
    tokens: list[int] = field(default_factory=list)
    """Of each question: the principle, and the exchange that is judged."""
    seconds: list[float] = field(default_factory=list)
    """Until each answer."""
    unanswered: int = 0
    """Questions without a verdict: it came too late, or was none."""

    async def __call__(self, question: JudgeQuestion) -> float:
        """The probability of yes."""
        self.tokens.append(self.count_tokens(question.instructions) + self.count_tokens(question.material))
        begun = time.perf_counter()
        is_answered = False
        try:
            probability = await self.judge(question)
            is_answered = True
            return probability
        finally:
            # One that takes too long is cancelled.
            self.seconds.append(time.perf_counter() - begun)
            self.unanswered += not is_answered


@contextlib.contextmanager
def use_judge(guard: Guard, judge: Judge | None) -> Iterator[None]:
    """Let a guard ask another judge, or none, until the block is left. No exchange may be under way."""
    before, guard.judge = guard.judge, judge
    try:
        yield
    finally:
        guard.judge = before
