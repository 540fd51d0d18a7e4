"""What is certainly too long is refused before the work of counting it, which would take minutes."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant
from commonweight.turn.prepare import MAX_EDITED_WINDOWS
from replay import Replay

WINDOW = 500
LONGEST = 81
"""Bytes of the longest token of the starter."""


class WatchedTokenizer(Tokenizer):
    """Remembers the longest text that it was given."""

    longest = 0

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        self.longest = max(self.longest, len(text))
        return super().encode(text, continues=continues)


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        yield gguf


@pytest.fixture
def tokenizer(gguf: Gguf) -> WatchedTokenizer:
    return WatchedTokenizer(gguf)


@pytest.fixture
def assistant(gguf: Gguf, tokenizer: WatchedTokenizer) -> Assistant:
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    return Assistant(ModelCard.from_gguf(gguf), tokenizer, Replay(tokenizer, ["Fine."], WINDOW), signer)


def request(*messages: dict[str, Any], **fields: Any) -> MessageRequest:
    return MessageRequest.model_validate({"model": "m", "max_tokens": 5, "messages": list(messages), **fields})


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


LONG = "a" * (LONGEST * (WINDOW + 1))
TOO_LONG = {
    "text": request(user(LONG)),
    "a result": request(
        user("hi"),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
        user([{"type": "tool_result", "tool_use_id": "t", "content": LONG}]),
    ),
    "an answer": request(user("hi"), {"role": "assistant", "content": LONG}, user("hi")),
    "system": request(user("hi"), system=LONG),
    "a tool": request(user("hi"), tools=[{"name": "n", "description": LONG, "input_schema": {"type": "object"}}]),
    "many": request(*[user(LONG[: LONGEST * 10]) for _ in range(60)]),
}


def test_the_longest_token_is_known(tokenizer: WatchedTokenizer) -> None:
    assert tokenizer.max_token_bytes == LONGEST


@pytest.mark.parametrize("kind", TOO_LONG)
async def test_what_cannot_fit_is_refused_untokenized(
    assistant: Assistant, tokenizer: WatchedTokenizer, kind: str
) -> None:
    for work in (assistant.prepare, assistant.count_tokens):
        with pytest.raises(InvalidRequestError, match=rf"^prompt is too long: \d+ tokens > {WINDOW} maximum$"):
            await work(TOO_LONG[kind])
    assert tokenizer.longest < LONGEST * 10


async def test_what_might_fit_is_counted_to_the_token(assistant: Assistant) -> None:
    words = request(user("word " * 800))
    counted = (await assistant.count_tokens(words)).input_tokens
    assert counted > 800
    with pytest.raises(InvalidRequestError, match=f"^prompt is too long: {counted} tokens > {WINDOW} maximum$"):
        await assistant.prepare(words)


async def test_runs_of_white_space_take_no_longer_than_other_text(assistant: Assistant) -> None:
    counted = await assistant.count_tokens(request(user("hi" + " " * len(LONG))))
    assert counted.input_tokens < len(LONG) // 20


async def test_white_space_that_a_template_trims_counts_for_nothing(
    gguf: Gguf, tokenizer: WatchedTokenizer
) -> None:
    trims = "{% for message in messages %}{{ message['content'] | trim }}{% endfor %}"
    card = replace(ModelCard.from_gguf(gguf), chat_template=trims)
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    assistant = Assistant(card, tokenizer, Replay(tokenizer, ["Fine."], WINDOW), signer)
    turn = await assistant.prepare(request(user(f"hi{' ' * len(LONG)}")))
    assert len(turn.prompt.token_ids) < 50


async def test_a_budget_beyond_any_window_is_a_grammar(gguf: Gguf, tokenizer: WatchedTokenizer) -> None:
    thinks = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}"
        "{% endif %}"
        "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n<think>\n' }}"
    )
    card = replace(ModelCard.from_gguf(gguf), chat_template=thinks)
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    assistant = Assistant(card, tokenizer, Replay(tokenizer, ["Fine."], WINDOW), signer)
    asked = request(user("hi"), thinking={"type": "enabled", "budget_tokens": 2**62}, max_tokens=2**63 - 1)
    grammar = (await assistant.prepare(asked)).job.grammar
    assert grammar is not None
    assert LLMatcher(LLTokenizer("byte"), grammar).get_error() == ""


@pytest.mark.parametrize("windows", [2, MAX_EDITED_WINDOWS + 1])
async def test_what_edits_clear_does_not_count(assistant: Assistant, windows: int) -> None:
    result = "x" * (LONGEST * WINDOW * windows)
    messages: list[dict[str, Any]] = [user("Go.")]
    for i, content in enumerate([result, "short"]):
        call = {"type": "tool_use", "id": f"toolu_{i}", "name": "read", "input": {}}
        messages.append({"role": "assistant", "content": [call]})
        messages.append(user([{"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": content}]))
    kept = {"type": "tool_uses", "value": 1}
    edits = {"edits": [{"type": "clear_tool_uses_20250919", "trigger": kept, "keep": kept}]}
    preparing = assistant.prepare(request(*messages, context_management=edits))
    if windows <= MAX_EDITED_WINDOWS:
        turn = await preparing
        assert turn.edits is not None
        assert turn.edits.applied_edits[0].cleared_input_tokens > WINDOW
    else:
        with pytest.raises(InvalidRequestError, match="prompt is too long"):
            await preparing
