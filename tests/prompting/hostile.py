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
    """Specials whole, cut, nested and overlapping, among ordinary text and the marks that escaping inserts."""
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
    return st.lists(piece, min_size=1, max_size=5).map("".join).filter(str.strip)


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


def thinking(content: str) -> dict[str, Any]:
    """Reasoning, as it is once its signature is checked."""
    return {"type": "thinking", "thinking": content, "signature": ""}


def tool(**fields: object) -> dict[str, Any]:
    """A tool of the client's own."""
    return {"name": "search", "description": "Finds.", "input_schema": schema({"q": {"type": "string"}}), **fields}


def schema(properties: dict[str, Any], **fields: object) -> dict[str, Any]:
    """What a tool takes."""
    return {"type": "object", "properties": properties, **fields}


def tool_use(**fields: object) -> dict[str, Any]:
    """A call of a tool."""
    return {"type": "tool_use", "id": "toolu_1", "name": "search", "input": {}, **fields}


def tool_result(content: object, **fields: object) -> dict[str, Any]:
    """What a tool answered."""
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content, **fields}


def reference(name: str) -> dict[str, Any]:
    """A tool that was found and may be called from then on."""
    return {"type": "tool_reference", "tool_name": name}


def addition(subject: str | dict[str, Any], **fields: object) -> dict[str, Any]:
    """A tool that may be called from then on, by its name or by a definition."""
    named = {"type": "tool_reference", "name": subject}
    defined = {"type": "tool_definition", "definition": subject}
    return {"type": "tool_addition", "tool": named if isinstance(subject, str) else defined, **fields}


def removal(name: str, **fields: object) -> dict[str, Any]:
    """A tool that must not be called from then on."""
    return {"type": "tool_removal", "tool": {"type": "tool_reference", "name": name}, **fields}


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


def _called(*blocks: dict[str, Any], then: object = "r", **fields: object) -> Request:
    result = then if isinstance(then, list) else [tool_result(then, tool_use_id=blocks[-1]["id"])]
    return conversation(user("ask"), assistant(list(blocks)), user(result), **fields)


def _answered(*blocks: dict[str, Any]) -> Request:
    return _called(tool_use(), then=list(blocks))


def _offered(**fields: object) -> Request:
    return conversation(user("ask"), tools=[tool(**fields)])


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
    "tool description": lambda x: _offered(description=x),
    "tool property": lambda x: _offered(input_schema=schema({x: {"type": "string"}}, required=[x])),
    "tool property description": lambda x: _offered(
        input_schema=schema({"q": {"type": "string", "description": x}})
    ),
    "tool property enum": lambda x: _offered(input_schema=schema({"q": {"type": "string", "enum": ["a", x]}})),
    "tool property default": lambda x: _offered(input_schema=schema({"q": {"default": {"type": x}}})),
    "tool property keyword": lambda x: _offered(input_schema=schema({"q": {"title": "t", x: x}})),
    "tool schema keyword": lambda x: _offered(input_schema=schema({"q": {"type": "string"}}, **{x: x})),
    "tool example key": lambda x: _offered(input_examples=[{x: 1}]),
    "tool example value": lambda x: _offered(input_examples=[{"q": x}]),
    "loaded tool": lambda x: _called(
        tool_use(),
        then=[tool_result([reference("late")])],
        tools=[tool(), tool(name="late", description=x, defer_loading=True)],
    ),
    "defined tool": lambda x: conversation(user("ask"), system([addition(tool(description=x))])),
    "defined tool beside others": lambda x: conversation(
        user("ask"), system([addition(tool(name="new", input_examples=[{"q": x}]))]), tools=[tool()]
    ),
    "call name": lambda x: _called(tool_use(name=x)),
    "call id": lambda x: _called(tool_use(id=x)),
    "call input key": lambda x: _called(tool_use(input={x: 1})),
    "call input value": lambda x: _called(text("so"), tool_use(input={"q": ["a", {"b": x}]})),
    "call input text": lambda x: _called(tool_use(input={"q": x}), tools=[tool()]),
    "text before call": lambda x: _called(text(x), tool_use()),
    "thinking before call": lambda x: _called(thinking(x), tool_use()),
    "thinking before text": lambda x: _said_by_assistant(thinking(x), text("so")),
    "thinking before prefill": lambda x: conversation(user("ask"), assistant([thinking(x), text("so")])),
    "tool result string": lambda x: _answered(tool_result(x)),
    "tool result error": lambda x: _answered(tool_result(x, is_error=True)),
    "tool result block": lambda x: _answered(tool_result([text(x), text("b")]), text("so")),
    "text after tool result": lambda x: _answered(tool_result("r"), text(x)),
    "tool result document": lambda x: _answered(tool_result([document(x)])),
    "tool result search": lambda x: _answered(tool_result([found(content=[text(x)])])),
    "tool reference": lambda x: _answered(tool_result([reference(x)])),
    "server tool input": lambda x: _said_by_assistant({**tool_use(input={"q": x}), "type": "server_tool_use"}),
    "mcp tool name": lambda x: _said_by_assistant({**tool_use(name=x), "type": "mcp_tool_use", "server_name": x}),
    "server tool result": lambda x: _said_by_assistant(
        {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{"title": x}]}
    ),
    "mcp tool result": lambda x: _said_by_assistant({"type": "mcp_tool_result", "tool_use_id": "t", "content": x}),
    "document title": lambda x: _said_by_user(document(title=x)),
    "document context": lambda x: _said_by_user(document(title="t", context=x)),
    "document data": lambda x: _said_by_user(document(x)),
    "cited document": lambda x: _said_by_user(document(x, citations={"enabled": True})),
    "document content": lambda x: _said_by_user(document([text("a"), text(x)])),
    "search title": lambda x: _said_by_user(found(title=x)),
    "search source": lambda x: _said_by_user(found(source=x)),
    "search content": lambda x: _said_by_user(found(content=[text(x), text("b")])),
    "compaction": lambda x: _said_by_assistant({"type": "compaction", "content": x}),
}
"""Requests with one text of a client, by the field that it stands in."""

NOT_ALWAYS_SEEN = {
    *("call id", "thinking before call", "thinking before text", "thinking before prefill", "text before call"),
    *("tool property default", "tool property keyword", "tool schema keyword"),
}
"""Fields that not every template shows to the model."""


def as_seen(content: str) -> list[str]:
    """How the text of a field may read in the prompt: as it is, or in JSON, which may be in JSON again.

    Descriptions of tools are trimmed.
    """
    seen = []
    for text in (content, content.strip()):
        once = json.dumps(text, ensure_ascii=False)[1:-1]
        seen += [text, once, json.dumps(once, ensure_ascii=False)[1:-1]]
    return seen
