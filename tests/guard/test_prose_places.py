"""Principles in prose are looked at in every place that they are drawn in."""

from functools import cache

import pytest

from commonweight.charter import parse
from commonweight.guard import DEFAULT, Bundle, Guard, ScreenedInput
from commonweight.guard.encoder import load_encoder
from commonweight.guard.recompile import recompile
from sample_charter import BREAD, UMBRELLA, source


@cache
def guard(place: str) -> Guard:
    text = (
        source()
        .decode()
        .replace("applies_to: {input: refuse, output: refuse}", f"applies_to: {{{place}: refuse}}")
    )
    own = parse(text.encode())
    return Guard(own, recompile(own, Bundle.load(DEFAULT, None), load_encoder(), {}), load_encoder())


@pytest.mark.parametrize("place", ["tool_result", "input"])
async def test_a_tools_result(place: str) -> None:
    for results, refused in (((BREAD, UMBRELLA), place == "tool_result"), ((BREAD,), False)):
        screening = guard(place).start_screening(ScreenedInput("Go on.", results))
        await screening.screen_input()
        assert (screening.refusal is not None) == refused
        if screening.refusal is not None:
            assert (screening.refusal.place, screening.refusal.stage) == ("tool_result", "text")


@pytest.mark.parametrize("place", ["tool_input", "output"])
async def test_a_tool_call(place: str) -> None:
    for text, refused in ((UMBRELLA, place == "tool_input"), (BREAD, False)):
        screening = guard(place).start_screening(ScreenedInput("Go on.", ()))
        assert screening.screens_blocks == (place == "tool_input")
        await screening.screen_call("search", f'{{"query": "{text}"}}', "content[1]")
        assert (screening.refusal is not None) == refused
        if screening.refusal is not None:
            assert (screening.refusal.place, screening.refusal.block) == ("tool_input", "content[1]")
