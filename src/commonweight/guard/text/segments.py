"""Segments of a request: the texts that are screened, each with its place and where it stands in the request.

A segment is scored as one text. It is joined from its parts, which are texts as the client sent them (of a PDF: as
they were extracted), so that a span of it can be told as a block and characters of that block's own text.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from commonweight.charter.principle import Place
from commonweight.guard.text.tool_texts import JsonText, list_schema_texts, list_strings
from commonweight.messages.content import (
    CompactionBlock,
    ContainerUploadBlock,
    ContentSource,
    DocumentBlock,
    ImageBlock,
    SearchResultBlock,
    ServerToolResultBlock,
    ServerToolUseBlock,
    TextBlock,
    TextSource,
    ToolAdditionBlock,
    ToolDefinition,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from commonweight.messages.conversation import MessageParam
from commonweight.messages.request import MessageRequest
from commonweight.messages.tools import CustomTool, Tool
from commonweight.messages.wire import WireModel

PARAGRAPH = "\n\n"
MAX_JOINED, MAX_JOINED_CHARACTERS = 6, 4000
"""Turns of the user that are also scored as one text, the last ones."""

_READ_APART = (TextBlock, ImageBlock, DocumentBlock, SearchResultBlock, ToolResultBlock, CompactionBlock)
"""Blocks of a user's message that are segments of their own, or hold no words."""

DocumentTexts = Mapping[int, Sequence[str]]
"""Extracted texts of documents: pages or blocks, by the ``id()`` of their blocks."""


class Location(NamedTuple):
    """Where a verdict's evidence stands."""

    block: str | None
    """Path of the block, as the API names it. None: it cannot be told."""
    span: tuple[int, int] | None = None
    """Start and exclusive end in characters of the block's text as it was sent. None: it cannot be told."""
    tool: str | None = None
    """Name of the tool that it belongs to."""
    digest: str | None = None
    """Keyed digest of the text that was scored."""


class Part(NamedTuple):
    """One text of a request, with the path of its block or field."""

    path: str
    text: str


@dataclass(frozen=True)
class Segment:
    """Texts of a request that are scored together."""

    place: Place
    parts: tuple[Part, ...]
    tool: str | None = None
    """Name of the tool that is defined here, or whose result this is."""
    is_user: bool = False
    """Whether the user wrote it, now or in an earlier turn."""
    is_last_message: bool = False
    """Whether it is all in the last message that is not the assistant's: what states are read of as the user's."""

    @cached_property
    def text(self) -> str:
        """The texts of its parts as paragraphs."""
        return PARAGRAPH.join(part.text for part in self.parts)

    def locate(self, span: tuple[int, int]) -> Location:
        """Locate a span of the text: the part that holds most of it, and the characters there."""
        start, end = span
        starts = [0, *accumulate(len(part.text) + len(PARAGRAPH) for part in self.parts)][:-1]
        if not 0 <= start < end <= len(self.text):
            return Location(self.parts[0].path if len(self.parts) == 1 else None, None, self.tool)
        best, most = 0, (0, 0)
        for i in range(max(0, bisect_right(starts, start) - 1), len(self.parts)):
            if starts[i] >= end:
                break
            inside = max(start, starts[i]) - starts[i], min(end - starts[i], len(self.parts[i].text))
            if inside[1] - inside[0] > most[1] - most[0]:
                best, most = i, inside
        return Location(self.parts[best].path, most if most[0] < most[1] else None, self.tool)


def find_question(segments: Sequence[Segment]) -> str:
    """Find what the user asked last: in this turn or, while tools are at work, in an earlier one."""
    return next((one.text for one in reversed(segments) if one.is_user), "")


def list_last_turns(turns: Sequence[Segment]) -> list[Segment]:
    """List the last turns that a request may be split over: few, and not long."""
    found: list[Segment] = []
    left = MAX_JOINED_CHARACTERS
    for turn in reversed(turns[-MAX_JOINED:]):
        left -= len(turn.text)
        if left < 0:
            break
        found.append(turn)
    return found[::-1]


def extract_segments(
    request: MessageRequest, documents: DocumentTexts | None = None, closed: Collection[int] = ()
) -> tuple[Segment, ...]:
    """Extract the segments of a request, in its order.

    Args:
        documents: extracted texts of documents; without them, those that are texts already.
        closed: indices of the messages of closed exchanges, which are not screened.
    """
    tools = request.tools or []
    found = [segment for i, tool in enumerate(tools) for segment in _make_tool_segments(f"tools[{i}]", tool)]
    found += [
        Segment("system", (Part(f"system[{i}]", block.text),)) for i, block in enumerate(request.system or [])
    ]
    defined = {tool.name for tool in tools}
    names: dict[str, str] = {}
    last = _find_last_turn(request.messages)
    input_parts: list[Part] = []
    ending = max((i for i, one in enumerate(request.messages) if one.role != "assistant"), default=0)
    for i, message in enumerate(request.messages):
        for block in message.content:
            if isinstance(block, ToolUseBlock | ServerToolUseBlock):
                names[block.id] = block.name
        if i in closed:
            continue
        message_parts: list[Part] = []
        for j, block in enumerate(message.content):
            path = f"messages[{i}].content[{j}]"
            if message.role == "system" and isinstance(block, TextBlock):
                found.append(Segment("system", (Part(path, block.text),)))
            elif parts := _list_own_parts(block, path, message.role, defined):
                message_parts += parts
            else:
                found += _make_other_segments(block, path, names, documents or {})
        if message.role == "user" and i >= last:
            input_parts += message_parts
        elif message.role != "system":
            found.append(Segment("history", tuple(message_parts), is_user=message.role == "user"))
    is_last = all(part.path.startswith(f"messages[{ending}].") for part in input_parts)
    found.append(Segment("input", tuple(input_parts), is_user=True, is_last_message=is_last))
    return tuple(one for one in found if one.text.strip())


