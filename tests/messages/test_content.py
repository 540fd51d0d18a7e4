"""Every shape that a conversation's history may hold is understood, wherever it may stand."""

import typing
from typing import Any

import pytest
import typing_extensions
from anthropic.types.beta import BetaContentBlockParam
from pydantic import ValidationError

from commonweight.messages.content import DocumentBlock, TextBlock, ToolResultBlock, walk
from commonweight.messages.conversation import MessageParam
from commonweight.messages.errors import make_invalid_request_error

TEXT = {"type": "text", "text": "hello"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
IMAGES: list[dict[str, Any]] = [
    {"type": "image", "source": PNG},
    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
    {
        "type": "image",
        "source": {"type": "file", "file_id": "file_1"},
        "transformations": {"oversized_image": "x"},
    },
]
DOCUMENTS: list[dict[str, Any]] = [
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
    {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "body"},
        "title": "a title",
        "context": "where it is from",
        "citations": {"enabled": True},
    },
    {"type": "document", "source": {"type": "content", "content": "body"}},
    {"type": "document", "source": {"type": "content", "content": [TEXT, *IMAGES]}, "title": None},
    {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
    {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
]
SEARCH_RESULT: dict[str, Any] = {
    "type": "search_result",
    "source": "https://example.org",
    "title": "t",
    "content": [TEXT],
    "citations": {"enabled": False},
}
TOOL_REFERENCE = {"type": "tool_reference", "tool_name": "Bash"}
IN_TOOL_RESULT: list[dict[str, Any]] = [
    TEXT,
    *IMAGES,
    *DOCUMENTS,
    SEARCH_RESULT,
    TOOL_REFERENCE,
    {"type": "browser_state", "url": "u"},
]
SERVER_TOOL_RESULTS = [
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "mcp_tool_result",
    "advisor_tool_result",
]
BLOCKS: list[dict[str, Any]] = [
    {**TEXT, "citations": [{"type": "char_location", "cited_text": "x"}]},
    {**TEXT, "cache_control": {"type": "ephemeral"}},
    {**TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    *IMAGES,
    *DOCUMENTS,
    SEARCH_RESULT,
    {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}, "caller": {"type": "direct"}},
    {"type": "tool_use", "id": "toolu_1", "name": "click", "input": {"x": 1}, "toolset_name": "browser"},
    {"type": "tool_result", "tool_use_id": "toolu_1"},
    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "", "is_error": True},
    {"type": "tool_result", "tool_use_id": "toolu_1", "content": []},
    {"type": "tool_result", "tool_use_id": "toolu_1", "content": IN_TOOL_RESULT, "is_error": False},
    {"type": "thinking", "thinking": "", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "opaque"},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "echo", "server_name": "s", "input": {}},
    *({"type": kind, "tool_use_id": "srvtoolu_1", "content": [TEXT]} for kind in SERVER_TOOL_RESULTS),
    {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": True, "content": "text"},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"},
    },
    {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": [{"name": "echo"}]},
    {"type": "compaction", "content": "what happened", "encrypted_content": None},
    {"type": "compaction", "content": None, "encrypted_content": "opaque"},
    {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
    {"type": "container_upload", "file_id": "file_1"},
    TOOL_REFERENCE,
    {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "Bash"}},
    {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "Bash"}},
]


def parsed(content: object) -> MessageParam:
    return MessageParam.model_validate({"role": "user", "content": content})


def refusal(content: object) -> str:
    with pytest.raises(ValidationError) as error:
        parsed(content)
    return make_invalid_request_error(error.value).message


def said_again(sent: object, understood: object) -> None:
    """``understood`` repeats what was sent, but for fields nobody acts on, and has strings as text blocks."""
    if isinstance(sent, dict):
        assert isinstance(understood, dict)
        for name in sent.keys() & understood.keys():
            said_again(sent[name], understood[name])
        unused = {"caller", "toolset_name", "transformations", "from", "to", "url"}
        assert sent.keys() - understood.keys() <= unused
    elif isinstance(sent, list):
        assert isinstance(understood, list)
        for a, b in zip(sent, understood, strict=True):
            said_again(a, b)
    elif isinstance(understood, list):
        assert [(block["type"], block["text"]) for block in understood] == [("text", sent)]
    else:
        assert understood == sent


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(block["type"]))
def test_every_block_is_understood(block: dict[str, Any]) -> None:
    said_again([block], parsed([block]).model_dump()["content"])


