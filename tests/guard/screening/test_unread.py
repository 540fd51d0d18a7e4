"""Input in a language that no head reads: the charter says what happens, and it is on record."""

import json
from typing import Any

import pytest

from commonweight.charter import Charter, CharterError, parse
from commonweight.guard import Guard
from commonweight.guard.text.languages import identify_language
from commonweight.guard.text.segments import Part, Segment
from sample_charter import source
from second_bundle import make_bundle

FOREIGN = "Làm thế nào để nướng một ổ bánh mì lúa mạch đen ở nhà, và cần bao nhiêu thời gian?"


def charter_with(decision: str) -> Charter:
    return parse(source().replace(b"licence: CC0-1.0", f"licence: CC0-1.0\nunreadable: {decision}".encode()))


async def screen(charter: Charter, text: str) -> dict[str, Any]:
    guard = Guard(charter, make_bundle(charter, harmful=["umbrella"]), None, reads_states=False)
    screening = guard.start_screening([Segment("input", (Part("messages[0].content[0]", text),), is_user=True)])
    await screening.screen_input()
    record: dict[str, Any] = json.loads(json.dumps(screening.findings.to_record()))
    return record


async def test_unread_input_passes_by_default_and_is_on_record() -> None:
    record = await screen(parse(source()), FOREIGN)
    assert (record["language"], record["is_read"], record["verdicts"]) == ("vi", False, [])
    record = await screen(parse(source()), "How do I bake a loaf of rye bread at home?")
    assert (record["language"], record["is_read"]) == ("en", True)


async def test_unread_input_is_refused_where_the_charter_says_so() -> None:
    record = await screen(charter_with("refuse"), FOREIGN)
    [verdict] = record["verdicts"]
    assert (verdict["stage"], verdict["principle"], verdict["strictness"]) == (
        "language",
        "no-umbrellas",
        "standard",
    )
    assert not (await screen(charter_with("refuse"), "How do I bake a loaf of rye bread at home?"))["verdicts"]


async def test_without_a_judge_nothing_is_asked() -> None:
    assert not (await screen(charter_with("judge"), FOREIGN))["verdicts"]


def test_another_decision_is_no_charter() -> None:
    with pytest.raises(CharterError, match="unreadable"):
        charter_with("maybe")


def test_short_texts_have_no_language() -> None:
    assert identify_language("x = [1, 2, 3]") is None
    assert identify_language("") is None
