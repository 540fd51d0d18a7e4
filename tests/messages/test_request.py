"""What makes a request valid, and the sentence that says why one is not."""

import json
from typing import Any

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commonweight.messages.errors import InvalidRequestError, make_invalid_request_error
from commonweight.messages.request import CountTokensRequest, MessageRequest

USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "hi"}
BODY: dict[str, Any] = {"model": "m", "max_tokens": 16, "messages": [USER]}
FORMAT = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
CITED = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "body"},
    "citations": {"enabled": True},
}

CLEAR = {"type": "clear_tool_uses_20250919"}
EDITOR = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}


def accepted(**fields: object) -> MessageRequest:
    return MessageRequest.model_validate(BODY | fields)


def refusal(body: object, model: type[CountTokensRequest] = MessageRequest) -> str:
    with pytest.raises(ValidationError) as error:
        model.model_validate(body)
    refused = make_invalid_request_error(error.value)
    assert isinstance(refused, InvalidRequestError)
    return refused.message


def test_what_a_coding_agent_sends_is_valid() -> None:
    request = MessageRequest.model_validate(
        {
            "model": "claude-opus-5-5",
            "max_tokens": 128_000,
            "stream": True,
            "system": [{"type": "text", "text": "You help.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            "messages": [
                USER,
                {"role": "system", "content": "# Environment", "output_config": {"effort": "high"}},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "s"}]},
                {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": None}]},
                {"role": "system", "content": [], "output_config": {"effort": "low"}},
            ],
            "tools": [
                {"name": "Bash", "description": "d", "input_schema": {"type": "object"}},
                {"name": "DeferredToolPlaceholder", "input_schema": {"type": "object"}, "defer_loading": True},
            ],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
            "thinking": {"type": "adaptive", "display": "omitted"},
            "output_config": {"effort": "medium"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "metadata": {"user_id": '{"device_id": "d"}'},
            "safeguards": [{"type": "dangerous_tool_use"}],
            "service_tier": "auto",
            "speed": "fast",
            "inference_geo": "eu",
            "fallbacks": "default",
            "diagnostics": {"previous_message_id": None},
            "temperature": 1,
            "top_p": 0.5,
            "top_k": 40,
            "stop_sequences": ["\n\nHuman:"],
        }
    )
    assert [message.role for message in request.messages] == ["user", "system", "assistant", "user", "system"]
    assert request.messages[1].output_config is not None
    assert request.messages[1].output_config.effort == "high"
    assert request.max_tokens == 128_000


