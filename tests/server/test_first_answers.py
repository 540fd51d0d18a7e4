"""What a newcomer asks first, with the SDK's defaults: right answers from the starter nearly every time."""

import re

import anthropic
import pytest

from conftest import Server

PARIS = "What is the capital of France?"
QUESTIONS = {
    "What is the capital of Italy?": "Rome",
    "What is 10 + 10?": "20|twenty",
    'How do you say "hello" in Spanish?': "hola",
    "What is the opposite of big?": "small|little",
    "What is photosynthesis?": "light",
    "What is gravity?": "force",
    "Who was the first person to walk on the moon?": "Armstrong",
    "Who wrote Romeo and Juliet?": "Shakespeare",
    "How many legs does a spider have?": "8|eight",
    "What language is spoken in Brazil?": "Portuguese",
}
"""With what a right answer must contain. Chosen among 48, of which the model knows about half this well."""


@pytest.fixture(scope="module")
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=server.key, max_retries=0)


def count_right(client: anthropic.Anthropic, question: str, expected: str, times: int) -> int:
    def answer() -> str:
        message = client.messages.create(
            model="starter", max_tokens=64, messages=[{"role": "user", "content": question}]
        )
        return "".join(block.text for block in message.content if block.type == "text")

    return sum(re.search(expected, answer(), re.IGNORECASE) is not None for _ in range(times))


@pytest.mark.slow
def test_the_capital_of_france(client: anthropic.Anthropic) -> None:
    assert count_right(client, PARIS, "Paris", 20) >= 19


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
def test_ordinary_questions(client: anthropic.Anthropic, question: str) -> None:
    assert count_right(client, question, QUESTIONS[question], 10) >= 8
