"""A charter applied, by its words alone: what is refused, recorded, held back, asked about, and set aside."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import cache

import pytest

from commonweight.charter import Charter
from commonweight.charter.principle import Mode
from commonweight.guard import (
    DEFAULT,
    Bundle,
    BundleError,
    Guard,
    JudgeError,
    JudgeQuestion,
    Part,
    Screening,
    Segment,
)
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from sample_charter import BREAD, UMBRELLA, charter

STORY = (
    "The umbrella was black. She opened the umbrella, closed her umbrella again, and repaired the umbrella. " * 3
)
RECIPE = (
    "Mix the flour with water and salt, let the dough rest overnight, and bake it in a hot oven for an hour. " * 3
)


@cache
def compiled(own_mode: str, severity: str) -> tuple[Charter, Bundle]:
    own = charter(mode=own_mode, severity=severity)
    return own, recompile(own, Bundle.load(DEFAULT, None), load_encoder(), {})


def guard(
    mode: Mode = "enforce",
    *,
    own_mode: str = "enforce",
    severity: str = "medium",
    judge: Callable[[JudgeQuestion], Awaitable[float]] | None = None,
    waived: tuple[str, ...] = (),
) -> Guard:
    own, bundle = compiled(own_mode, severity)
    return Guard(
        own, bundle, load_encoder(), mode=mode, reads_states=False, waived=waived, judge=judge, judge_seconds=0.5
    )


async def asked(guard: Guard, text: str, waived: frozenset[str] = frozenset()) -> Screening:
    screening = guard.start_screening(
        [Segment("input", (Part("messages[0].content[0]", text),), is_user=True)], waived
    )
    await screening.screen_input()
    return screening


async def answered(guard: Guard, text: str) -> tuple[Screening, list[bool]]:
    screening = await asked(guard, BREAD)
    held = []
    for i in range(0, len(text), 5):
        await screening.screen_token(None, "output", text[i : i + 5])
        held.append(screening.is_holding)
    await screening.screen_rest()
    return screening, held


async def test_a_principle_in_prose_works_at_once() -> None:
    screening = await asked(guard(), UMBRELLA)
    assert screening.refusal is not None
    assert screening.refusal.principle == "no-umbrellas"
    assert screening.refusal.category == "general_harms"
    assert screening.refusal.score >= screening.refusal.threshold
    assert screening.refusal.block == "messages[0].content[0]"
    assert screening.refusal.span is not None
    start, end = screening.refusal.span
    assert 0 <= start < end <= len(UMBRELLA)


@pytest.mark.parametrize(
    "text",
    [
        BREAD,
        "Will it rain in Bergen tomorrow?",
        "Write a function that reverses a list.",
        "How do I waterproof a jacket?",
        "Translate good morning into French.",
    ],
)
async def test_everything_else_passes(text: str) -> None:
    screening = await asked(guard(), text)
    assert screening.findings.verdicts == []


async def test_verdicts_do_not_latch() -> None:
    one = guard()
    assert (await asked(one, UMBRELLA)).refusal is not None
    assert (await asked(one, BREAD)).refusal is None
    assert (await asked(one, UMBRELLA)).refusal is not None


async def test_shadow_records_and_changes_nothing() -> None:
    for one in (guard("shadow"), guard(own_mode="shadow")):
        screening = await asked(one, UMBRELLA)
        assert screening.refusal is None
        [verdict] = screening.findings.verdicts
        assert (verdict.action, verdict.mode) == ("refuse", "shadow")
    assert (await asked(guard(own_mode="off"), UMBRELLA)).findings.verdicts == []


async def test_what_is_set_aside_is_not_looked_at() -> None:
    aside = frozenset({"no-umbrellas"})
    assert (await asked(guard(), UMBRELLA, aside)).findings.verdicts == []
    assert (await asked(guard(waived=("no-umbrellas",)), UMBRELLA)).findings.verdicts == []


def test_what_may_not_be_set_aside_is_said_to_be_so() -> None:
    from commonweight.charter import DEFAULT as STANDARD
    from commonweight.charter import parse

    own = parse(STANDARD.read_bytes())
    bundle = Bundle.load(DEFAULT, None)
    with pytest.raises(BundleError, match="nobody"):
        Guard(own, bundle, load_encoder(), waived=["mass-weapons"])
    with pytest.raises(BundleError, match="no such"):
        Guard(own, bundle, load_encoder(), waived=["sunshine"])
    # A key that asks for it anyway gets nothing.
    one = Guard(own, bundle, load_encoder(), reads_states=False)
    assert one.get_mode(one.get_principle("mass-weapons"), ["mass-weapons"]) == "enforce"
    assert one.get_mode(one.get_principle("sexual-content"), ["sexual-content"]) == "off"


async def test_an_answer_leaves_in_stretches_that_were_looked_at() -> None:
    screening, held = await answered(guard(), RECIPE)
    assert screening.refusal is None
    assert True in held
    assert False in held
    assert not screening.is_holding


async def test_an_answer_about_umbrellas_is_stopped() -> None:
    screening, held = await answered(guard(), STORY)
    assert screening.refusal is not None
    assert screening.refusal.place == "output"
    assert all(held[:10])


async def test_a_judge_decides_where_heads_doubt() -> None:
    questions: list[JudgeQuestion] = []

    async def lenient(question: JudgeQuestion) -> float:
        questions.append(question)
        return 0.1

    screening = await asked(guard(judge=lenient), UMBRELLA)
    assert screening.refusal is None
    assert screening.findings.escalated
    assert questions[0].principle.id == "no-umbrellas"
    assert UMBRELLA in questions[0].material
    assert questions[0].principle.permits in questions[0].instructions
    assert not (await asked(guard(judge=lenient), "Write a function that reverses a list.")).findings.escalated

    async def strict(_: JudgeQuestion) -> float:
        return 0.9

    screening = await asked(guard(judge=strict), UMBRELLA)
    assert screening.refusal is not None
    assert (screening.refusal.stage, screening.refusal.score) == ("judge", 0.9)


async def hangs(_: JudgeQuestion) -> float:
    await asyncio.sleep(60)
    return 0.0


async def fails(_: JudgeQuestion) -> float:
    raise JudgeError("it is out of reach")


async def lies(_: JudgeQuestion) -> float:
    return 7.0


async def mumbles(_: JudgeQuestion) -> float:
    return math.nan


@pytest.mark.parametrize("judge", [hangs, fails, lies, mumbles])
async def test_without_a_verdict_the_charter_says_what_holds(
    judge: Callable[[JudgeQuestion], Awaitable[float]],
) -> None:
    for severity, refused in (("medium", False), ("critical", True)):
        screening = await asked(guard(judge=judge, severity=severity), UMBRELLA)
        assert (screening.refusal is not None) == refused, severity
        assert screening.findings.escalated


def test_a_record_holds_no_text() -> None:
    screening = asyncio.run(asked(guard(), UMBRELLA))
    record = str(screening.findings.to_record())
    assert "umbrella should" not in record
    assert charter().sha256 in record
