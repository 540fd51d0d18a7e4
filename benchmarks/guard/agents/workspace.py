"""The workspace of an agent, which is a package, and an agent's conversation with calls of tools."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from benchmarks.guard.agents.texts import Package, TextsError, cut_text

MOST_RESULT = 2000
"""Characters of a tool's result, cut at the end of a line: nine of them fit into a window of 8,192 tokens."""
_MODULE_CHARACTERS = range(1500, 40_000)
_FUNCTION_LINES = range(4, 40)


@dataclass(frozen=True)
class Function:
    """A function in a module of the workspace."""

    path: str
    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Workspace:
    """The files of a package, which an agent works on."""

    package: Package
    files: Mapping[str, str]

    @cached_property
    def functions(self) -> Mapping[str, tuple[Function, ...]]:
        """By module, the functions of a few lines; of modules that have two or more."""
        found = {}
        for path in sorted(self.files):
            if path.endswith(".py") and len(self.files[path]) in _MODULE_CHARACTERS:
                functions = _list_functions(path, self.files[path])
                if len(functions) > 1:
                    found[path] = functions
        return found

    def pick(self, draw: Random) -> tuple[Function, Function]:
        """Pick two functions of a module.

        Raises:
            TextsError: no module has two.
        """
        if not self.functions:
            raise TextsError(f"{self.package.file} has no module with two functions of a few lines.")
        one, other = draw.sample(self.functions[draw.choice(list(self.functions))], 2)
        return one, other

    @cached_property
    def readme(self) -> str:
        """The description in the package's metadata."""
        return self._metadata.partition("\n\n")[2].strip() or self._metadata

    @cached_property
    def summary(self) -> str:
        """The package in a line, as its metadata has it."""
        lines = [line for line in self._metadata.split("\n") if line.startswith("Summary: ")]
        return lines[0].removeprefix("Summary: ") if lines else self.package.name

    @cached_property
    def _metadata(self) -> str:
        for path in sorted(self.files):
            if path.endswith(".dist-info/METADATA"):
                return self.files[path]
        raise TextsError(f"{self.package.file} has no metadata.")

    def read(self, path: str, first: int = 1) -> str:
        """Read a file from a line on, with line numbers."""
        return shorten(cut_text(self.files, path, f"{first}-{first + 200}", "numbered"))

    def list_files(self, folder: str) -> str:
        """List the files of a folder with their sizes."""
        return shorten(cut_text(self.files, folder, "", "list"))

    def search(self, word: str, folder: str = "") -> str:
        """Search for a word in the files of a folder."""
        return shorten(cut_text(self.files, folder, "", f"grep:{word}")) or "nothing found"

    def cut(self, function: Function) -> str:
        """The lines of a function."""
        return cut_text(self.files, function.path, f"{function.first}-{function.last}", "file")


class Conversation:
    """An agent's conversation, written down as a client has it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._calls = 0

    def ask(self, text: str) -> None:
        """The user says something."""
        self._add("user", text)

    def say(self, text: str) -> None:
        """The agent says something."""
        self._add("assistant", text)

    def call(self, tool: str, arguments: Mapping[str, str | int], result: str, said: str = "") -> None:
        """The agent calls a tool, perhaps after a word on it, and gets the result."""
        self._calls += 1
        call = {"type": "tool_use", "id": f"toolu_{self._calls:02}", "name": tool, "input": dict(arguments)}
        self._add("assistant", [*([{"type": "text", "text": said}] if said else []), call])
        self._add("user", [{"type": "tool_result", "tool_use_id": call["id"], "content": result}])

    def _add(self, role: str, content: str | Sequence[Mapping[str, Any]]) -> None:
        self.messages.append({"role": role, "content": content})


def shorten(text: str) -> str:
    """Cut a text at the end of a line, if it is longer than results are."""
    if len(text) <= MOST_RESULT:
        return text
    kept = text[: text.rfind("\n", 0, MOST_RESULT)] if "\n" in text[:MOST_RESULT] else text[:MOST_RESULT]
    return f"{kept}\n[{len(text) - len(kept)} more characters]"


def _list_functions(path: str, source: str) -> tuple[Function, ...]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ()
    found = [
        Function(path, node.name, node.lineno, node.end_lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno in _FUNCTION_LINES
        and not node.name.startswith("__")
    ]
    return tuple(sorted(found, key=lambda one: one.first))
