"""What a text model reads of each kind of content block."""

from typing import Any

import pytest
from hostile import document, found, text, tool_result, tool_use

from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageParam
from commonweight.prompting.flatten import flatten

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}


def flat(*blocks: dict[str, Any], joint: str = "\n\n") -> str:
    message = MessageParam.model_validate({"role": "user", "content": list(blocks)})
    return flatten(message.content, "messages.7.content", joint)


@pytest.mark.parametrize(
    ("block", "read"),
    [
        (text(" as it is\n"), " as it is\n"),
        (
            tool_use(name="Bash", input={"z": "é <b>", "a": [1, None]}),
            '\n<tool_call>\n{"name": "Bash", "input": {"z": "é <b>", "a": [1, null]}}\n</tool_call>',
        ),
        (
            {**tool_use(name="web_search"), "type": "server_tool_use"},
            '\n<tool_call>\n{"name": "web_search", "input": {}}\n</tool_call>',
        ),
        (tool_result("STUB_42"), "<tool_result>\nSTUB_42\n</tool_result>"),
        (tool_result([]), "<tool_result>\n\n</tool_result>"),
        (tool_result([text("a"), document("b")]), "<tool_result>\na\n\nb\n</tool_result>"),
        (
            {"type": "mcp_tool_result", "tool_use_id": "t", "content": [{"text": "é"}]},
            '\n<tool_result>\n[{"text": "é"}]\n</tool_result>',
        ),
        (document("body"), "body"),
        (document("body", title="title", context="context"), "title\ncontext\nbody"),
        (document([text("a"), text("b")], title="title"), "title\na\n\nb"),
        (found(title="t", source="s", content=[text("a"), text("b")]), "t\ns\na\n\nb"),
        ({"type": "tool_reference", "tool_name": "Bash"}, "Bash"),
        ({"type": "compaction", "content": "summary"}, "summary"),
    ],
)
def test_what_is_read(block: dict[str, Any], read: str) -> None:
    assert flat(block) == read
    assert flat(text("before"), block, text("after")) == f"before\n\n{read}\n\nafter"
    assert flat(text("before"), block, joint="") == "before" + read


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
        ([IMAGE], "messages.7.content.0.image: this model does not support image input"),
        ([text("a"), IMAGE], "messages.7.content.1.image: this model does not support image input"),
        (
            [text("a"), tool_result([text("b"), text("c"), IMAGE])],
            "messages.7.content.1.tool_result.content.2.image: this model does not support image input",
        ),
        (
            [document([text("a"), IMAGE])],
            "messages.7.content.0.document.source.content.1.image: this model does not support image input",
        ),
        ([PDF], "messages.7.content.0.document: this model does not support pdf input"),
        (
            [tool_result([text("a"), PDF])],
            "messages.7.content.0.tool_result.content.1.document: this model does not support pdf input",
        ),
        (
            [{"type": "document", "source": {"type": "url", "url": "u"}}],
            "messages.7.content.0.document: this model does not support url input",
        ),
        (
            [{"type": "document", "source": {"type": "file", "file_id": "f"}}],
            "messages.7.content.0.document: this model does not support file input",
        ),
        (
            [{"type": "container_upload", "file_id": "f"}],
            "messages.7.content.0.container_upload: this model does not support container_upload input",
        ),
        (
            [tool_result([{"type": "browser_state"}])],
            "messages.7.content.0.tool_result.content.0.browser_state: "
            "this model does not support browser_state input",
        ),
        (
            [{"type": "tool_addition", "tool": {}}],
            "messages.7.content.0.tool_addition: this model does not support tool_addition input",
        ),
    ],
)
def test_what_a_text_model_cannot_read_is_refused_with_its_place(
    blocks: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        flat(*blocks)
    assert error.value.message == message
