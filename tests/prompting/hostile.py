"""Text that tries to become special tokens, and requests that carry text in one field or another."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from commonweight.messages.request import CountTokensRequest

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)] + ["\ufffe", "\uffff", "\U0001fffe", "\U0010ffff"]
SCRAPS = [
    *("<", ">", "|", "<|", "|>", "</", "[", "]", "<\ufdd0", "im_start", "<|im_", "/no_think", "/think", "think>"),
    *("<think>", "</think>", "<tool_response>", "</tool_response>", "<0x0A>", "▁", " ", "\n", "\t", "\u3000"),
]
# The starter's vocabulary lacks six control characters and the planes from 4 up.
LETTERS = st.characters(codec="utf-8", max_codepoint=0x3FFFF, exclude_characters="\x04\x06\x13\x14\x16\x1d")

Request = dict[str, Any]


def hostile_texts(specials: Iterable[str]) -> st.SearchStrategy[str]:
    """Specials whole, cut, nested and overlapping, among ordinary text and the marks that quoting may use."""
    special = st.sampled_from(sorted(specials))

    @st.composite
    def parts(draw: st.DrawFn) -> str:
        token = draw(special)
        start, end = sorted(draw(st.tuples(st.integers(0, len(token)), st.integers(0, len(token)))))
        return token[start:end]

    @st.composite
    def nested(draw: st.DrawFn) -> str:
        token = draw(special)
        cut = draw(st.integers(0, len(token)))
        return token[:cut] + draw(special | st.sampled_from(SCRAPS + NONCHARACTERS)) + token[cut:]

    piece = (
        special
        | parts()
        | nested()
        | st.sampled_from(SCRAPS)
        | st.sampled_from(NONCHARACTERS)
        | st.text(LETTERS, max_size=3)
    )
    return st.lists(piece, min_size=1, max_size=5).map("".join).filter(bool)


def conversation(*messages: dict[str, Any], **fields: object) -> Request:
    """A request for counting tokens."""
    return {"model": "m", "messages": list(messages), **fields}


def parsed(request: Request) -> CountTokensRequest:
    """The request as the product takes it."""
    return CountTokensRequest.model_validate(request)


def user(content: object) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: object) -> dict[str, Any]:
    """An assistant's message."""
    return {"role": "assistant", "content": content}


def system(content: object) -> dict[str, Any]:
    """A system message within the conversation."""
    return {"role": "system", "content": content}


def text(content: str) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": content}


def tool_use(**fields: object) -> dict[str, Any]:
    """A call of a tool."""
    return {"type": "tool_use", "id": "toolu_1", "name": "search", "input": {}, **fields}


def tool_result(content: object) -> dict[str, Any]:
    """What a tool answered."""
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


def document(body: object = "body", **fields: object) -> dict[str, Any]:
    """A document of plain text or of blocks."""
    source: dict[str, object]
    if isinstance(body, str):
        source = {"type": "text", "media_type": "text/plain", "data": body}
    else:
        source = {"type": "content", "content": body}
    return {"type": "document", "source": source, **fields}


def found(**fields: object) -> dict[str, Any]:
    """A search result."""
    return {"type": "search_result", "source": "s", "title": "t", "content": [text("c")], **fields}


def _said_by_user(*blocks: dict[str, Any]) -> Request:
    return conversation(user(list(blocks)))


def _said_by_assistant(*blocks: dict[str, Any]) -> Request:
    return conversation(user("ask"), assistant(list(blocks)), user("go on"))


FIELDS: dict[str, Callable[[str], Request]] = {
    "system string": lambda x: conversation(user("ask"), system=x),
    "system block": lambda x: conversation(user("ask"), system=[text("be kind"), text(x)]),
    "user string": lambda x: conversation(user(x)),
    "user block": lambda x: _said_by_user(text("look"), text(x), text("well")),
    "earlier user": lambda x: conversation(user(x), assistant("yes"), user("ask")),
    "assistant string": lambda x: conversation(user("ask"), assistant(x), user("go on")),
    "assistant block": lambda x: _said_by_assistant(text("a"), text(x), text("b")),
    "late system string": lambda x: conversation(user("ask"), system(x)),
    "late system block": lambda x: conversation(user("ask"), system([text(x)]), assistant("yes"), user("go on")),
    "prefill string": lambda x: conversation(user("ask"), assistant(x + ".")),
    "prefill block": lambda x: conversation(user("ask"), assistant([text("a"), text(x), text("b")])),
    "tool name": lambda x: _said_by_assistant(tool_use(name=x)),
    "tool id": lambda x: _said_by_assistant(tool_use(id=x)),
    "tool input key": lambda x: _said_by_assistant(tool_use(input={x: 1})),
    "tool input value": lambda x: _said_by_assistant(tool_use(input={"q": ["a", {"b": x}]})),
    "server tool input": lambda x: _said_by_assistant({**tool_use(input={"q": x}), "type": "server_tool_use"}),
    "mcp tool name": lambda x: _said_by_assistant({**tool_use(name=x), "type": "mcp_tool_use", "server_name": x}),
    "server tool result": lambda x: _said_by_assistant(
        {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"title": x}]}
    ),
    "mcp tool result": lambda x: _said_by_assistant({"type": "mcp_tool_result", "tool_use_id": "t", "content": x}),
    "tool result id": lambda x: _said_by_user({**tool_result("r"), "tool_use_id": x}),
    "tool result string": lambda x: _said_by_user(tool_result(x)),
    "tool result block": lambda x: _said_by_user(tool_result([text(x), text("b")]), text("so")),
    "tool result document": lambda x: _said_by_user(tool_result([document(x)])),
    "tool reference": lambda x: _said_by_user(tool_result([{"type": "tool_reference", "tool_name": x}])),
    "document title": lambda x: _said_by_user(document(title=x)),
    "document context": lambda x: _said_by_user(document(title="t", context=x)),
    "document data": lambda x: _said_by_user(document(x)),
    "document content": lambda x: _said_by_user(document([text("a"), text(x)])),
    "search title": lambda x: _said_by_user(found(title=x)),
    "search source": lambda x: _said_by_user(found(source=x)),
    "search content": lambda x: _said_by_user(found(content=[text(x), text("b")])),
    "compaction": lambda x: _said_by_assistant({"type": "compaction", "content": x}),
    "thinking": lambda x: _said_by_assistant({"type": "thinking", "thinking": x, "signature": x}, text("so")),
}
"""Requests with one text of a client, by the field that it stands in."""

UNSEEN = {"tool id", "tool result id", "thinking"}
"""Fields that models do not see in this form."""

IN_JSON = {
    *("tool name", "tool input key", "tool input value", "server tool input", "mcp tool name"),
    *("server tool result", "mcp tool result"),
}
"""Fields whose text models see as JSON writes it."""


def as_seen(field: str, content: str) -> str:
    """How the text of a field should read in the prompt."""
    if field in UNSEEN:
        return ""
    return json.dumps(content, ensure_ascii=False)[1:-1] if field in IN_JSON else content
