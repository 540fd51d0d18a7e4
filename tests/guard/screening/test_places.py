"""Places of a request: where a principle is looked for, what a verdict names, and how often a text is scored."""

import tracemalloc
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

from commonweight.charter import Charter, parse
from commonweight.charter.principle import Place
from commonweight.guard import DEFAULT, Bundle, Guard, JudgeError, JudgeQuestion, Screening, extract_segments
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from commonweight.guard.heads.scores import HarmScore, TextScores
from commonweight.guard.judge.judge import MAX_CHARACTERS
from commonweight.guard.phrases.screening import PlacedPhrase
from commonweight.guard.screening.score_cache import ENTRY_BYTES, ScoreCache, measure_bytes
from commonweight.messages.request import MessageRequest
from sample_charter import BREAD, UMBRELLA, source

EVERYWHERE = "{" + ", ".join(f"{place}: refuse" for place in get_args(Place)) + "}"
CALL = {"type": "tool_use", "id": "a", "name": "look_up", "input": {"word": "bread"}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "Flour and water."}
QUESTION = {"type": "text", "text": BREAD}


@cache
def compiled(applies_to: str, schema: str = "charter/2") -> tuple[Charter, Bundle]:
    text = source().decode().replace("charter/1", schema).replace("{input: refuse, output: refuse}", applies_to)
    own = parse(text.encode())
    return own, recompile(own, Bundle.load(DEFAULT, None), load_encoder(), {})


def guard(
    applies_to: str = EVERYWHERE,
    schema: str = "charter/2",
    judge: Callable[[JudgeQuestion], Awaitable[float]] | None = None,
) -> Guard:
    own, bundle = compiled(applies_to, schema)
    return Guard(own, bundle, load_encoder(), reads_states=False, judge=judge, judge_seconds=5)


def make_tool(description: str) -> dict[str, Any]:
    return {"name": "look_up", "description": description, "input_schema": {"type": "object", "properties": {}}}


def place_text(place: str, text: str) -> MessageRequest:
    """A harmless agent's request, with a text at one place."""
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    fields: dict[str, Any] = {"system": "Answer briefly.", "tools": [make_tool("Looks up a word.")]}
    asked: list[dict[str, Any]] = [QUESTION]
    result: dict[str, Any] = dict(RESULT)
    first = "Good morning."
    match place:
        case "input":
            asked = [QUESTION, {"type": "text", "text": text}]
        case "document":
            asked = [document, QUESTION]
        case "system":
            fields["system"] = [{"type": "text", "text": "Answer briefly."}, {"type": "text", "text": text}]
        case "tools":
            fields["tools"] = [make_tool(text)]
        case "tool_result":
            result["content"] = [{"type": "text", "text": "Flour."}, {"type": "text", "text": text}]
        case "history":
            first = text
    messages = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": [CALL]},
        {"role": "user", "content": [result, *asked]},
    ]
    return MessageRequest.model_validate({"model": "m", "max_tokens": 9, "messages": messages, **fields})


BLOCKS = {
    "input": ("messages[2].content[2]", None),
    "document": ("messages[2].content[1]", None),
    "system": ("system[1]", None),
    "tools": ("tools[0].description", "look_up"),
    "tool_result": ("messages[2].content[0].content[1]", "look_up"),
    "history": ("messages[0].content[0]", None),
}


async def screened(
    one: Guard, request: MessageRequest, tenant: str = "", waived: frozenset[str] = frozenset()
) -> Screening:
    screening = one.start_screening(extract_segments(request), waived, tenant)
    await screening.screen_input()
    return screening


@pytest.mark.parametrize("place", BLOCKS)
async def test_what_is_restricted_is_found_at_every_place_and_its_block_is_named(place: str) -> None:
    screening = await screened(guard(), place_text(place, UMBRELLA))
    assert screening.refusal is not None
    assert screening.refusal.place == place
    assert (screening.refusal.block, screening.refusal.tool) == BLOCKS[place]
    assert screening.refusal.span is not None
    start, end = screening.refusal.span
    assert 0 <= start < end <= len(UMBRELLA)
    assert len(screening.refusal.digest or "") == 32
    assert (await screened(guard(), place_text(place, BREAD))).findings.verdicts == []


@pytest.mark.parametrize("place", BLOCKS)
async def test_a_place_that_is_absent_is_not_screened(place: str) -> None:
    others = EVERYWHERE.replace(f"{{{place}: refuse, ", "{").replace(f", {place}: refuse", "")
    screening = await screened(guard(others), place_text(place, UMBRELLA))
    assert screening.findings.verdicts == []


@pytest.mark.parametrize("place", ["document", "system", "tools", "history"])
async def test_new_places_are_in_shadow_for_a_charter_of_before(place: str) -> None:
    screening = await screened(guard("{input: refuse, output: refuse}", "charter/1"), place_text(place, UMBRELLA))
    assert screening.refusal is None
    [verdict] = screening.findings.verdicts
    assert (verdict.place, verdict.action, verdict.mode) == (place, "refuse", "shadow")


async def test_documents_were_results_of_tools_for_a_charter_of_before() -> None:
    screening = await screened(guard("{tool_result: refuse}", "charter/1"), place_text("document", UMBRELLA))
    assert screening.refusal is not None
    assert screening.refusal.place == "document"


async def test_each_text_is_scored_once_for_each_tenant() -> None:
    one, request = guard(), place_text("input", BREAD)
    first = (await screened(one, request, "a")).findings
    assert first.hits == 0
    assert first.misses == len(extract_segments(request)) + 1  # the user's turns together
    again = (await screened(one, request, "a")).findings
    assert (again.hits, again.misses) == (first.misses, 0)
    other = (await screened(one, request, "b")).findings
    assert (other.hits, other.misses) == (0, first.misses)


