"""Text of each kind of content block for a text model."""

from typing import Any

import pytest
from hostile import document, found, text, tool_use

from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageParam
from commonweight.prompting.content_blocks import BlockRenderer
from commonweight.prompting.documents import collect_documents
from commonweight.prompting.marks import make_cache_mark

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
DEFINITIONS = {"Bash": {"type": "function", "function": {"name": "Bash", "description": "é"}}}


def flat(*blocks: dict[str, Any]) -> str:
    message = MessageParam.model_validate({"role": "user", "content": list(blocks)})
    documents = collect_documents([message])
    return BlockRenderer(documents, DEFINITIONS).render_all(message.content, "messages.0.content")


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
        (
            {"type": "tool_reference", "tool_name": "Bash"},
            "This tool can be called from now on:\n"
            '{"type": "function", "function": {"name": "Bash", "description": "é"}}',
        ),
        # Messages may be counted alone, without the tools that they refer to.
        ({"type": "tool_reference", "tool_name": "X"}, 'This tool can be called from now on:\n{"name": "X"}'),
        ({"type": "compaction", "content": "summary"}, "summary"),
        ({"type": "container_upload", "file_id": "f"}, '\n<container_upload file_id="f"/>'),
    ],
)
def test_what_is_read(block: dict[str, Any], read: str) -> None:
    assert flat(block) == read
    assert flat(text("before"), block, text("after")) == f"before\n\n{read}\n\nafter"


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
        ([IMAGE], "messages.0.content.0.image: this model does not support image input"),
        ([text("a"), IMAGE], "messages.0.content.1.image: this model does not support image input"),
        (
            [{"type": "tool_addition", "tool": {}}],
            "messages.0.content.0.tool_addition: this model does not support tool_addition input",
        ),
    ],
)
def test_what_a_text_model_cannot_read_is_refused_with_its_place(
    blocks: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        flat(*blocks)
    assert error.value.message == message
