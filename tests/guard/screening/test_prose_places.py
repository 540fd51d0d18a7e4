"""Principles in prose are looked at in every place that they are drawn in."""

from functools import cache

import pytest

from commonweight.charter import parse
from commonweight.guard import DEFAULT, AnswerPiece, Bundle, Guard, Part, Segment
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from sample_charter import BREAD, UMBRELLA, source

ASKED = Segment("input", (Part("messages[0].content[0]", "Go on."),), is_user=True)


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
    for texts, refused in (((BREAD, UMBRELLA), place == "tool_result"), ((BREAD,), False)):
        results = [
            Segment("tool_result", (Part(f"messages[0].content[{number}].content[0]", text),), "search")
            for number, text in enumerate(texts, 1)
        ]
        screening = guard(place).start_screening([ASKED, *results])
        await screening.screen_input()
        assert (screening.refusal is not None) == refused
        if screening.refusal is not None:
            assert (screening.refusal.place, screening.refusal.stage) == ("tool_result", "text")
            assert (screening.refusal.block, screening.refusal.tool) == (
                "messages[0].content[2].content[0]",
                "search",
            )


@pytest.mark.parametrize("place", ["tool_input", "output"])
async def test_a_tool_call(place: str) -> None:
    for text, refused in ((UMBRELLA, place == "tool_input"), (BREAD, False)):
        screening = guard(place).start_screening([ASKED])
        written = f'{{"query": "{text}"}}'
        await screening.screen_token(None, "tool_input", written, [AnswerPiece(1, written, "search")])
        await screening.screen_rest()
        assert (screening.refusal is not None) == refused
        if screening.refusal is not None:
            assert (screening.refusal.place, screening.refusal.block) == ("tool_input", "content[1]")
            assert screening.refusal.tool == "search"