def _list_own_parts(block: WireModel, path: str, role: str, defined: Collection[str]) -> list[Part]:
    """The texts of a block that are read with those around it. ``defined``: tools whose names are read apart."""
    match block:
        case TextBlock(text=str(text)) | CompactionBlock(content=str(text)):
            return [Part(path, text)]
        case _ if role == "user" and not isinstance(block, _READ_APART):
            # It has no place in a user's message. A prompt holds its names and keys as well.
            fields = block.model_dump(mode="json", exclude={"type", "cache_control"}, exclude_none=True)
            return _make_parts(list_strings(path, fields))
        case ToolUseBlock() | ServerToolUseBlock():
            name = [Part(f"{path}.name", block.name)] if block.name not in defined else []
            return [*name, *_make_parts(list_strings(f"{path}.input", block.input))]
        case ContainerUploadBlock():
            return [Part(f"{path}.file_id", block.file_id)]
        case _:
            return []


def _find_last_turn(messages: Sequence[MessageParam]) -> int:
    """Index of the first message of the last turn that is the user's; a begun answer may follow it."""
    first = len(messages)
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].role == "user":
            first = i
        elif messages[i].role == "assistant" and first < len(messages):
            break
    return first


def _make_other_segments(
    block: WireModel, path: str, names: Mapping[str, str], documents: DocumentTexts
) -> Iterator[Segment]:
    match block:
        case ToolResultBlock():
            parts = [
                Part(f"{path}.content[{k}]", part.text)
                for k, part in enumerate(block.content)
                if isinstance(part, TextBlock)
            ]
            parts += [
                Part(f"{path}.content[{k}].tool_name", part.tool_name)
                for k, part in enumerate(block.content)
                if isinstance(part, ToolReferenceBlock)
            ]
            yield Segment("tool_result", tuple(parts), names.get(block.tool_use_id))
            for k, inner in enumerate(block.content):
                if isinstance(inner, DocumentBlock | SearchResultBlock):
                    yield Segment(
                        "document", tuple(_list_document_parts(inner, f"{path}.content[{k}]", documents))
                    )
        case ServerToolResultBlock():
            parts = _make_parts(list_strings(f"{path}.content", block.content))
            yield Segment("tool_result", tuple(parts), names.get(block.tool_use_id))
        case DocumentBlock() | SearchResultBlock():
            yield Segment("document", tuple(_list_document_parts(block, path, documents)))
        case ToolAdditionBlock(tool=ToolDefinition(definition=tool)):
            yield from _make_tool_segments(f"{path}.tool.definition", tool)
        case _:
            pass


def _list_document_parts(
    block: DocumentBlock | SearchResultBlock, path: str, documents: DocumentTexts
) -> Iterator[Part]:
    """The texts of a document or search result that the model is shown."""
    if block.title:
        yield Part(f"{path}.title", block.title)
    match block:
        case SearchResultBlock():
            yield Part(f"{path}.source", block.source)
            yield from (Part(f"{path}.content[{i}]", part.text) for i, part in enumerate(block.content))
            return
        case DocumentBlock(context=str(context)):
            yield Part(f"{path}.context", context)
        case _:
            pass
    match block.source:
        case TextSource(data=text):
            yield Part(path, text)
        case ContentSource(content=blocks):
            for i, part in enumerate(blocks):
                if isinstance(part, TextBlock):
                    yield Part(f"{path}.source.content[{i}]", part.text)
        case _:
            yield Part(path, "\n".join(documents.get(id(block), ())))


def _make_tool_segments(path: str, tool: Tool) -> list[Segment]:
    """The client's words in a tool's definition: of a published tool, those in its examples alone."""
    parts: list[Part] = []
    if isinstance(tool, CustomTool):
        parts.append(Part(f"{path}.name", tool.name))
        if tool.description:
            parts.append(Part(f"{path}.description", tool.description))
        parts += _make_parts(list_schema_texts(f"{path}.input_schema", tool.input_schema))
    parts += _make_parts(list_strings(f"{path}.input_examples", tool.input_examples or []))
    return [Segment("tools", tuple(parts), tool.name)] if parts else []


def _make_parts(texts: Iterable[JsonText]) -> list[Part]:
    return [Part(path, text) for path, text in texts]
