"""What does not fit is refused in words that clients act on."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant
from replay import Replay

WINDOW = 100


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with closing(Gguf(resolve(None))) as gguf:
        yield gguf


def assistant(gguf: Gguf, max_output: int | None = None) -> Assistant:
    tokenizer = Tokenizer(gguf)
    engine = Replay(tokenizer, ["Fine."], window=WINDOW)
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    return Assistant(ModelCard.from_gguf(gguf), tokenizer, engine, signer, max_output=max_output)


def request(words: int, max_tokens: int = 10) -> MessageRequest:
    body: dict[str, Any] = {"model": "some-name", "max_tokens": max_tokens}
    return MessageRequest.model_validate(
        body | {"messages": [{"role": "user", "content": "word" + " word" * words}]}
    )


async def words_that_fill(gguf: Gguf, tokens: int) -> int:
    """So many words make a prompt of just so many tokens."""
    empty = (await assistant(gguf).count_tokens(request(0))).input_tokens
    return tokens - empty


async def refusal(gguf: Gguf, asked: MessageRequest, max_output: int | None = None) -> str:
    with pytest.raises(InvalidRequestError) as error:
        await assistant(gguf, max_output).prepare(asked)
    return error.value.message


async def test_a_prompt_beyond_the_window(gguf: Gguf) -> None:
    words = await words_that_fill(gguf, WINDOW + 1)
    assert await refusal(gguf, request(words)) == "prompt is too long: 101 tokens > 100 maximum"


async def test_a_prompt_that_leaves_no_room_at_all(gguf: Gguf) -> None:
    words = await words_that_fill(gguf, WINDOW)
    message = await refusal(gguf, request(words))
    assert re.match(r"input length and `max_tokens` exceed context limit: 100 \+ 10 > 100, ", message)
    assert (await assistant(gguf).prepare(request(words, max_tokens=0))).job.max_tokens == 0


async def test_an_answer_that_would_pass_the_end_of_the_window_is_cut_there(gguf: Gguf) -> None:
    words = await words_that_fill(gguf, WINDOW - 3)
    assert (await assistant(gguf).prepare(request(words, max_tokens=128_000))).job.max_tokens == 3


async def test_a_longer_answer_than_the_operator_allows(gguf: Gguf) -> None:
    assert await refusal(gguf, request(1, max_tokens=9), max_output=8) == (
        "max_tokens: 9 > 8, which is the maximum allowed number of output tokens for some-name"
    )
    assert (await assistant(gguf, max_output=8).prepare(request(1, max_tokens=8))).job.max_tokens == 8