def test_the_sdk_has_no_blocks_that_are_not_tried_here() -> None:
    kinds = {
        kind
        for block in typing.get_args(BetaContentBlockParam)
        if typing_extensions.is_typeddict(block)
        for kind in typing.get_args(typing.get_type_hints(block)["type"])
    }
    assert {"text", "advisor_tool_result"} < kinds
    assert kinds <= {block["type"] for block in BLOCKS}


def test_all_blocks_may_stand_in_one_message() -> None:
    kinds = [block.type for block in parsed(BLOCKS).content]
    assert kinds == [block["type"] for block in BLOCKS]


@pytest.mark.parametrize("block", IN_TOOL_RESULT, ids=lambda block: str(block["type"]))
def test_every_block_of_a_tool_result_is_understood(block: dict[str, Any]) -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [TEXT, block]}
    said_again([result], parsed([result]).model_dump()["content"])


def test_a_string_is_one_text_block_everywhere() -> None:
    assert parsed("hello") == parsed([TEXT])

    def nested(content: object) -> MessageParam:
        source = {"type": "content", "content": content}
        document = {"type": "document", "source": source}
        return parsed([{"type": "tool_result", "tool_use_id": "t", "content": [document]}, document])

    assert nested("hello") == nested([TEXT])
    result = {"type": "tool_result", "tool_use_id": "t"}
    assert parsed([{**result, "content": "hello"}]) == parsed([{**result, "content": [TEXT]}])


def test_a_tool_result_without_content_is_an_empty_one() -> None:
    block = parsed([{"type": "tool_result", "tool_use_id": "t"}]).content[0]
    assert isinstance(block, ToolResultBlock)
    assert block.content == []


def test_a_cache_mark_lasts_five_minutes_unless_it_says_otherwise() -> None:
    block = parsed([{**TEXT, "cache_control": {"type": "ephemeral"}}]).content[0]
    assert isinstance(block, TextBlock)
    assert block.cache_control is not None
    assert block.cache_control.ttl == "5m"


def test_the_order_of_a_tools_input_is_kept() -> None:
    arguments = {"zebra": 1, "apple": {"y": 1, "x": 2}}
    block = parsed([{"type": "tool_use", "id": "t", "name": "n", "input": arguments}]).model_dump()["content"][0]
    assert list(block["input"]) == ["zebra", "apple"]
    assert list(block["input"]["apple"]) == ["y", "x"]


