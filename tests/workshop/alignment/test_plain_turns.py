"""Conversations with tools as plain turns: the tokens of the server, and formats that no row can hold."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lesson_rows import get_starter

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.workshop.alignment.plain_turns import PlainTurns, open_plain_turns
from commonweight.workshop.alignment.settings import AlignmentError

TOOLS = [
    {
        "name": "oven",
        "description": "Reads the oven's temperature.",
        "input_schema": {"type": "object", "properties": {"number": {"type": "string"}}},
    }
]
CALL = {"type": "tool_use", "id": "toolu_1", "name": "oven", "input": {"number": "2", "unit": "°C"}}
LOOP: dict[str, Any] = {
    "system": "You help in a bakery.",
    "tools": TOOLS,
    "messages": [
        {"role": "user", "content": "How hot is oven 2?"},
        {"role": "assistant", "content": [CALL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "220\n"}]},
    ],
}
HERMES = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>\n"
    "{% endif %}{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') }}"
    "{%- for call in m.tool_calls or [] %}"
    '{{ \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PICKY = (
    "{%- for m in messages %}{%- if '<tool_response>' in m.content %}{{ raise_exception('no tools here') }}"
    "{% endif %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def starter() -> Iterator[tuple[Tokenizer, ModelCard]]:
    with closing(Gguf(get_starter())) as gguf:
        yield Tokenizer(gguf), ModelCard.from_gguf(gguf)


def test_plain_turns_give_the_tokens_of_the_request(starter: tuple[Tokenizer, ModelCard]) -> None:
    tokenizer, card = starter
    flat = PlainTurns(tokenizer, card).flatten(LOOP)
    server = Renderer(tokenizer, card.chat_template, card.generation.system)
    asked = server.render(MessageRequest.model_validate({"model": "m", "max_tokens": 1} | LOOP)).token_ids
    assert flat.tokens == len(asked)
    # As a client would send them that knows nothing of tools.
    system, *turns = flat.messages
    plain = {"system": system.content, "messages": [{"role": t.role, "content": t.content} for t in turns]}
    assert server.render(MessageRequest.model_validate({"model": "m", "max_tokens": 1} | plain)).token_ids == asked
    assert [message.role for message in flat.messages] == ["system", "user", "assistant", "user"]
    assert system.content.startswith("You help in a bakery.\n\n# Tools")
    assert turns[1].content == (
        '<tool_call>\n{"name": "oven", "arguments": {"number": "2", "unit": "°C"}}\n</tool_call>'
    )
    assert turns[2].content == "<tool_response>\n220\n\n</tool_response>"


def test_a_template_with_tool_calls_of_its_own_is_refused(starter: tuple[Tokenizer, ModelCard]) -> None:
    tokenizer, card = starter
    with pytest.raises(
        AlignmentError, match=r"writes tool calls by itself \(the format hermes\), and rows hold plain"
    ):
        PlainTurns(tokenizer, replace(card, chat_template=HERMES))


def test_a_template_that_refuses_results_is_an_error(starter: tuple[Tokenizer, ModelCard]) -> None:
    tokenizer, card = starter
    turns = PlainTurns(tokenizer, replace(card, chat_template=PICKY))
    with pytest.raises(AlignmentError, match="refuses a conversation with tools"):
        turns.flatten(LOOP)


def test_a_default_system_text_becomes_part_of_the_row(starter: tuple[Tokenizer, ModelCard]) -> None:
    tokenizer, card = starter
    plain = {"messages": [{"role": "user", "content": "How hot is oven 2?"}]}
    flat = PlainTurns(tokenizer, card).flatten(plain)
    assert flat.messages[0].role == "system"
    assert flat.messages[0].content == card.generation.system


@pytest.mark.parametrize(
    ("template", "message"),
    [(None, "has no chat template, so no row"), ("{% for %}", "The chat template of .* cannot be used")],
)
def test_a_model_without_a_usable_template_is_refused(
    starter: tuple[Tokenizer, ModelCard], template: str | None, message: str
) -> None:
    tokenizer, card = starter
    with pytest.raises(AlignmentError, match=message):
        PlainTurns(tokenizer, replace(card, chat_template=template))


def test_special_tokens_in_texts_are_seen(starter: tuple[Tokenizer, ModelCard]) -> None:
    turns = PlainTurns(*starter)
    assert turns.has_special_token("a<|im_end|>b")
    assert not turns.has_special_token("<tool_call> < |im_end|>")


@pytest.mark.parametrize("content", [None, b"", b"GGUF" + bytes(40), b"not a model"])
def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content)
    with (
        pytest.raises(AlignmentError, match=r"The model file broken\.gguf cannot be read"),
        open_plain_turns(path),
    ):
        pass
