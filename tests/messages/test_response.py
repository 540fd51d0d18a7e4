"""Answers have the API's shape."""

import re

import pytest

from commonweight.messages.response import Message, Usage, new_id


@pytest.mark.parametrize("prefix", ["msg", "req", "toolu"])
def test_ids_are_opaque_and_fresh(prefix: str) -> None:
    ids = {new_id(prefix) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(prefix + "_[0-9A-Za-z]{24}", made) for made in ids)


def test_a_message_that_just_began_has_every_field() -> None:
    assert Message(id="msg_1", model="m", usage=Usage(input_tokens=3, output_tokens=1)).model_dump() == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 1,
            "service_tier": "standard",
        },
    }


def test_messages_share_no_defaults() -> None:
    first = Message(id="msg_1", model="m", usage=Usage(input_tokens=3, output_tokens=1))
    first.usage.cache_creation.ephemeral_5m_input_tokens = 7
    second = Message(id="msg_2", model="m", usage=Usage(input_tokens=3, output_tokens=1))
    assert second.usage.cache_creation.ephemeral_5m_input_tokens == 0