REQUIRED = {
    "text": ["text"],
    "image": ["source"],
    "document": ["source"],
    "search_result": ["source", "title", "content"],
    "tool_use": ["id", "name", "input"],
    "tool_result": ["tool_use_id"],
    "thinking": ["thinking", "signature"],
    "redacted_thinking": ["data"],
    "server_tool_use": ["id", "name", "input"],
    "mcp_tool_use": ["id", "name", "input"],
    **{kind: ["tool_use_id"] for kind in SERVER_TOOL_RESULTS},
    "mcp_tool_listing": ["mcp_server_name", "tools"],
    "container_upload": ["file_id"],
    "tool_reference": ["tool_name"],
    "tool_addition": ["tool"],
}


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind in REQUIRED for field in REQUIRED[kind]])
def test_a_missing_field_is_named_with_its_place(kind: str, field: str) -> None:
    block = next(block for block in BLOCKS if block["type"] == kind)
    without = {name: value for name, value in block.items() if name != field}
    assert refusal([TEXT, without]) == f"content.1.{kind}.{field}: Field required"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "content: Input should be a valid list"),
        (7, "content: Input should be a valid list"),
        (TEXT, "content: Input should be a valid list"),
        (["hello"], "content.0: Input should be an object"),
        ([[TEXT]], "content.0: Input should be an object"),
        ([{"type": "text", "text": 7}], "content.0.text.text: Input should be a valid string"),
        ([{"type": "text", "text": None}], "content.0.text.text: Input should be a valid string"),
        (
            [{"type": "tool_use", "id": "t", "name": "n", "input": "{}"}],
            "content.0.tool_use.input: Input should be a valid dictionary",
        ),
        (
            [{**TEXT, "cache_control": {"type": "ephemeral", "ttl": "2h"}}],
            "content.0.text.cache_control.ttl: Input should be '5m' or '1h'",
        ),
        (
            [{**TEXT, "cache_control": True}],
            "content.0.text.cache_control: Input should be an object",
        ),
        (
            [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text"}]}],
            "content.0.tool_result.content.0.text.text: Field required",
        ),
        (
            [{"type": "tool_result", "tool_use_id": "t", "is_error": "no"}],
            "content.0.tool_result.is_error: Input should be a valid boolean",
        ),
        (
            [{"type": "image", "source": {**PNG, "media_type": "image/bmp"}}],
            "content.0.image.source.base64.media_type: "
            "Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'",
        ),
        (
            [{"type": "document", "source": PNG}],
            "content.0.document.source.base64.media_type: Input should be 'application/pdf'",
        ),
        (
            [{**DOCUMENTS[0], "citations": {"enabled": "yes"}}],
            "content.0.document.citations.enabled: Input should be a valid boolean",
        ),
        (
            [{"type": "document", "source": {"type": "text", "media_type": "text/html", "data": "x"}}],
            "content.0.document.source.text.media_type: Input should be 'text/plain'",
        ),
        (
            [{"type": "document", "source": {"type": "content", "content": [{"type": "text"}]}}],
            "content.0.document.source.content.content.0.text.text: Field required",
        ),
        (
            [{"type": "document", "source": {"type": "content", "content": [{"type": "image"}]}}],
            "content.0.document.source.content.content.0.image.source: Field required",
        ),
        (
            [{"type": "image", "source": {"type": "url"}}],
            "content.0.image.source.url.url: Field required",
        ),
        (
            [{"type": "search_result", "source": "s", "title": "t", "content": [{"type": "image"}]}],
            "content.0.search_result.content.0.type: Input should be 'text'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content: object, message: str) -> None:
    assert refusal(content) == message


@pytest.mark.parametrize(
    ("content", "place", "tag"),
    [
        ([{"type": "video"}], "content.0", "video"),
        ([TEXT, {"type": "Text", "text": "x"}], "content.1", "Text"),
        ([{"type": "image", "source": {"type": "ftp"}}], "content.0.image.source", "ftp"),
        (
            [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_use"}]}],
            "content.0.tool_result.content.0",
            "tool_use",
        ),
    ],
)
def test_an_unknown_kind_of_block_is_named(content: object, place: str, tag: str) -> None:
    assert refusal(content).startswith(
        f"{place}: Input tag '{tag}' found using 'type' does not match any of the expected tags: "
    )


@pytest.mark.parametrize("block", [{}, {"text": "hello"}, {"type": None}, {"type": 7}, {"type": ["text"]}])
def test_a_block_needs_a_kind(block: dict[str, Any]) -> None:
    assert refusal([block]).startswith("content.0: ")


def test_citations_are_off_unless_they_are_enabled() -> None:
    for citations, enabled in (({}, False), ({"enabled": False}, False), ({"enabled": True}, True)):
        block = parsed([{**DOCUMENTS[0], "citations": citations}]).content[0]
        assert isinstance(block, DocumentBlock)
        assert block.citations is not None
        assert block.citations.enabled is enabled


def test_every_block_can_be_visited_with_its_place() -> None:
    def named(name: str) -> dict[str, str]:
        return {"type": "text", "text": name}

    document = {"type": "document", "source": {"type": "content", "content": [named("a"), named("b")]}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [named("c"), document]}
    message = parsed([named("d"), result, SEARCH_RESULT])
    assert [(where, block.model_dump()["type"]) for where, block in walk(message.content, "m")] == [
        ("m.0", "text"),
        ("m.1.tool_result.content.0", "text"),
        ("m.1.tool_result.content.1.document.source.content.0", "text"),
        ("m.1.tool_result.content.1.document.source.content.1", "text"),
        ("m.1.tool_result.content.1", "document"),
        ("m.1", "tool_result"),
        ("m.2.search_result.content.0", "text"),
        ("m.2", "search_result"),
    ]
