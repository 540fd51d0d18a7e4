"""What llama-server's streams say, and what they leave out. The lines are as version 11434 wrote them."""

import json
from typing import Any

import pytest
from outcomes import starter_tokenizer

from commonweight.engines.contract import Job, Sampling
from commonweight.engines.remote.backend import Chunk, UpstreamError
from commonweight.engines.remote.llama_server import LlamaServerCompletion

GRIN = [10813, 242, 218]
"""One character."""


@pytest.fixture(scope="module")
def completion() -> LlamaServerCompletion:
    tokenizer = starter_tokenizer()
    return LlamaServerCompletion([tokenizer.decode(token) for token in range(tokenizer.size)])


def line(content: str, tokens: list[int], predicted: int, **more: Any) -> bytes:
    head = {"index": 0, "content": content, "tokens": tokens, "stop": False, "id_slot": -1}
    return json.dumps(head | {"tokens_predicted": predicted, "tokens_evaluated": 10} | more).encode()


def test_a_stream(completion: LlamaServerCompletion) -> None:
    read = completion.make_reader()
    progress = {"total": 10, "cache": 9, "processed": 10, "time_ms": 8}
    # The token of a line that tells how far the prompt is read is none.
    assert read(line("", [0], 0, prompt_progress=progress)) == Chunk(cached_tokens=9)
    assert read(line("Hello", [19556], 1)) == Chunk([19556])
    probable = [{"id": 30, "token": ".", "logprob": -1.5, "top_logprobs": []}]
    assert read(line(".", [30], 2, completion_probabilities=probable)) == Chunk([30], [-1.5])
    assert read(line("", [2], 3)) == Chunk([2])
    assert read(b'{"tokens":[],"stop":true,"stop_type":"eos"}') == Chunk(finish_reason="stop")


def test_all_at_once(completion: LlamaServerCompletion) -> None:
    read = completion.make_reader()
    assert read(b'{"tokens":[10813],"stop":true,"stop_type":"limit"}') == Chunk([10813], finish_reason="length")


def test_tokens_within_a_character_are_found_again(completion: LlamaServerCompletion) -> None:
    read = completion.make_reader()
    assert read(line("\N{GRINNING FACE}", [GRIN[-1]], 3)) == Chunk(GRIN)
    # Also behind other text, and after an answer's beginning.
    found = read(line(" so \N{GRINNING FACE}", [GRIN[-1]], 7)).token_ids
    assert len(found) == 4
    assert b"".join(map(starter_tokenizer().decode, found)).decode() == " so \N{GRINNING FACE}"


def test_their_probability_is_not_known(completion: LlamaServerCompletion) -> None:
    probable = [{"id": GRIN[-1], "logprob": -0.5}]
    found = completion.make_reader()(line("\N{GRINNING FACE}", [GRIN[-1]], 3, completion_probabilities=probable))
    assert found == Chunk(GRIN, [0.0, 0.0, -0.5])


@pytest.mark.parametrize(
    "said",
    [
        line("x" * 5000, [19556], 5),
        line("Hello", [19556], 5000),
        line("Hello", [19556], 2),
        json.dumps({"error": {"code": 500, "message": "boom"}}).encode(),
    ],
)
def test_what_makes_no_sense(completion: LlamaServerCompletion, said: bytes) -> None:
    with pytest.raises(UpstreamError):
        completion.make_reader()(said)


def test_what_is_asked(completion: LlamaServerCompletion) -> None:
    sampling = Sampling(0.5, 7, 0.9, 0.1, 42)
    job = Job(token_ids=[1, 2], max_tokens=5, sampling=sampling, want_logprobs=True)
    asked = completion.make_body(job, "salt")
    assert asked["prompt"] == [1, 2]
    assert {"n_predict": 5, "stream": True, "n_probs": 1}.items() <= asked.items()
    assert asked["samplers"] == ["temperature", "top_k", "top_p", "min_p"]
    assert {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1, "seed": 42}.items() <= asked.items()


def test_there_is_a_cache_for_one_tenant_alone(completion: LlamaServerCompletion) -> None:
    job = Job(token_ids=[1], max_tokens=1)
    assert completion.make_body(job, "salt", is_alone=True)["cache_prompt"] is True
    assert completion.make_body(job, "salt")["cache_prompt"] is False
