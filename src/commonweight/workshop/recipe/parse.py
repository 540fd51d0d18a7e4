"""Reading a recipe file: YAML to a checked recipe, with the line of every problem."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from commonweight.workshop.recipe.problems import list_problems
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import RecipeError

MAX_RECIPE_BYTES = 2**20
_MAX_PROBLEMS = 20


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: it cannot be read, or is no recipe; one line a problem, with file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}.") from error
    if len(data) > MAX_RECIPE_BYTES:
        raise RecipeError(f"{path} has {len(data)} bytes; a recipe has at most {MAX_RECIPE_BYTES}.")
    return parse_recipe(data, str(path))


def parse_recipe(data: bytes, name: str) -> Recipe:
    """Check the text of a recipe.

    Args:
        name: what problems call the file.

    Raises:
        RecipeError: it is no recipe.
    """
    try:
        text = data.decode("utf-8-sig")
        loader = _RecipeLoader(text)
        try:
            node = loader.get_single_node()
            content = loader.construct_document(node) if isinstance(node, yaml.MappingNode) else None
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{name}:{line}: this is not UTF-8.") from error
    except RecursionError as error:
        raise RecipeError(f"{name} is nested too deeply.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{name}:{line}: {_CLEARER.get(str(error.problem), error.problem)}.") from error
    except yaml.reader.ReaderError as error:
        # Its position counts characters, of which the loader counts none while it checks them.
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(f"{name}:{line}: the character U+{error.character:04X} is not allowed.") from error
    if node is None or content is None:
        raise RecipeError(f"{name}:1: a recipe is a mapping, which begins with `name:`.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = sorted(set(list_problems(error, node)))
        left_out = len(problems) - _MAX_PROBLEMS
        lines = [f"{name}:{line}: {words}" for line, words in problems[:_MAX_PROBLEMS]]
        raise RecipeError("\n".join([*lines, f"{left_out} more problems."] if left_out > 0 else lines)) from error


class _RecipeLoader(yaml.SafeLoader):
    """The safe loader, without keys that stand twice or are no text, and without anchors.

    Anchors that repeat each other grow without bound when they are read; a recipe has no use for them. Numbers are
    those of YAML 1.2, as editors have it: ``1e-3`` is one, and what version 1.1 takes for octal digits (``010``)
    or for minutes (``1:30``) is refused.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != _TEXT:
                raise _make_error("a key is text here; quote it if it is a number, a date, yes or no", key)
            if key.value in seen:
                raise _make_error(f"the key {key.value!r} stands here a second time", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - any value of YAML
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and _OLD_NUMBER.match(node.value):
            raise _make_error(
                "write a number in decimal digits without a zero before it; quote it if it is text", node
            )
        try:
            value = super().construct_object(node, deep)
        except ValueError as error:
            raise _make_error("this is no number or date that can be read", node) from error
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise _make_error("this holds half a character (a surrogate)", node)
        return value

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not used here", event.start_mark
            )
        return super().compose_node(parent, index)


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)

_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_OLD_NUMBER = re.compile(r"[-+]?(?:0[0-9_]|[0-9_]+:)")
"""Octal without ``o``, and sexagesimal: numbers of YAML 1.1 that are text or others in 1.2."""
_CLEARER = {
    "found character '\\t' that cannot start any token": "a tab stands here; YAML is indented with spaces",
    "but found another document": "a second document begins here; a recipe is one",
}
"""What is said instead of some of the reader's own words."""


def _make_error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
