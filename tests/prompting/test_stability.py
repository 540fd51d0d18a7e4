"""What was computed for one turn is of use to the next: a prompt and its answer begin the prompt that follows."""

from dataclasses import dataclass
from itertools import takewhile, zip_longest
from random import Random
from typing import Any

import pytest
import recordings
from agents import Client, Model, Turn, scripts
from families import CALLING, FAMILIES, STARTER, UNTOLD, Family
from hostile import Request, parsed
from hypothesis import given, settings
from hypothesis import strategies as st

from commonweight.messages.request import MessageParam, MessageRequest
from commonweight.messages.response import OutputText
from commonweight.prompting import Prompt, Renderer

EVERY = [*FAMILIES, UNTOLD]


@dataclass(frozen=True)
class Told:
    """A turn that is over."""

    prompt: Prompt
    generated: list[int]
    reasoned: bool
    called: bool
    user_spoke: bool
    """To the template: what it joins to results is not said by the user."""


def stable(family: Family, told: list[Told], *, user_speaks: bool) -> list[int]:
    """What the next prompt begins with: the last prompt and its answer, as far as the last stable boundary.

    That is the beginning of the first answer whose reasoning the template shows no longer; or of the tools, where
    the template moves them on to the latest message of the user. Otherwise it is the end.
    """
    last = told[-1]
    everything = last.prompt.token_ids + last.generated
    if family.moves_tools and user_speaks:
        moved = family.tokenizer.special_tokens[family.moves_tools]
        return everything[: _last_index(everything, moved)] if moved in everything else everything
    shown = {
        "never": [],
        "at once": [last],
        "when the user speaks": _since(told, [t.user_spoke for t in told]) if user_speaks else [],
        "when it has answered": _since(told, [True, *(not t.called for t in told[:-1])])
        if not last.called
        else [],
    }[family.drops_reasoning]
    first = next((turn for turn in shown if turn.reasoned), None)
    return everything if first is None else _without_turn(family, first.prompt.token_ids)


def _since(told: list[Told], begins: list[bool]) -> list[Told]:
    """The turns since the last one that begins anew."""
    return told[max((i for i, begun in enumerate(begins) if begun), default=0) :]


def _without_turn(family: Family, ids: list[int]) -> list[int]:
    """A prompt without the beginning of the assistant's turn."""
    specials = family.tokenizer.special_tokens
    opening = next((i for name, i in specials.items() if family.turn.startswith(name)), None)
    return ids if opening is None else ids[: _last_index(ids, opening)]


def _last_index(ids: list[int], wanted: int) -> int:
    return len(ids) - 1 - ids[::-1].index(wanted)


def user_speaks(family: Family, turn: Turn, *, has_results: bool) -> bool:
    """Whether the template sees a message of the user in what the client says."""
    template = family.renderer.template
    is_joined = has_results and template.has_calls and not template.has_text_after_results
    says = turn.says is not None or (turn.instructs is not None and not template.has_late_system)
    return not has_results or not template.has_calls or (says and not is_joined)


def rendered(family: Family, request: Request, renderer: Renderer | None = None) -> Prompt:
    """The prompt of a request."""
    return (renderer or family.renderer).render(parsed(request))


@pytest.mark.parametrize("family", EVERY, ids=str)
@settings(max_examples=40)
@given(script=scripts, seed=st.integers(0, 2**32), has_tools=st.booleans(), thinks=st.booleans())
def test_prompt_and_answer_begin_the_next_prompt(
    family: Family, script: list[Turn], seed: int, has_tools: bool, thinks: bool
) -> None:
    chance = Random(seed)
    client, model = Client(chance, has_tools, thinks), Model(family, chance)
    told: list[Told] = []
    for turn in script:
        speaks = user_speaks(family, turn, has_results=bool(client.waiting))
        client.say(turn)
        prompt = rendered(family, client.request())
        assert rendered(family, client.request()).token_ids == prompt.token_ids  # in whatever form
        assert rendered(family, client.request(has_marks=False)).token_ids == prompt.token_ids
        if told:
            expected = stable(family, told, user_speaks=speaks)
            assert prompt.token_ids[: len(expected)] == expected
        generated, reasoning, blocks = model.answer(prompt, turn)
        if not blocks:
            return  # cut off within a call: nothing that a client could send back
        family.renderer.remember(prompt, blocks, generated, reasoning)
        client.hear(reasoning, blocks)
        # One template takes text beside a call for reasoning.
        aside = (
            family.renderer.template.format.takes_one_call and client.waiting and isinstance(blocks[0], OutputText)
        )
        told.append(Told(prompt, generated, bool(reasoning.strip() or aside), bool(client.waiting), speaks))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@settings(max_examples=10)
