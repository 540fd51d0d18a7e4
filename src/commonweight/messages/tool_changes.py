"""Tools of a conversation: which are declared, and what its messages change about them.

``tool_addition`` and ``tool_removal`` in system messages add and remove tools from there on, and a
``tool_reference`` in a tool's result loads a deferred one. A tool that was removed comes back by an addition only.

Source: https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from commonweight.messages.content import (
    ToolAdditionBlock,
    ToolDefinition,
    ToolName,
    ToolReferenceBlock,
    ToolRemovalBlock,
    walk,
)
from commonweight.messages.conversation import MessageParam
from commonweight.messages.tools import NamedToolChoice, Tool, ToolChoice
from commonweight.messages.wire import make_validation_error

_Reference = ToolAdditionBlock | ToolRemovalBlock | ToolReferenceBlock


@dataclass(frozen=True)
class ToolChange:
    """What a block changes: from there on a tool may be called, or must not be."""

    tool: Tool
    is_added: bool
    is_first: bool = False
    """No tool could be called before."""


class ConversationTools:
    """The tools of a conversation, after all of its messages.

    Raises:
        PydanticCustomError: a message defines a tool with the name of another kind of tool.
    """

    def __init__(self, declared: Sequence[Tool], messages: Sequence[MessageParam]) -> None:
        self.known: dict[str, Tool] = {tool.name: tool for tool in declared}
        """By name: those of ``tools``, and those that messages define, in their latest definition."""
        self._callable = {tool.name for tool in declared if not tool.defer_loading}
        self._removed: dict[str, str] = {}
        """The names of removed tools, with the places of the blocks."""
        self._had_tools = bool(self._callable)
        self._changes: dict[int, ToolChange] = {}
        self._unknown: list[tuple[str, _Reference, str]] = []
        """References to tools that are not known there: place, block and name."""
        for i, message in enumerate(messages):
            for where, block in walk(message.content, f"messages.{i}.content"):
                match block:
                    case ToolAdditionBlock(tool=ToolDefinition(definition=tool)):
                        self._define(block, where, tool)
                    case (
                        ToolAdditionBlock(tool=ToolName(name=name))
                        | ToolRemovalBlock(tool=ToolName(name=name))
                        | ToolReferenceBlock(tool_name=name)
                    ):
                        self._refer(block, where, name)
                    case _:
                        pass

    @property
    def callable(self) -> dict[str, Tool]:
        """Those that may be called now, by name: neither deferred nor removed."""
        return {name: tool for name, tool in self.known.items() if name in self._callable}

    def find_change(self, block: object) -> ToolChange | None:
        """What a block of the messages changes. None: nothing, or it names a tool that is not known there."""
        return self._changes.get(id(block))

    def check_changes(self) -> None:
        """Refuse additions and removals of tools that are defined nowhere before them."""
        for where, block, name in self._unknown:
            if not isinstance(block, ToolReferenceBlock):
                raise make_validation_error(
                    f"{where}: {block.type} references tool '{name}', which is not defined before it",
                    error_code="tool_reference_unresolved",
                )

    def check_references(self) -> None:
        """Refuse a ``tool_reference`` to a tool that is defined nowhere before it."""
        for where, block, name in self._unknown:
            if isinstance(block, ToolReferenceBlock):
                raise make_validation_error(f"{where}: Tool reference '{name}' not found in available tools")

    def check_choice(self, choice: ToolChoice | None) -> None:
        """Refuse a choice that no tool fits."""
        if isinstance(choice, NamedToolChoice):
            place = self._removed.get(choice.name)
            if place is not None or choice.name not in self.known:
                reason = f": {place} removed it" if place else ""
                raise make_validation_error(f"Tool '{choice.name}' not found in provided tools{reason}")
        elif choice is not None and choice.type == "any" and not self._callable:
            raise make_validation_error("tool_choice.any may only be specified while providing tools")

    def _define(self, block: ToolAdditionBlock, where: str, tool: Tool) -> None:
        earlier = self.known.get(tool.name)
        if earlier is not None and _read_kind(earlier) != _read_kind(tool):
            raise make_validation_error(
                f"{where}.tool.definition.name: '{tool.name}' is already used by a {earlier.type} tool",
                error_code="tool_name_conflict",
            )
        is_same = earlier is not None and _write(earlier) == _write(tool)
        self.known[tool.name] = tool
        if not tool.defer_loading:
            self._add(block, tool, is_new=not is_same)
        elif not is_same:
            self._remove(block, tool)
        self._removed.pop(tool.name, None)

    def _refer(self, block: _Reference, where: str, name: str) -> None:
        tool = self.known.get(name)
        if tool is None:
            self._unknown.append((where, block, name))
            return
        match block:
            case ToolAdditionBlock():
                self._add(block, tool, is_new=False)
                self._removed.pop(name, None)
            case ToolRemovalBlock():
                self._remove(block, tool)
                self._removed[name] = where
            case ToolReferenceBlock() if name in self._removed:
                self._changes[id(block)] = ToolChange(tool, is_added=False)
            case ToolReferenceBlock():
                self._add(block, tool, is_new=True)

    def _add(self, block: object, tool: Tool, *, is_new: bool) -> None:
        """``is_new``: the model has not seen the definition."""
        if is_new or tool.name not in self._callable:
            self._changes[id(block)] = ToolChange(tool, is_added=True, is_first=not self._had_tools)
        self._callable.add(tool.name)
        self._had_tools = True

    def _remove(self, block: object, tool: Tool) -> None:
        if tool.name in self._callable:
            self._changes[id(block)] = ToolChange(tool, is_added=False)
        self._callable.discard(tool.name)


def _read_kind(tool: Tool) -> str:
    """The tool's type without its version."""
    return re.sub(r"_\d{8}$", "", tool.type)


def _write(tool: Tool) -> str:
    """The definition, to be compared with another one."""
    return json.dumps(tool.model_dump(exclude={"cache_control"}, exclude_none=True))
