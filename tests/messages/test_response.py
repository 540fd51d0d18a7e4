"""Answers have the API's shape: its fields, and no ``null`` where the API has no key."""

import re
from datetime import UTC, datetime
from typing import Any

import anthropic.types as sdk
import pytest
from anthropic.types import beta
from pydantic import BaseModel

from commonweight.messages import citations, events, response
from commonweight.messages.models import ModelInfo
from commonweight.messages.response import Message, TokenCount, Usage, make_id

USAGE = Usage(input_tokens=3, output_tokens=1)


@pytest.mark.parametrize("prefix", ["msg", "req", "toolu"])
def test_ids_are_opaque_and_fresh(prefix: str) -> None:
    ids = {make_id(prefix) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(prefix + "_[0-9A-Za-z]{24}", made) for made in ids)


def test_a_message_that_just_began_has_the_keys_of_the_api() -> None:
    assert Message(id="msg_1", model="m", usage=USAGE).model_dump() == {
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
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "standard",
            "inference_geo": "not_available",
        },
    }


def test_messages_share_no_defaults() -> None:
    first = Message(id="msg_1", model="m", usage=Usage(input_tokens=3, output_tokens=1))
    first.usage.cache_creation.ephemeral_5m_input_tokens = 7
    first.usage.output_tokens_details.thinking_tokens = 7
    first.content.append(response.OutputToolUse(id="toolu_1", name="n"))
    first.content[0].input["a"] = 1  # type: ignore[union-attr]
    second = Message(id="msg_2", model="m", usage=Usage(input_tokens=3, output_tokens=1))
    assert second.usage.cache_creation.ephemeral_5m_input_tokens == 0
    assert second.usage.output_tokens_details.thinking_tokens == 0
    assert second.content == []
    assert response.OutputToolUse(id="toolu_2", name="n").input == {}


def test_a_count_mentions_edits_only_where_there_are_some() -> None:
    assert TokenCount(input_tokens=3).model_dump_json() == '{"input_tokens":3}'
    edited = TokenCount(input_tokens=3, context_management=response.OriginalTokens(original_input_tokens=9))
    assert edited.model_dump() == {"input_tokens": 3, "context_management": {"original_input_tokens": 9}}


CITED: dict[str, Any] = {"cited_text": "x", "document_index": 0}
EDITS = response.AppliedEdits(
    applied_edits=[
        response.ClearedThinking(cleared_input_tokens=1, cleared_thinking_turns=2),
        response.ClearedToolUses(cleared_input_tokens=3, cleared_tool_uses=4),
    ]
)
PAIRS: list[tuple[BaseModel, type[BaseModel]]] = [
    (citations.CharLocation(**CITED, start_char_index=0, end_char_index=1), sdk.CitationCharLocation),
    (citations.PageLocation(**CITED, start_page_number=1, end_page_number=2), sdk.CitationPageLocation),
    (
        citations.ContentBlockLocation(**CITED, start_block_index=0, end_block_index=1),
        sdk.CitationContentBlockLocation,
    ),
    (
        citations.SearchResultLocation(
            cited_text="x", search_result_index=0, source="s", start_block_index=0, end_block_index=1
        ),
        sdk.CitationsSearchResultLocation,
    ),
    (response.OutputText(), sdk.TextBlock),
    (response.OutputThinking(), sdk.ThinkingBlock),
    (response.OutputToolUse(id="toolu_1", name="n"), sdk.ToolUseBlock),
    (USAGE, sdk.Usage),
    (response.StopDetails(), sdk.RefusalStopDetails),
    (response.Diagnostics(), sdk.Diagnostics),
    (EDITS, beta.BetaContextManagementResponse),
    (EDITS.applied_edits[0], beta.BetaClearThinking20251015EditResponse),
    (EDITS.applied_edits[1], beta.BetaClearToolUses20250919EditResponse),
    (Message(id="msg_1", model="m", usage=USAGE), sdk.Message),
    (TokenCount(input_tokens=3), sdk.MessageTokensCount),
    (events.TextDelta(text="x"), sdk.TextDelta),
    (events.ThinkingDelta(thinking="x"), sdk.ThinkingDelta),
    (events.SignatureDelta(signature="x"), sdk.SignatureDelta),
    (events.InputJsonDelta(partial_json="x"), sdk.InputJSONDelta),
    (events.MessageStart(message=Message(id="msg_1", model="m", usage=USAGE)), sdk.RawMessageStartEvent),
    (events.ContentBlockStart(index=0, content_block=response.OutputThinking()), sdk.RawContentBlockStartEvent),
    (events.ContentBlockDelta(index=0, delta=events.TextDelta(text="")), sdk.RawContentBlockDeltaEvent),
    (events.ContentBlockStop(index=0), sdk.RawContentBlockStopEvent),
    (events.MessageDelta(delta=events.MessageEnd(stop_reason="end_turn"), usage=USAGE), sdk.RawMessageDeltaEvent),
    (events.MessageStop(), sdk.RawMessageStopEvent),
    (
        ModelInfo(id="m", display_name="M", created_at=datetime.now(UTC), max_input_tokens=1, max_tokens=1),
        beta.BetaModelInfo,
    ),
]
UNUSED = {
    *("caller", "toolset_name", "estimated_tokens", "citations", "file_id"),
    *("container", "diagnostics", "server_tool_use", "speed", "input_transformations"),
}
"""Fields that may be absent, and are, where nothing asked for them."""


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_sdk_finds_every_field_that_it_knows(ours: BaseModel, theirs: type[BaseModel]) -> None:
    def compared(said: dict[str, Any], known: BaseModel) -> None:
        assert type(known).model_fields.keys() - said.keys() <= UNUSED
        for name, value in known:
            if isinstance(value, BaseModel):
                compared(said[name], value)

    said = ours.model_dump(mode="json")
    compared(said, theirs.model_validate(said, strict=False))


START = {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "stop_details", "usage"}
COUNTS = {"input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"}
USAGE_KEYS = {*COUNTS, "cache_creation", "output_tokens_details", "service_tier", "inference_geo"}


def test_keys_are_those_of_recorded_answers() -> None:
    # As the API answered in 2026 (recorded in the tests of the official SDKs and of Vercel's).
    message = Message(id="msg_1", model="m", content=[response.OutputText(text="x")], usage=USAGE).model_dump()
    assert message.keys() == START
    assert message["content"] == [{"type": "text", "text": "x"}]
    assert message["usage"].keys() == USAGE_KEYS
    end = events.MessageDelta(delta=events.MessageEnd(stop_reason="end_turn"), usage=USAGE).model_dump()
    assert end.keys() == {"type", "delta", "usage"}
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None}
    assert end["usage"].keys() == {*COUNTS, "output_tokens_details"}
    located = citations.CharLocation(**CITED, start_char_index=0, end_char_index=1).model_dump()
    assert located.keys() == {"type", "start_char_index", "end_char_index", "document_title", *CITED}


def test_what_was_asked_for_has_its_key() -> None:
    message = Message(
        id="msg_1",
        model="m",
        content=[response.OutputText(text="x", citations=[])],
        diagnostics=response.Diagnostics(),
        context_management=response.AppliedEdits(),
        usage=USAGE,
    ).model_dump()
    assert message["content"][0]["citations"] == []
    assert message["diagnostics"] == {"cache_miss_reason": {"type": "unavailable"}}
    assert message["context_management"] == {"applied_edits": []}