@given(script=scripts, seed=st.integers(0, 2**32), thinks=st.booleans())
def test_what_is_forgotten_changes_only_the_answers_place(
    family: Family, script: list[Turn], seed: int, thinks: bool
) -> None:
    """After a restart, say. The conversation up to the answer is the same still."""
    chance = Random(seed)
    client, model = Client(chance, thinks=thinks), Model(family, chance)
    told: list[Told] = []
    for turn in script[:3]:
        speaks = user_speaks(family, turn, has_results=bool(client.waiting))
        client.say(turn)
        prompt = rendered(family, client.request(), Renderer(family.tokenizer, family.template_source))
        if told:
            expected = stable(family, told, user_speaks=speaks)[: len(told[-1].prompt.token_ids)]
            expected = _without_turn(family, expected)
            assert prompt.token_ids[: len(expected)] == expected
        generated, reasoning, blocks = model.answer(prompt, turn)
        if not blocks:
            return
        client.hear(reasoning, blocks)
        told.append(Told(prompt, generated, bool(reasoning.strip()), bool(client.waiting), speaks))


# A real agent's conversations


def turn_of(message: dict[str, Any]) -> Turn:
    """What an assistant's message says, for a model to say it again."""
    blocks: list[dict[str, Any]] = message["content"]
    calls = tuple((block["name"], block["input"]) for block in blocks if block["type"] == "tool_use")
    said = "".join(block["text"] for block in blocks if block["type"] == "text")
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    return Turn(None, None, "", False, thought, said, calls)


def asked(messages: list[dict[str, Any]]) -> tuple[Turn, bool]:
    """What the client says at the end, and whether it answers calls."""
    said = list(takewhile(lambda message: message["role"] != "assistant", reversed(messages)))
    blocks = [b for m in said if m["role"] == "user" for b in m["content"] if not isinstance(m["content"], str)]
    has_results = any(block["type"] == "tool_result" for block in blocks)
    says = any(block["type"] == "text" for block in blocks) or any(isinstance(m["content"], str) for m in said)
    instructs = any(message["role"] == "system" for message in said)
    return Turn("x" if says else None, "x" if instructs else None, "", False, "", "", ()), has_results


@pytest.mark.parametrize("family", [STARTER, UNTOLD, *CALLING], ids=str)
@pytest.mark.parametrize("name", recordings.NAMES)
def test_a_recorded_conversation_grows_at_its_end(name: str, family: Family) -> None:
    bodies = recordings.conversation(name)
    model = Model(family, Random(0))
    renderer = Renderer(family.tokenizer, family.template_source)
    told: list[Told] = []
    for body, following in zip_longest(bodies, bodies[1:]):
        client_says, has_results = asked(body["messages"])
        speaks = user_speaks(family, client_says, has_results=has_results)
        prompt = renderer.render(MessageRequest.model_validate(body))
        if told:
            expected = stable(family, told, user_speaks=speaks)
            assert prompt.token_ids[: len(expected)] == expected
        if following is None:
            return
        answer = MessageParam.model_validate(following["messages"][len(body["messages"])])
        turn = turn_of(following["messages"][len(body["messages"])])
        generated = model.tokens(prompt, turn)
        renderer.remember(prompt, answer.content, generated, turn.reasoning)
        told.append(Told(prompt, generated, bool(turn.reasoning), bool(turn.calls), speaks))