async def test_decisions_are_made_anew_from_kept_scores() -> None:
    one, request = guard(), place_text("document", UMBRELLA)
    assert (await screened(one, request)).refusal is not None
    aside = await screened(one, request, waived=frozenset({"no-umbrellas"}))
    assert aside.findings.verdicts == []
    again = await screened(one, request)
    assert again.refusal is not None
    assert again.findings.misses == 0


async def test_a_text_is_scored_again_at_another_place() -> None:
    one = guard()
    await screened(one, place_text("input", BREAD))
    moved = await screened(one, place_text("document", "Flour and water."))
    # The document, the question without the text beside it, and the user's turns together.
    assert moved.findings.misses == 3


async def test_the_cache_is_bounded_and_no_tenant_pushes_out_the_scores_of_another() -> None:
    cache = ScoreCache(guard().scorer, ("x",), bytes(32), capacity=40 * ENTRY_BYTES)
    looked: list[str] = []

    async def look(tenant: str, text: str) -> bool:
        """Look for phrases in a text; tells whether it was known."""
        before = len(looked)

        def find() -> list[PlacedPhrase]:
            looked.append(text)
            return []

        await cache.find_phrases([text], "input", (), tenant, find)
        return len(looked) == before

    assert not await look("small", "one")
    for number in range(100):
        await look("large", str(number))
    assert await look("small", "one")
    assert not await look("large", "0")
    assert all([await look("large", str(number)) for number in range(80, 100)])


def test_scores_are_measured_with_all_that_they_keep() -> None:
    row = np.zeros(1000, np.float32)
    prose = {str(i): (float(i), (i, i + 1)) for i in range(500)}
    scores = TextScores(HarmScore(0.5, row, (0, 9)), "grams", prose, HarmScore(0.5, row[:0], (0, 9)))
    # Twice the array, as the second is a view that keeps it, and for each pair a number, two tuples and a slot.
    assert 2 * row.nbytes + 500 * 160 < measure_bytes(scores) < 2 * row.nbytes + 500 * 400
    # A process without other work would grow by no more.
    tracemalloc.start()
    kept = [
        TextScores(HarmScore(i / 7, row.copy(), (i, i + 1)), "grams", {}, scores.hidden) for i in range(300, 1300)
    ]
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown <= sum(measure_bytes(one) for one in kept)


async def test_the_judge_sees_the_text_that_the_question_is_about() -> None:
    questions: list[JudgeQuestion] = []

    async def lenient(question: JudgeQuestion) -> float:
        questions.append(question)
        return 0.1

    long = BREAD + "\n" * 2 * MAX_CHARACTERS + UMBRELLA
    for place, tag in (("document", "document"), ("tool_result", "tool_result"), ("system", "system_prompt")):
        questions.clear()
        screening = await screened(guard(judge=lenient), place_text(place, long))
        assert screening.refusal is None
        [question] = questions
        assert f"<request>\n{BREAD}" in question.material
        assert f"<{tag}>\n" in question.material
        assert UMBRELLA in question.material
        assert len(question.material) < 2 * MAX_CHARACTERS + 1000


async def test_a_judges_word_is_kept_and_its_failure_is_not() -> None:
    asked = 0

    async def fails_once(_: JudgeQuestion) -> float:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise JudgeError("it is out of reach")
        return 0.9

    one, request = guard(judge=fails_once), place_text("document", UMBRELLA)
    assert (await screened(one, request)).refusal is None  # medium: allowed when the judge fails
    assert (await screened(one, request)).refusal is not None
    assert (await screened(one, request)).refusal is not None
    assert asked == 2
    assert (await screened(one, request, "another")).refusal is not None
    assert asked == 3


async def test_a_request_with_many_doubtful_texts_asks_the_judge_a_few_times() -> None:
    asked = 0

    async def lenient(_: JudgeQuestion) -> float:
        nonlocal asked
        asked += 1
        return 0.1

    documents = [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": f"{UMBRELLA} ({i})"}}
        for i in range(12)
    ]
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [*documents, QUESTION]}]}
    screening = await screened(guard(judge=lenient), MessageRequest.model_validate(body))
    assert asked == 8
    # What it was not asked about is decided by the screen.
    assert screening.refusal is not None
    assert screening.refusal.stage == "text"


async def test_words_are_looked_for_in_calls_too() -> None:
    screening = guard().start_screening([])
    text = '{"question": "' + f"{UMBRELLA} " * 4 + '"}'
    for at in range(0, len(text), 4):
        await screening.screen_token(None, "tool_input", text[at : at + 4])
    await screening.screen_rest()
    assert screening.refusal is not None
    assert screening.refusal.place == "tool_input"


async def test_what_was_thought_is_not_judged_by_what_holds_for_the_answer() -> None:
    screening = guard("{output: refuse}").start_screening([])
    for at in range(0, len(UMBRELLA), 4):
        await screening.screen_token(None, "thinking", UMBRELLA[at : at + 4])
    await screening.screen_token(None, "output", "Good morning.")
    await screening.screen_rest()
    assert screening.findings.verdicts == []


async def test_a_record_names_blocks_and_digests_and_holds_no_text() -> None:
    one = guard()
    record = (await screened(one, place_text("tool_result", UMBRELLA), "a")).findings.to_record()
    [verdict] = record["verdicts"]
    assert verdict["block"] == "messages[2].content[0].content[1]"
    assert verdict["digest"] == one.scores.compute_digest("a", f"Flour.\n\n{UMBRELLA}")
    assert verdict["digest"] != one.scores.compute_digest("b", f"Flour.\n\n{UMBRELLA}")
    assert "umbrella should" not in str(record)
