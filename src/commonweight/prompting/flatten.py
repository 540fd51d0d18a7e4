"""Content blocks to the text that a chat template takes.

Templates of text models take one string a message. Tool calls and results of a history are written in a plain
generic form; blocks that say nothing to a model (thinking of other models, markers) vanish.
"""

import json
from collections.abc import Sequence

from commonweight.messages.content import (
    CompactionBlock,
    ContentSource,
    DocumentBlock,
    SearchResultBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    TextBlock,
    TextSource,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.wire import WireModel

PARAGRAPH = "\n\n"

_SILENT = frozenset({"thinking", "redacted_thinking", "fallback", "mcp_tool_listing"})


def flatten(blocks: Sequence[WireModel], where: str, joint: str = PARAGRAPH) -> str:
    """The text of ``blocks``, joined by ``joint``.

    ``where`` is their place in the request (``messages.0.content``), for the error about a block that a text
    model cannot read: agents find the block by it and go on without.
    """
    texts = [_text(block, f"{where}.{i}") for i, block in enumerate(blocks)]
    return joint.join(text for text in texts if text is not None)


def _text(block: WireModel, where: str) -> str | None:
    match block:
        case TextBlock():
            return block.text
        case ToolUseBlock() | ServerToolUseBlock():
            call = json.dumps({"name": block.name, "input": block.input}, ensure_ascii=False)
            return f"\n<tool_call>\n{call}\n</tool_call>"
        case ToolResultBlock():
            body = flatten(block.content, f"{where}.tool_result.content")
            return f"<tool_result>\n{body}\n</tool_result>"
        case ServerToolResultBlock():
            body = json.dumps(block.content, ensure_ascii=False)
            return f"\n<tool_result>\n{body}\n</tool_result>"
        case DocumentBlock():
            return _document(block, where)
        case SearchResultBlock():
            return "\n".join([block.title, block.source, flatten(block.content, f"{where}.search_result.content")])
        case ToolReferenceBlock():
            return block.tool_name
        case CompactionBlock():
            return block.content
        case _:
            kind: str = getattr(block, "type")  # noqa: B009 - every block has one, but no base declares it
            if kind in _SILENT:
                return None
            raise InvalidRequestError(f"{where}.{kind}: this model does not support {kind} input")


def _document(block: DocumentBlock, where: str) -> str:
    match block.source:
        case TextSource(data=body):
            pass
        case ContentSource(content=blocks):
            body = flatten(blocks, f"{where}.document.source.content")
        case _:
            kind = "pdf" if getattr(block.source, "media_type", "") == "application/pdf" else block.source.type
            raise InvalidRequestError(f"{where}.document: this model does not support {kind} input")
    return "\n".join(part for part in (block.title, block.context, body) if part)
