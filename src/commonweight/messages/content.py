"""Wire models of content blocks in requests, including those of earlier answers.

Source: the Messages API's documented content blocks. A plain string stands for one text block everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, FailFast, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from commonweight.messages.caching import Cacheable
from commonweight.messages.tools import Tool, check_deferred, is_server_tool
from commonweight.messages.wire import WireModel, make_validation_error


def _as_blocks(value: object) -> object:
    """Agents alternate between ``"x"`` and one text block for the same turn; here they are one thing."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class _StringForm:
    """Annotation of lists of blocks: a string stands for one text block."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return core_schema.no_info_before_validator_function(_as_blocks, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


class Block(Cacheable):
    """Common fields of content blocks."""


class TextBlock(Block):
    """Plain text."""

    type: Literal["text"]
    text: str
    citations: list[dict[str, Any]] | None = None


class Base64Source(WireModel):
    """Inline data, in Base64."""

    type: Literal["base64"]
    media_type: str
    data: str


class Base64Image(Base64Source):
    """Inline image."""

    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]


class Base64Pdf(Base64Source):
    """Inline PDF."""

    media_type: Literal["application/pdf"]


class UrlSource(WireModel):
    """URL of an image or document, which this server never fetches."""

    type: Literal["url"]
    url: str


class FileSource(WireModel):
    """Reference to an uploaded file."""

    type: Literal["file"]
    file_id: str


class TextSource(WireModel):
    """Inline plain text."""

    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str


class ContentSource(WireModel):
    """Inline document of content blocks."""

    type: Literal["content"]
    content: Annotated[list[Annotated["TextBlock | ImageBlock", Field(discriminator="type")]], _StringForm()]


class ImageBlock(Block):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Image | UrlSource | FileSource, Field(discriminator="type")]


class CitationsConfig(WireModel):
    """Switch for citations of this block."""

    enabled: bool = False


class DocumentBlock(Block):
    """A document: text, blocks or PDF."""

    type: Literal["document"]
    source: Annotated[Base64Pdf | TextSource | ContentSource | UrlSource | FileSource, Field(discriminator="type")]
    title: str | None = None
    context: str | None = None
    citations: CitationsConfig | None = None


class SearchResultBlock(Block):
    """Search result of the client's own search."""

    type: Literal["search_result"]
    source: str
    title: str
    content: list[TextBlock]
    citations: CitationsConfig | None = None


class ToolReferenceBlock(Block):
    """Reference to a deferred tool, whose definition is inserted here."""

    type: Literal["tool_reference"]
    tool_name: str


class BrowserStateBlock(Block):
    """State of a browser tool, without any fields that this server reads."""

    type: Literal["browser_state"]


class ToolUseBlock(Block):
    """Call of a client tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


ToolResultContent = Annotated[
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock | BrowserStateBlock,
    Field(discriminator="type"),
]


class ToolResultBlock(Block):
    """Result of a client tool."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[list[ToolResultContent], _StringForm()] = Field(default_factory=list)
    is_error: bool | None = None


class ThinkingBlock(WireModel):
    """Reasoning of an earlier turn, with the server's signature."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class RedactedThinkingBlock(WireModel):
    """Encrypted reasoning of an earlier turn."""

    type: Literal["redacted_thinking"]
    data: str


class ServerToolUseBlock(Block):
    """Call of a server tool."""

    type: Literal["server_tool_use", "mcp_tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    server_name: str | None = None


class ServerToolResultBlock(Block):
    """Result of a server tool; its content differs by tool and is not validated."""

    type: Literal[
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_result",
        "advisor_tool_result",
    ]
    tool_use_id: str
    content: Any = None
    is_error: bool | None = None


class McpToolListingBlock(Block):
    """The tools that an MCP server offered in an earlier turn."""

    type: Literal["mcp_tool_listing"]
    mcp_server_name: str
    tools: list[dict[str, Any]]


class CompactionBlock(Block):
    """A summary that stands for everything before it."""

    type: Literal["compaction"]
    content: str | None = None
    encrypted_content: str | None = None


class FallbackBlock(Block):
    """Mark that another model continued; not part of the prompt."""

    type: Literal["fallback"]


class ContainerUploadBlock(Block):
    """A file for a code-execution container."""

    type: Literal["container_upload"]
    file_id: str


class ToolName(WireModel):
    """A tool by its name: one of ``tools``, or one that an earlier message defined."""

    type: Literal["tool_reference"]
    name: str


def _refuse_server_tool(definition: object) -> object:
    if isinstance(definition, dict) and is_server_tool(definition.get("type")):
        raise make_validation_error(f"{definition['type']} cannot yet be defined in a message")
    return definition


class ToolDefinition(WireModel):
    """A tool by value: an entry of ``tools``."""

    type: Literal["tool_definition"]
    definition: Annotated[Tool, BeforeValidator(_refuse_server_tool)]


def _refuse_mcp(tool: object) -> object:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind in ("mcp_tool_reference", "mcp_toolset_reference"):
        # There is no connector, so whatever it names is defined nowhere.
        raise make_validation_error(
            f"{kind} is not supported by this server", error_code="tool_reference_unresolved"
        )
    return tool


class ToolAdditionBlock(Block):
    """From here on a tool may be called: one that was deferred or removed, or one that is defined here."""

    type: Literal["tool_addition"]
    tool: Annotated[ToolName | ToolDefinition, Field(discriminator="type"), BeforeValidator(_refuse_mcp)]

    @model_validator(mode="after")
    def _move_mark(self) -> "ToolAdditionBlock":
        """A breakpoint in the definition is the block's own."""
        if isinstance(self.tool, ToolDefinition):
            definition = self.tool.definition
            check_deferred(definition)
            if self.cache_control is not None and definition.cache_control is not None:
                raise make_validation_error("cache_control goes on the block or in its definition, not on both")
            self.cache_control, definition.cache_control = self.cache_control or definition.cache_control, None
        return self


class ToolRemovalBlock(Block):
    """From here on a tool must not be called."""

    type: Literal["tool_removal"]
    tool: Annotated[ToolName, BeforeValidator(_refuse_mcp)]


ContentBlock = Annotated[
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ServerToolUseBlock
    | ServerToolResultBlock
    | McpToolListingBlock
    | CompactionBlock
    | FallbackBlock
    | ContainerUploadBlock
    | ToolReferenceBlock
    | ToolAdditionBlock
    | ToolRemovalBlock,
    Field(discriminator="type"),
]

Content = Annotated[list[ContentBlock], FailFast(), _StringForm()]
"""Blocks, or a string that stands for one text block."""

TextContent = Annotated[list[TextBlock], _StringForm()]
"""Text blocks, or a string that stands for one."""


def walk(blocks: Sequence[WireModel], where: str) -> Iterator[tuple[str, WireModel]]:
    """Every block, those inside of others too, with its place as errors name it: ``messages.0.content.1``.

    They come in the order in which they end in the prompt, so a block follows what is inside of it.
    """
    for i, block in enumerate(blocks):
        match block:
            case ToolResultBlock():
                yield from walk(block.content, f"{where}.{i}.tool_result.content")
            case SearchResultBlock():
                yield from walk(block.content, f"{where}.{i}.search_result.content")
            case DocumentBlock(source=ContentSource(content=inner)):
                yield from walk(inner, f"{where}.{i}.document.source.content")
            case _:
                pass
        yield f"{where}.{i}", block