@pytest.mark.parametrize(
    "fields",
    [
        {name: None}
        for name in (
            *("system", "tools", "tool_choice", "thinking", "output_config", "output_format", "cache_control"),
            *("stop_sequences", "temperature", "top_p", "top_k", "metadata", "stream", "context_management"),
            *("mcp_servers", "container", "thread", "compaction", "diagnostics"),
        )
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_null_is_as_good_as_absent(fields: dict[str, None]) -> None:
    assert accepted(**fields) == accepted()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"temperature": 0},
        {"temperature": 1.0},
        {"top_p": 0},
        {"top_p": 1},
        {"top_k": 0},
        {"stop_sequences": []},
        {"stop_sequences": ["x" * 10_000] * 1000},
        {"system": []},
        {"system": ""},
        {"system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "citations": None}]},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1025},
        {"thinking": {"type": "between_tools"}},
        {"thinking": {"type": "adaptive", "display": "updates", "block_binding": {}}},
        {"output_config": {"task_budget": {"type": "tokens", "total": 1}}},
        {"mcp_servers": []},
        {"model": "x" * 512},
        {"messages": [ASSISTANT]},
        {"messages": [USER, USER, ASSISTANT, ASSISTANT]},
        {"messages": [USER, {"role": "assistant", "content": ""}]},
        {"messages": [USER, {"role": "assistant", "content": []}]},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_the_edges_of_what_is_valid(fields: dict[str, Any]) -> None:
    assert accepted(**fields).messages


@pytest.mark.parametrize(
    ("floats", "integers"),
    [
        ({"max_tokens": 16.0}, {"max_tokens": 16}),
        ({"max_tokens": 1e3}, {"max_tokens": 1000}),
        ({"max_tokens": -0.0}, {"max_tokens": 0}),
        ({"max_tokens": 2.0**62}, {"max_tokens": 2**62}),
        ({"top_k": 5.0}, {"top_k": 5}),
        (
            {"max_tokens": 2048, "thinking": {"type": "enabled", "budget_tokens": 1024.0}},
            {"max_tokens": 2048, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
        (
            {"context_management": {"edits": [{**CLEAR, "keep": {"type": "tool_uses", "value": 2.0}}]}},
            {"context_management": {"edits": [{**CLEAR, "keep": {"type": "tool_uses", "value": 2}}]}},
        ),
        ({"tools": [{**EDITOR, "max_characters": 1e3}]}, {"tools": [{**EDITOR, "max_characters": 1000}]}),
    ],
)
def test_whole_numbers_are_integers_however_they_are_written(
    floats: dict[str, Any], integers: dict[str, Any]
) -> None:
    read = MessageRequest.model_validate({**BODY, **floats})
    assert read.model_dump_json() == MessageRequest.model_validate({**BODY, **integers}).model_dump_json()


@pytest.mark.parametrize("field", ["model", "messages", "max_tokens"])
def test_required_fields(field: str) -> None:
    assert refusal({name: value for name, value in BODY.items() if name != field}) == f"{field}: Field required"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": "16"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 16.5}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 2**63}, f"max_tokens: Input should be less than or equal to {2**63 - 1}"),
        ({"max_tokens": 1e300}, f"max_tokens: Input should be less than or equal to {2**63 - 1}"),
        ({"top_k": 2**63}, f"top_k: Input should be less than or equal to {2**63 - 1}"),
        ({"top_k": 1.5}, "top_k: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"model": 7}, "model: Input should be a valid string"),
        ({"model": ""}, "model: String should have at least 1 character"),
        ({"model": "x" * 513}, "model: String should have at most 512 characters"),
        ({"stream": "true"}, "stream: Input should be a valid boolean"),
        ({"stream": 1}, "stream: Input should be a valid boolean"),
        ({"temperature": "0.5"}, "temperature: Input should be a valid number"),
        ({"temperature": True}, "temperature: Input should be a valid number"),
        ({"temperature": -0.1}, "temperature: Input should be greater than or equal to 0"),
        ({"temperature": 1.1}, "temperature: Input should be less than or equal to 1"),
        ({"temperature": float("inf")}, "temperature: Input should be less than or equal to 1"),
        ({"temperature": float("nan")}, "temperature: Input should be less than or equal to 1"),
        ({"top_p": 1.5}, "top_p: Input should be less than or equal to 1"),
        ({"top_p": -1}, "top_p: Input should be greater than or equal to 0"),
        ({"top_k": -1}, "top_k: Input should be greater than or equal to 0"),
        ({"top_k": 1.5}, "top_k: Input should be a valid integer"),
        ({"stop_sequences": "x"}, "stop_sequences: Input should be a valid list"),
        ({"stop_sequences": ["x", 7]}, "stop_sequences.1: Input should be a valid string"),
        ({"stop_sequences": ["x", ""]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"stop_sequences": [" \n\t"]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"stop_sequences": ["x" * 10_001]}, "stop_sequences.0: String should have at most 10000 characters"),
        ({"system": 7}, "system: Input should be a valid list"),
        ({"system": {"type": "text", "text": "x"}}, "system: Input should be a valid list"),
        ({"system": ["x"]}, "system.0: Input should be an object"),
        ({"system": [{"type": "text"}]}, "system.0.text: Field required"),
        ({"system": [{"type": "image", "text": "x"}]}, "system.0.type: Input should be 'text'"),
        (
            {"thinking": {"type": "on"}},
            "thinking: Input tag 'on' found using 'type' does not match any of the expected tags: "
            "'adaptive', 'disabled', 'between_tools', 'enabled'",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens: Field required"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1023}},
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1024},
            "`max_tokens` must be greater than `thinking.budget_tokens`.",
        ),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema: Field required",
        ),
        ({"output_config": {"format": {"schema": {}}}}, "output_config.format.type: Field required"),
        ({"output_format": {"type": "text"}}, "output_format.type: Input should be 'json_schema'"),
        (
            {"output_config": FORMAT, "messages": [USER, ASSISTANT]},
            "output_config.format: cannot be combined with a prefilled assistant message",
        ),
        (
            {"output_format": FORMAT["format"], "messages": [{"role": "user", "content": [CITED]}]},
            "output_config.format: cannot be combined with citations",
        ),
        ({"container": "container_1"}, "container: not supported by this server"),
        ({"container": {}}, "container: not supported by this server"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers: not supported by this server"),
        ({"compaction": {"type": "summarize"}}, "compaction: not supported by this server"),
        ({"thread": {"type": "create"}}, "thread: not supported by this server"),
        (
            {"output_config": {"effort": "huge"}},
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
        ),
        ({"metadata": {"user_id": 7}}, "metadata.user_id: Input should be a valid string"),
        ({"cache_control": {"type": "forever"}}, "cache_control.type: Input should be 'ephemeral'"),
        ({"messages": "hello"}, "messages: Input should be a valid list"),
        ({"messages": USER}, "messages: Input should be a valid list"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": ["hello"]}, "messages.0: Input should be an object"),
        ({"messages": [USER, None]}, "messages.1: Input should be an object"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.role: Input should be 'user', 'assistant' or 'system'",
        ),
        (
            {"messages": [{"role": "User", "content": "x"}]},
            "messages.0.role: Input should be 'user', 'assistant' or 'system'",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: Input should be a valid list"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text.text: Field required",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_is_said_with_its_place(fields: dict[str, Any], message: str) -> None:
    assert refusal(BODY | fields) == message


@pytest.mark.parametrize("body", [None, 7, "hello", [], [BODY], True], ids=str)
def test_a_body_is_an_object(body: object) -> None:
    assert refusal(body) == "Input should be an object"


def test_there_is_a_bound_on_messages_and_stop_sequences() -> None:
    assert refusal(BODY | {"messages": [USER] * 100_001}).startswith(
        "messages: List should have at most 100000 items"
    )
    assert refusal(BODY | {"stop_sequences": ["x"] * 1001}).startswith(
        "stop_sequences: List should have at most 1000"
    )


def test_a_refused_thread_says_that_the_conversation_can_be_sent_without_it() -> None:
    with pytest.raises(ValidationError) as error:
        accepted(thread={"type": "continue", "previous_message_id": "msg_1"})
    assert make_invalid_request_error(error.value).details == {"error_code": "thread_unsupported_request"}


def test_the_schema_of_the_answer_has_two_names() -> None:
    other = {"type": "json_schema", "schema": {"type": "array"}}
    assert accepted().output_schema is None
    assert accepted(output_config={}).output_schema is None
    assert accepted(output_config=FORMAT).output_schema == {"type": "object"}
    assert accepted(output_format=other).output_schema == {"type": "array"}
    assert accepted(output_config=FORMAT, output_format=other).output_schema == {"type": "object"}
    # An empty last message is no prefill.
    assert accepted(output_config=FORMAT, messages=[USER, {"role": "assistant", "content": ""}]).output_schema


def test_citations_are_wanted_if_any_block_wants_them() -> None:
    found = {"type": "search_result", "source": "s", "title": "t", "content": [], "citations": {"enabled": True}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [found]}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]}
    without = {name: value for name, value in CITED.items() if name != "citations"}
    for wanted, messages in (
        (False, [USER]),
        (False, [{"role": "user", "content": [without]}]),
        (False, [{"role": "user", "content": [{**CITED, "citations": {}}]}]),
        (True, [{"role": "user", "content": [without, CITED]}]),
        (True, [USER, call, {"role": "user", "content": [result]}]),
    ):
        assert accepted(messages=messages).wants_citations is wanted


def test_cache_marks_are_listed_in_the_order_of_the_prompt() -> None:
    short, long = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    inner = {"type": "text", "text": "a", "cache_control": short}
    request = accepted(
        cache_control=short,
        tools=[{"name": name, "input_schema": {"type": "object"}, "cache_control": long} for name in "ab"],
        system=[{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": long}],
        messages=[
            USER,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [inner], "cache_control": short},
                    {"type": "text", "text": "b", "cache_control": None},
                ],
            },
        ],
    )
    assert [(where, mark.ttl) for where, mark in request.cache_marks()] == [
        ("tools.0", "1h"),
        ("tools.1", "1h"),
        ("system.1", "1h"),
        ("messages.2.content.0.tool_result.content.0", "5m"),
        ("messages.2.content.0", "5m"),
    ]


def test_counting_needs_no_limit() -> None:
    body = {"model": "m", "messages": [USER]}
    assert CountTokensRequest.model_validate(body).messages
    assert (
        refusal({"model": "m", "messages": []}, CountTokensRequest) == "messages: at least one message is required"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "source", "messages", "model", "max_tokens", "x"]),
            inner | st.sampled_from(["text", "user", "image", "tool_result", "document", "content", "custom"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


NESTS = [
    ("[", "]"),
    ('{"content": ', "}"),
    ('{"x": [', "]}"),
    ('[{"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "t", "content": ', "}]"),
    ('[{"type": "document", "source": {"type": "content", "content": ', "}}]"),
]
HOLES: list[dict[str, Any]] = [
    *({field: None} for field in [*MessageRequest.model_fields, "unknown"]),
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": None}]}]},
    {
        "messages": [
            {"role": "assistant", "content": [{"type": "mcp_tool_result", "tool_use_id": "t", "content": None}]}
        ]
    },
    {"tools": [{"name": "a", "input_schema": {"type": "object", "properties": None}}]},
    {"output_config": {"format": {"type": "json_schema", "schema": {"x": None}}}},
]


@given(
    hole=st.sampled_from([json.dumps(BODY | hole) for hole in HOLES]),
    nest=st.sampled_from(NESTS),
    depth=st.integers(1, 300) | st.integers(300, 100_000),
)
def test_no_nesting_is_too_deep_to_be_answered(hole: str, nest: tuple[str, str], depth: int) -> None:
    body = hole.replace("null", nest[0] * depth + '"x"' + nest[1] * depth, 1)
    try:
        request = MessageRequest.model_validate(pydantic_core.from_json(body))
    except ValueError:  # no JSON that parsers take, or no request
        return
    assert request.model_dump_json()


@given(body=st.dictionaries(st.sampled_from([*MessageRequest.model_fields]), JSON) | JSON)
def test_any_json_is_a_request_or_is_refused_in_one_line(body: object) -> None:
    try:
        request = MessageRequest.model_validate(body)
    except ValidationError as error:
        message = make_invalid_request_error(error).message
        assert message.strip() == message != ""
        assert "http" not in message  # no link into pydantic's manual
    else:
        assert request.messages
