"""What was computed for one turn is of use to the next: a prompt and its answer begin the prompt that follows."""

from dataclasses import dataclass
from itertools import takewhile, zip_longest
from random import Random
from typing import Any

import pytest
from agents import Client, Model, Turn, scripts
from families import CALLING, FAMILIES, STARTER, WITHOUT_TEMPLATE, Family
from hostile import Request, parsed
from hypothesis import given, settings
from hypothesis import strategies as st

import recordings
from commonweight.messages.request import MessageRequest
from commonweight.messages.response import OutputText, OutputToolUse
from commonweight.prompting import Prompt, Renderer

pytestmark = pytest.mark.slow

EVERY = [*FAMILIES, WITHOUT_TEMPLATE]


@dataclass(frozen=True)
class RecordedTurn:
    """A finished turn."""

    prompt: Prompt
    generated: list[int]
    reasoned: bool
    called: bool
    user_spoke: bool
    """The template sees a user turn: not text that is joined to a tool result."""


def stable(family: Family, turns: list[RecordedTurn], *, user_speaks: bool) -> list[int]:
    """What the next prompt begins with: the last prompt and its answer, as far as the last stable boundary.

    That is the beginning of the first answer whose reasoning the template shows no longer; or of the tools, where
    the template moves them on to the latest message of the user. Otherwise it is the end.
    """
    last = turns[-1]
    everything = last.prompt.token_ids + last.generated
    if family.moves_tools and user_speaks:
        moved = family.tokenizer.special_tokens[family.moves_tools]
        return everything[: _last_index(everything, moved)] if moved in everything else everything
    shown = {
        "never": [],
        "at once": [last],
        "when the user speaks": _since(turns, [t.user_spoke for t in turns]) if user_speaks else [],
        "when it has answered": _since(turns, [True, *(not t.called for t in turns[:-1])])
        if not last.called
        else [],
    }[family.drops_reasoning]
    first = next((turn for turn in shown if turn.reasoned), None)
    return everything if first is None else _without_turn(family, first.prompt.token_ids)


def _since(turns: list[RecordedTurn], begins: list[bool]) -> list[RecordedTurn]:
    """The turns since the last one that begins anew."""
    return turns[max((i for i, begun in enumerate(begins) if begun), default=0) :]


def _without_turn(family: Family, ids: list[int]) -> list[int]:
    """A prompt without the beginning of the assistant's turn."""
    specials = family.tokenizer.special_tokens
    opening = next((i for name, i in specials.items() if family.turn.startswith(name)), -1)
    return ids[: _last_index(ids, opening)] if opening in ids else ids


def _last_index(ids: list[int], wanted: int) -> int:
    return len(ids) - 1 - ids[::-1].index(wanted)


def user_speaks(family: Family, turn: Turn, *, has_results: bool) -> bool:
    """Whether the template sees a message of the user in what the client says."""
    template = family.renderer.template
    is_joined = has_results and template.has_calls and not template.has_text_after_results
    instructs = turn.instructs is not None or turn.changes != ()
    says = turn.says is not None or (instructs and not template.has_late_system)
    return not has_results or not template.has_calls or (says and not is_joined)


def check_begins(family: Family, expected: list[int], prompt: Prompt) -> None:
    """What a prompt begins with; pytest's own account of two long lists takes minutes."""
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(expected, prompt.token_ids, strict=False))
    )
    if same < len(expected):
        was, became = (_said(family, ids[same - 20 : same + 20]) for ids in (expected, prompt.token_ids))
        pytest.fail(f"token {same} of {len(expected)} differs: {was!r} became {became!r}")


def _said(family: Family, token_ids: list[int]) -> bytes:
    return b"".join(family.tokenizer.decode(token_id) for token_id in token_ids)


def reasoned(family: Family, reasoning: str, blocks: list[OutputText | OutputToolUse]) -> bool:
    """Whether an answer has what its template takes for reasoning: for one of them, also text beside a call."""
    is_aside = len(blocks) > 1 and isinstance(blocks[0], OutputText)
    return bool(reasoning.strip()) or (family.renderer.template.format.takes_one_call and is_aside)


def rendered(family: Family, request: Request, tenant: str = "") -> Prompt:
    """The prompt of a request."""
    return family.renderer.render(parsed(request), tenant)


