"""Conversations with a guarded server, by the SDK: what a refused turn leaves behind, and what is scored again."""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import anthropic
import pytest

from commonweight.charter import parse
from commonweight.charter.principle import Place
from commonweight.guard import DEFAULT, Bundle, Guard
from commonweight.guard.encoders.encoder import load_encoder
from commonweight.guard.heads.recompile import recompile
from replay import Served, replaying
from sample_charter import BREAD, UMBRELLA, source

Messages = list[anthropic.types.MessageParam]
LEFT = "Rye bread takes a sourdough, water, salt and time, and a hot oven. " * 4
STORY = LEFT + "The umbrella was black. She opened the umbrella and repaired her umbrella. " * 4
LOOK_UP: anthropic.types.ToolParam = {
    "name": "look_up",
    "description": "Looks up a word.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


@cache
def make_guard() -> Guard:
    everywhere = "{" + ", ".join(f"{place}: refuse" for place in get_args(Place)) + "}"
    text = source().decode().replace("charter/1", "charter/2")
    own = parse(text.replace("{input: refuse, output: refuse}", everywhere).encode())
    return Guard(
        own, recompile(own, Bundle.load(DEFAULT, None), load_encoder(), {}), load_encoder(), reads_states=False
    )


def write(prompt: str) -> str:
    """The script: a story that turns to umbrellas where one is asked for, a call where there is a tool."""
    asked = prompt.rsplit("<|im_start|>user", 1)[-1]
    if "story" in asked:
        return STORY
    if "Look up" in asked:
        return '<tool_call>\n{"name": "look_up", "arguments": {"word": "rye"}}\n</tool_call>'
    return "Flour, water and salt."


@pytest.fixture
def served() -> Iterator[Served]:
    with replaying(write, guard=make_guard()) as served:
        yield served


def ask(served: Served, messages: Messages, **fields: Any) -> anthropic.types.Message:
    with anthropic.Anthropic(base_url=served.url, api_key=served.key, max_retries=0) as client:
        message: anthropic.types.Message = client.messages.create(
            model="any", max_tokens=400, messages=messages, **fields
        )
        return message


def test_an_empty_assistant_message_is_the_400_that_the_api_documents(served: Served) -> None:
    messages: Messages = [{"role": "user", "content": UMBRELLA}]
    refused = ask(served, messages)
    assert (refused.stop_reason, refused.content) == ("refusal", [])
    kept: Messages = [*messages, {"role": "assistant", "content": refused.content}]
    with pytest.raises(anthropic.BadRequestError, match="non-empty content"):
        ask(served, [*kept, {"role": "user", "content": BREAD}])


@pytest.mark.parametrize("kept", [None, "[refused]", "No comment."])
def test_the_next_turn_passes_and_the_model_sees_nothing_of_the_refused_one(
    served: Served, kept: str | None
) -> None:
    messages: Messages = [{"role": "user", "content": UMBRELLA}]
    assert ask(served, messages).stop_reason == "refusal"
    if kept is not None:
        messages.append({"role": "assistant", "content": kept})
    for text in (BREAD, "Go on."):
        passed = ask(served, [*messages, {"role": "user", "content": text}])
        assert passed.stop_reason == "end_turn"
        assert "umbrella" not in served.engine.prompts[-1]
        assert text in served.engine.prompts[-1]
    # What the placeholder says by itself does not depend on this server's memory, and the count is of what runs.
    with anthropic.Anthropic(base_url=served.url, api_key=served.key) as client:
        counted = client.messages.count_tokens(
            model="any", messages=[*messages, {"role": "user", "content": "Go on."}]
        )
    assert counted.input_tokens == len(served.engine.jobs[-1].token_ids)


def test_going_on_from_partial_text_gets_nothing_of_it(served: Served) -> None:
    messages: Messages = [{"role": "user", "content": "Tell me a story."}]
    refused = ask(served, messages)
    assert refused.stop_reason == "refusal"
    [block] = refused.content
    assert block.type == "text"
    assert STORY.startswith(block.text)
    kept: Messages = [*messages, {"role": "assistant", "content": refused.content}]
    passed = ask(served, [*kept, {"role": "user", "content": "Go on."}])
    assert passed.stop_reason == "end_turn"
    assert "story" not in served.engine.prompts[-1]
    assert "sourdough" not in served.engine.prompts[-1]
    assert "umbrella" not in served.engine.prompts[-1]


def test_thinking_that_was_never_signed_closes_its_exchange_without_any_memory(served: Served) -> None:
    partial = {"type": "thinking", "thinking": "They ask about an umbr", "signature": ""}
    messages: Any = [
        {"role": "user", "content": f"{UMBRELLA} (never asked here)"},
        {"role": "assistant", "content": [partial]},
        {"role": "user", "content": BREAD},
    ]
    assert ask(served, messages).stop_reason == "end_turn"
    assert "umbr" not in served.engine.prompts[-1]


def test_a_refused_turn_that_is_asked_again_is_refused_again(served: Served) -> None:
    messages: Messages = [{"role": "user", "content": UMBRELLA}]
    for _ in range(2):
        assert ask(served, messages).stop_reason == "refusal"


def test_an_agents_session_scores_each_text_once(served: Served) -> None:
    system = [{"type": "text", "text": f"Rule {i}: answer briefly."} for i in range(5)]
    tools = [{**LOOK_UP, "name": f"look_up_{i}" if i else "look_up"} for i in range(5)]
    messages: Messages = [{"role": "user", "content": "Look up rye."}]
    turns = 8
    for turn in range(turns):
        answer = ask(served, messages, system=system, tools=tools)
        [call] = answer.content
        assert call.type == "tool_use"
        result: anthropic.types.ToolResultBlockParam = {
            "type": "tool_result",
            "tool_use_id": call.id,
            "content": f"Result {turn}: a grain.",
        }
        messages += [
            {"role": "assistant", "content": [call.model_dump()]},  # type: ignore[list-item,misc]
            {"role": "user", "content": [result, {"type": "text", "text": f"Look up more ({turn})."}]},
        ]
    hits, misses = (
        sum(getattr(record.findings, name) for record in served.records) for name in ("hits", "misses")
    )
    # Each turn brings a call, its result and a question, which is history one turn later: another place.
    texts = 5 + 5 + 1
    assert misses <= texts + 4 * turns
    assert hits / (hits + misses) > 0.7
