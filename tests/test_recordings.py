"""What was recorded of an agent may be published, and is what our server takes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from commonweight.messages.request import MessageRequest
from recordings import FOLDER, NAMES, Body, conversation

# Whose texts these are: the schema's standard, the block that tells the agent's version, a user that is nobody.
PUBLIC = re.compile(
    r'https://json-schema\.org/\S+|x-anthropic-billing-header: .*|\{"device_id": "0{64}".*"0{36}"\}'
)
PLACEHOLDER = re.compile(r"\{\{text \d+: (\d+)\}\}")


def raw(name: str) -> list[Body]:
    """The file as it is."""
    bodies: list[Body] = json.loads((FOLDER / f"{name}.json").read_text())
    return bodies


def strings(value: Any) -> Iterator[str]:
    """All of them, in order."""
    match value:
        case str():
            yield value
        case dict() | list():
            for part in value.values() if isinstance(value, dict) else value:
                yield from strings(part)


@pytest.mark.parametrize("name", NAMES)
def test_they_hold_no_texts_of_others_and_no_traces_of_a_machine(name: str) -> None:
    found = {text for text in strings(raw(name)) if not PUBLIC.fullmatch(text)}
    assert {text for text in found if len(PLACEHOLDER.sub("", text)) > 40} == set()
    assert {text for text in found if re.search(r"(^|\s)/\w|@|\d+\.\d+\.\d+", text)} == set()


@pytest.mark.parametrize("name", NAMES)
def test_texts_get_their_lengths_again(name: str) -> None:
    for short, long in zip(strings(raw(name)), strings(conversation(name)), strict=True):
        lengths = [int(length) for length in PLACEHOLDER.findall(short)]
        assert len(long) == len(PLACEHOLDER.sub("", short)) + sum(lengths)


@pytest.mark.parametrize("name", NAMES)
def test_every_request_is_valid_and_longer_than_the_last(name: str) -> None:
    lengths = [len(MessageRequest.model_validate(body).messages) for body in conversation(name)]
    assert lengths == sorted(set(lengths))