@pytest.mark.parametrize("family", EVERY, ids=str)
@settings(max_examples=40)
@given(script=scripts, seed=st.integers(0, 2**32), has_tools=st.booleans(), thinks=st.booleans())
def test_prompt_and_answer_begin_the_next_prompt(
    family: Family, script: list[Turn], seed: int, has_tools: bool, thinks: bool
) -> None:
    chance = Random(seed)
    client, model = Client(chance, has_tools, thinks), Model(family, chance)
    turns: list[RecordedTurn] = []
    for turn in script:
        speaks = user_speaks(family, turn, has_results=bool(client.waiting))
        client.say(turn)
        prompt = rendered(family, client.request())
        assert rendered(family, client.request()).token_ids == prompt.token_ids  # in whatever form
        assert rendered(family, client.request(has_marks=False)).token_ids == prompt.token_ids
        if turns:
            expected = stable(family, turns, user_speaks=speaks)
            check_begins(family, expected, prompt)
        generated, reasoning, blocks = model.answer(prompt, turn)
        if not blocks:
            return  # cut off within a call: nothing that a client could send back
        family.renderer.remember_answer(prompt, blocks, generated, reasoning)
        client.add_answer(reasoning, blocks)
        turns.append(
            RecordedTurn(prompt, generated, reasoned(family, reasoning, blocks), bool(client.waiting), speaks)
        )


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@settings(max_examples=10)
@given(script=scripts, seed=st.integers(0, 2**32), thinks=st.booleans())
def test_what_is_forgotten_changes_only_the_answers_place(
    family: Family, script: list[Turn], seed: int, thinks: bool
) -> None:
    """After a restart, say. The conversation up to the answer is the same still."""
    chance = Random(seed)
    client, model = Client(chance, thinks=thinks), Model(family, chance)
    turns: list[RecordedTurn] = []
    for turn in script[:3]:
        speaks = user_speaks(family, turn, has_results=bool(client.waiting))
        client.say(turn)
        prompt = rendered(family, client.request(), tenant=str(seed))  # for whom nothing is ever remembered
        if turns:
            last = turns[-1].prompt
            expected = stable(family, turns, user_speaks=speaks)[
                : len(last.token_ids) - len(last.answer_prefix_ids)
            ]
            expected = _without_turn(family, expected)
            check_begins(family, expected, prompt)
        generated, reasoning, blocks = model.answer(prompt, turn)
        if not blocks:
            return
        client.add_answer(reasoning, blocks)
        turns.append(
            RecordedTurn(prompt, generated, reasoned(family, reasoning, blocks), bool(client.waiting), speaks)
        )


# A real agent's conversations


def answered(message: dict[str, Any]) -> tuple[Turn, list[OutputText | OutputToolUse]]:
    """What an assistant's message says, for a model to say it again."""
    blocks = [b for b in message["content"] if b["type"] != "thinking"]
    said = [OutputText(text=b["text"]) if b["type"] == "text" else OutputToolUse(**b) for b in blocks]
    thought = "".join(b["thinking"] for b in message["content"] if b["type"] == "thinking")
    calls = tuple((block.name, block.input) for block in said if isinstance(block, OutputToolUse))
    text = "".join(block.text for block in said if isinstance(block, OutputText))
    return Turn(None, None, "", False, thought, text, calls), said


def asked(messages: list[dict[str, Any]]) -> tuple[Turn, bool]:
    """What the client says at the end, and whether it answers calls."""
    said = list(takewhile(lambda message: message["role"] != "assistant", reversed(messages)))
    blocks = [b for m in said if m["role"] == "user" for b in m["content"] if not isinstance(m["content"], str)]
    has_results = any(block["type"] == "tool_result" for block in blocks)
    says = any(block["type"] == "text" for block in blocks) or any(isinstance(m["content"], str) for m in said)
    instructs = any(message["role"] == "system" for message in said)
    return Turn("x" if says else None, "x" if instructs else None, "", False, "", "", ()), has_results


@pytest.mark.parametrize("family", [STARTER, WITHOUT_TEMPLATE, *CALLING], ids=str)
@pytest.mark.parametrize("name", recordings.NAMES)
def test_a_recorded_conversation_grows_at_its_end(name: str, family: Family) -> None:
    bodies = recordings.conversation(name)
    model = Model(family, Random(0))
    renderer = Renderer(family.tokenizer, family.template_source)
    turns: list[RecordedTurn] = []
    for body, following in zip_longest(bodies, bodies[1:]):
        client_says, has_results = asked(body["messages"])
        speaks = user_speaks(family, client_says, has_results=has_results)
        prompt = renderer.render(MessageRequest.model_validate(body))
        if turns:
            expected = stable(family, turns, user_speaks=speaks)
            check_begins(family, expected, prompt)
        if following is None:
            return
        turn, blocks = answered(following["messages"][len(body["messages"])])
        if len(turn.calls) > 1 and family.renderer.template.format.takes_one_call:
            return  # no model of this family says so
        generated, reasoning, _ = model.answer(prompt, turn)
        renderer.remember_answer(prompt, blocks, generated, reasoning)
        turns.append(
            RecordedTurn(prompt, generated, reasoned(family, reasoning, blocks), bool(turn.calls), speaks)
        )
