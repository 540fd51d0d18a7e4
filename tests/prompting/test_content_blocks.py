"""Text of each kind of content block for a text model."""

from collections.abc import Sequence
from typing import Any

import pytest
from hostile import addition, document, found, reference, removal, text, tool, tool_use

from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest
from commonweight.messages.tool_changes import ToolChange
from commonweight.prompting.content_blocks import BlockRenderer
from commonweight.prompting.documents import collect_documents
from commonweight.prompting.marks import make_cache_mark

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
TOOL = tool()
BASH = {"name": "Bash", "description": "é", "input_schema": {"type": "object"}, "defer_loading": True}
LOADED = "Bash, é"


def show(change: ToolChange) -> str:
    return f"{'first: ' * change.is_first}{change.tool.name}, {change.tool.description}"


def flat(
    *blocks: dict[str, Any], role: str = "user", declared: Sequence[dict[str, Any]] | None = (TOOL, BASH)
) -> str:
    """The text of a message's blocks after a greeting."""
    messages = [{"role": "user", "content": "hello"}, {"role": role, "content": list(blocks)}]
    tools = {} if declared is None else {"tools": list(declared)}
    request = CountTokensRequest.model_validate({"model": "m", "messages": messages, **tools})
    documents = collect_documents(request.messages)
    renderer = BlockRenderer(documents, request.trace_tools(), show)
    return renderer.render_all(request.messages[1].content, "messages.1.content")


def cited(block: dict[str, Any]) -> dict[str, Any]:
    return {**block, "citations": {"enabled": True}}


@pytest.mark.parametrize(
    ("block", "read"),
    [
        (text(" as it is\n"), " as it is\n"),
        (
            {**tool_use(name="web_search", input={"z": "é <b>", "a": [1, None]}), "type": "server_tool_use"},
            '\n<tool_call>\n{"name": "web_search", "input": {"z": "é <b>", "a": [1, null]}}\n</tool_call>',
        ),
        (
            {"type": "mcp_tool_result", "tool_use_id": "t", "content": [{"text": "é"}]},
            '\n<tool_result>\n[{"text": "é"}]\n</tool_result>',
        ),
        (document("body"), "body"),
        (document("body", title="title", context="context"), "title\ncontext\nbody"),
        (document([text("a"), text("b")], title="title"), "title\na\nb"),
        (cited(document("body", title="title")), '<document number="0">\ntitle\nbody\n</document>'),
        (found(title="t", source="s", content=[text("a"), text("b")]), "t\ns\na\nb"),
        (cited(found(title="t", source="s")), '<document number="0">\nt\ns\nc\n</document>'),
        (reference("Bash"), LOADED),
        ({"type": "compaction", "content": "summary"}, "summary"),
        ({"type": "container_upload", "file_id": "f"}, '\n<container_upload file_id="f"/>'),
    ],
)
def test_what_is_read(block: dict[str, Any], read: str) -> None:
    assert flat(block) == read
    assert flat(text("before"), block, text("after")) == f"before\n\n{read}\n\nafter"


def test_a_message_that_is_counted_alone_may_refer_to_tools_that_are_not_sent_with_it() -> None:
    unknown = 'This tool can be called from now on:\n{"name": "X"}'
    assert flat(reference("X"), declared=None) == unknown
    assert flat(addition("X"), text("x"), role="system", declared=None) == "x"


def test_additions_and_removals_are_told_where_they_stand() -> None:
    gone = "This tool can no longer be called: Bash"
    assert flat(text("a"), addition("Bash"), text("b"), role="system") == f"a\n\n{LOADED}\n\nb"
    assert flat(addition("Bash"), removal("Bash"), role="system") == f"{LOADED}\n\n{gone}"
    definition = {key: value for key, value in BASH.items() if key != "defer_loading"}
    assert flat(addition(definition), removal("Bash"), role="system") == f"{LOADED}\n\n{gone}"
    assert flat(addition("Bash"), removal("Bash"), addition("Bash"), role="system").endswith(LOADED)


def test_a_change_that_changes_nothing_leaves_no_trace() -> None:
    assert flat(addition("Bash"), addition("Bash"), role="system") == LOADED
    assert flat(removal("Bash"), text("x"), role="system") == "x"


def test_the_first_tool_of_a_conversation_is_explained() -> None:
    assert flat(addition(TOOL), addition(BASH), addition("Bash"), role="system", declared=[]) == (
        f"first: search, Finds.\n\n{LOADED}"
    )
    assert flat(addition("Bash"), role="system", declared=[BASH]) == f"first: {LOADED}"


def test_a_removed_tool_is_not_loaded_by_a_reference() -> None:
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "system", "content": [removal("Bash")]},
        {"role": "user", "content": [reference("Bash")]},
    ]
    request = CountTokensRequest.model_validate({"model": "m", "messages": messages, "tools": [TOOL, BASH]})
    renderer = BlockRenderer([], request.trace_tools(), show)
    told = renderer.render_all(request.messages[2].content, "messages.2.content")
    assert told == "This tool can no longer be called: Bash"


def test_documents_that_may_be_cited_are_numbered_with_all_others() -> None:
    assert flat(document("a"), cited(document("b")), found(), cited(found())) == (
        'a\n\n<document number="1">\nb\n</document>\n\nt\ns\nc\n\n<document number="3">\nt\ns\nc\n</document>'
    )


def test_cache_marks_follow_their_blocks() -> None:
    minutes, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    marked = flat({**text("a"), "cache_control": minutes}, {**document("b"), "cache_control": hour}, text("c"))
    assert marked == f"a{make_cache_mark('5m')}\n\nb{make_cache_mark('1h')}\n\nc"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "x", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "fallback"},
        {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": [{"name": "x"}]},
        {"type": "compaction", "content": None, "encrypted_content": "x"},
    ],
    ids=lambda block: str(block["type"]),
)
def test_what_says_nothing_leaves_no_trace(block: dict[str, Any]) -> None:
    assert flat(block) == ""
    assert flat(text("a"), block, text("b")) == "a\n\nb"


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([IMAGE], "messages.1.content.0.image: this model does not support image input"),
        ([text("a"), IMAGE], "messages.1.content.1.image: this model does not support image input"),
    ],
)
def test_what_a_text_model_cannot_read_is_refused_with_its_place(
    blocks: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        flat(*blocks)
    assert error.value.message == message
