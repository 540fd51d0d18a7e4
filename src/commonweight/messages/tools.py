"""Wire models of tools and ``tool_choice``, with their validation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from commonweight.messages.caching import Cacheable
from commonweight.messages.published_tools import PUBLISHED_TOOLS
from commonweight.messages.wire import Count, WireModel, make_validation_error

_UNSUPPORTED_PREFIXES = (
    *("web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_", "mcp_toolset"),
    *("computer_", "browser_toolset_"),
)
"""Prefixes of the types of server tools, which this server does not implement."""


class BaseTool(Cacheable):
    """Common fields of tools. All kinds have ``type``, ``name``, ``description`` and ``input_schema``."""

    name: str
    defer_loading: bool | None = None
    """Its definition stays out of the prompt until a ``tool_reference`` or ``tool_addition`` names it."""
    strict: bool | None = None
    """Its input must match the schema."""
    input_examples: list[dict[str, Any]] | None = None
    allowed_callers: list[str] | None = None


def _check_object_schema(schema: dict[str, Any]) -> dict[str, Any]:
    if "type" not in schema:
        raise make_validation_error("Field required", field="type")
    if schema["type"] != "object":
        raise make_validation_error("Input should be 'object'", field="type")
    return schema


class CustomTool(BaseTool):
    """Tool defined by the client."""

    type: Literal["custom"]
    # The documentation says 64 characters, but agents prefix names with those of their MCP servers.
    name: str = Field(pattern="^[a-zA-Z0-9_-]{1,128}$")
    description: str | None = None
    input_schema: Annotated[dict[str, Any], AfterValidator(_check_object_schema)]
    eager_input_streaming: bool | None = None


class PublishedTool(BaseTool):
    """Tool defined by the API and run by the client."""

    type: str

    @property
    def description(self) -> str:
        """The tool's description."""
        return PUBLISHED_TOOLS[self.type].description

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the tool's input."""
        return PUBLISHED_TOOLS[self.type].input_schema


class BashTool(PublishedTool):
    """Bash tool."""

    type: Literal["bash_20241022", "bash_20250124"]
    name: Literal["bash"]


class TextEditorTool(PublishedTool):
    """Text editor tool; views show at most ``max_characters``."""

    type: Literal["text_editor_20250429", "text_editor_20250728"]
    name: Literal["str_replace_based_edit_tool"]
    max_characters: Count | None = None


class UndoingTextEditorTool(PublishedTool):
    """Text editor tool with ``undo_edit``."""

    type: Literal["text_editor_20241022", "text_editor_20250124"]
    name: Literal["str_replace_editor"]


class MemoryTool(PublishedTool):
    """Memory tool: notes in files that outlast the conversation."""

    type: Literal["memory_20250818"]
    name: Literal["memory"]


def is_server_tool(kind: object) -> bool:
    """Whether a tool's type is one that this server does not implement."""
    return isinstance(kind, str) and kind.startswith(_UNSUPPORTED_PREFIXES)


def _add_type(tool: object) -> object:
    """Add the type ``custom`` where it is left out; refuse unsupported types."""
    if not isinstance(tool, dict):
        return tool
    kind = tool.get("type")
    if is_server_tool(kind):
        raise make_validation_error(f"{kind} is not supported by this server")
    return tool if kind is not None else {**tool, "type": "custom"}


Tool = Annotated[
    CustomTool | BashTool | TextEditorTool | UndoingTextEditorTool | MemoryTool,
    Field(discriminator="type"),
    BeforeValidator(_add_type),
]


class FreeToolChoice(WireModel):
    """Choice among all tools: ``auto``, ``any`` or ``none``."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedToolChoice(WireModel):
    """Choice of one tool, which must be called."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


ToolChoice = Annotated[FreeToolChoice | NamedToolChoice, Field(discriminator="type")]


def check_tools(tools: Sequence[BaseTool], *, has_additions: bool) -> None:
    """Refuse repeated names, and tools that are all deferred where none is added by the messages."""
    if len({tool.name for tool in tools}) < len(tools):
        raise make_validation_error("tools: Tool names must be unique.")
    for tool in tools:
        check_deferred(tool)
    if tools and all(tool.defer_loading for tool in tools) and not has_additions:
        raise make_validation_error("All tools have defer_loading set. At least one tool must be non-deferred.")


def check_deferred(tool: BaseTool) -> None:
    """Refuse a deferred tool with a cache breakpoint."""
    if tool.defer_loading and tool.cache_control is not None:
        raise make_validation_error(
            f"Tool '{tool.name}' cannot have both defer_loading=true and cache_control set. "
            "Tools with defer_loading cannot use prompt caching."
        )
