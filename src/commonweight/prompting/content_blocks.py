"""Text of content blocks, for chat templates that take one string per message.

Blocks without content for a model (thinking of other models, fallback markers) render to nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from commonweight.messages.caching import Cacheable
from commonweight.messages.content import (
    CompactionBlock,
    ContainerUploadBlock,
    DocumentBlock,
    SearchResultBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    TextBlock,
    ToolAdditionBlock,
    ToolReferenceBlock,
    ToolRemovalBlock,
)
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.tool_changes import ConversationTools, ToolChange
from commonweight.messages.wire import WireModel
from commonweight.prompting.documents import Document
from commonweight.prompting.marks import make_cache_mark

PARAGRAPH = "\n\n"

_WITHOUT_TEXT = frozenset({"thinking", "redacted_thinking", "fallback", "mcp_tool_listing"})


class BlockRenderer:
    """Renders the content blocks of one request as text. ``show_tool`` writes a tool that is added."""

    def __init__(
        self, documents: Sequence[Document], tools: ConversationTools, show_tool: Callable[[ToolChange], str]
    ) -> None:
        self._documents = {id(document.block): (i, document) for i, document in enumerate(documents)}
        self._tools = tools
        self._show_tool = show_tool

    def render_all(self, blocks: Sequence[WireModel], path: str) -> str:
        """The text of ``blocks`` as paragraphs, with their cache marks.

        ``path`` is their path in the request (``messages.0.content``), for the error about a block that a text
        model cannot read: agents find the block by it and go on without.

        Raises:
            InvalidRequestError: a block that a text model cannot read.
        """
        texts = []
        for i, block in enumerate(blocks):
            text = self.render(block, f"{path}.{i}")
            if text is not None:
                texts.append(text + read_cache_mark(block))
        return PARAGRAPH.join(texts)

    def render(self, block: WireModel, path: str) -> str | None:
        """The text of one block, without its cache mark; None for a block without content for a model.

        Raises:
            InvalidRequestError: a block that a text model cannot read.
        """
        match block:
            case TextBlock():
                return block.text
            case ServerToolUseBlock():
                call = json.dumps({"name": block.name, "input": block.input}, ensure_ascii=False)
                return f"\n<tool_call>\n{call}\n</tool_call>"
            case ServerToolResultBlock():
                body = json.dumps(block.content, ensure_ascii=False)
                return f"\n<tool_result>\n{body}\n</tool_result>"
            case DocumentBlock() | SearchResultBlock():
                return self._render_document(block)
            case ToolAdditionBlock() | ToolRemovalBlock() | ToolReferenceBlock():
                return self._render_tool_change(block)
            case CompactionBlock():
                return block.content
            case ContainerUploadBlock():
                return f'\n<container_upload file_id="{block.file_id}"/>'
            case _:
                kind: str = getattr(block, "type")  # noqa: B009 - every block has one, but no base declares it
                if kind in _WITHOUT_TEXT:
                    return None
                raise InvalidRequestError(f"{path}.{kind}: this model does not support {kind} input")

    def _render_tool_change(self, block: ToolAdditionBlock | ToolRemovalBlock | ToolReferenceBlock) -> str | None:
        change = self._tools.find_change(block)
        if change is None:
            # Agents count the tokens of single messages, too, without the tools that they refer to.
            return announce_tool({"name": block.tool_name}) if isinstance(block, ToolReferenceBlock) else None
        return (
            self._show_tool(change)
            if change.is_added
            else f"This tool can no longer be called: {change.tool.name}"
        )

    def _render_document(self, block: DocumentBlock | SearchResultBlock) -> str:
        number, document = self._documents[id(block)]
        lines = [document.title, document.source, document.context, "\n".join(document.parts)]
        body = "\n".join(line for line in lines if line)
        return f'<document number="{number}">\n{body}\n</document>' if document.is_citable else body


def announce_tool(definition: Mapping[str, Any]) -> str:
    """Text of a tool that may be called from there on."""
    return f"This tool can be called from now on:\n{json.dumps(definition, ensure_ascii=False)}"


def read_cache_mark(part: WireModel) -> str:
    """The cache mark of a block or tool with ``cache_control``, or an empty string."""
    return make_cache_mark(part.cache_control.ttl) if isinstance(part, Cacheable) and part.cache_control else ""
