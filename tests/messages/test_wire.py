"""Unknown fields are ignored, and each is logged once in the life of a process."""

import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from commonweight.messages import wire
from commonweight.messages.request import MessageRequest

BODY: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setattr(wire, "_logged_fields", set())
    with caplog.at_level(logging.DEBUG, wire.log.name):
        yield


def test_unknown_fields_change_nothing() -> None:
    nested = {"type": "text", "text": "hello", "future": {"deep": [1]}}
    future = {**BODY, "safeguards": [{"type": "x"}], "messages": [{"role": "user", "content": [nested], "n": 1}]}
    assert MessageRequest.model_validate(future) == MessageRequest.model_validate(BODY)


def test_an_unknown_field_is_logged_once_with_its_object(caplog: pytest.LogCaptureFixture) -> None:
    name = f"field_{uuid.uuid4().hex}"
    for value in (1, "two", None):
        MessageRequest.model_validate({**BODY, name: value})
    assert [record.getMessage() for record in caplog.records] == [
        f"ignoring unknown field {name!r} of MessageRequest"
    ]


def test_the_same_field_of_another_object_is_another_field(caplog: pytest.LogCaptureFixture) -> None:
    message = {"role": "user", "content": "hello", "fresh": 1}
    MessageRequest.model_validate({**BODY, "fresh": 1, "messages": [message, message]})
    assert sorted(record.getMessage() for record in caplog.records) == [
        "ignoring unknown field 'fresh' of MessageParam",
        "ignoring unknown field 'fresh' of MessageRequest",
    ]


def test_known_fields_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    png = {"type": "base64", "media_type": "image/png", "data": ""}
    inside = [{"type": "image", "source": png}, {"type": "text", "text": "hello", "citations": None}]
    document = {"type": "document", "title": "t", "source": {"type": "content", "content": inside}}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [document]}
    messages = [*BODY["messages"], call, {"role": "user", "content": [document, result]}]
    json_only = {"format": {"type": "json_schema", "schema": {}}}
    MessageRequest.model_validate({**BODY, "messages": messages, "output_config": json_only})
    assert caplog.records == []


def test_what_is_logged_fits_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    MessageRequest.model_validate({**BODY, "a\nforged line" + "x" * 10_000: 1})
    (line,) = [record.getMessage() for record in caplog.records]
    assert "\n" not in line
    assert len(line) < 200


def test_a_flood_of_names_does_not_fill_memory(caplog: pytest.LogCaptureFixture) -> None:
    MessageRequest.model_validate({**BODY, **{f"flood{i}": 1 for i in range(3 * wire._MAX_LOGGED_FIELDS)}})
    assert len(caplog.records) == len(wire._logged_fields) == wire._MAX_LOGGED_FIELDS
