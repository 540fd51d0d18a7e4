"""Sampling and system text of requests that set none, and that those which do get exactly what they set."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from commonweight.catalog.generation import GenerationDefaults
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.engines.contract import Sampling
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Tokenizer
from commonweight.signing import Purpose, Signer
from commonweight.turn import Assistant
from commonweight.turn.assistant import SamplingDefaults
from replay import Replay

RECOMMENDED = GenerationDefaults(
    temperature=0.7, top_p=0.8, top_k=20, min_p=0.1, source="file", system="Be brief."
)


@pytest.fixture(scope="module")
def gguf() -> Iterator[Gguf]:
    with closing(Gguf(resolve(None))) as gguf:
        yield gguf


def assistant(gguf: Gguf, sampling: SamplingDefaults = "model") -> Assistant:
    tokenizer = Tokenizer(gguf)
    card = replace(ModelCard.from_gguf(gguf), generation=RECOMMENDED)
    signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
    return Assistant(card, tokenizer, Replay(tokenizer, ["Fine."], window=200), signer, sampling=sampling)


def request(**fields: Any) -> MessageRequest:
    messages = [{"role": "user", "content": "Hello"}]
    return MessageRequest.model_validate({"model": "m", "max_tokens": 9, "messages": messages} | fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0.1)),
        ({"temperature": 1.0}, Sampling()),
        ({"temperature": 0}, Sampling(temperature=0)),
        ({"top_p": 0.5}, Sampling(top_p=0.5)),
        ({"top_k": 3, "temperature": 0.2}, Sampling(temperature=0.2, top_k=3)),
    ],
)
async def test_what_a_request_sets_holds_and_nothing_is_mixed_in(
    gguf: Gguf, fields: dict[str, Any], expected: Sampling
) -> None:
    assert (await assistant(gguf).prepare(request(**fields))).job.sampling == expected


async def test_the_defaults_of_the_api_can_be_had(gguf: Gguf) -> None:
    assert (await assistant(gguf, "api").prepare(request())).job.sampling == Sampling()


async def test_a_system_text_of_the_request_is_never_touched(gguf: Gguf) -> None:
    made = assistant(gguf)

    async def prompt(**fields: Any) -> str:
        ids = (await made.prepare(request(**fields))).prompt.token_ids
        return b"".join(made._tokenizer.decode(token) or b"|" for token in ids).decode()

    assert (await prompt()).startswith("|system\nBe brief.|\n|user\nHello|")
    assert (await prompt(system="You are Bo.")).startswith("|system\nYou are Bo.|\n|user\nHello|")
    assert await prompt(system="") == await prompt(system=[]) == await prompt()
