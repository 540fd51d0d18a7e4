"""Reading a recipe file: YAML to a checked recipe, with the line of every problem."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from commonweight.workshop.recipe.schema import Recipe, RecipeError

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
        text = data.decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{name} is not UTF-8.") from error
    except RecursionError as error:
        raise RecipeError(f"{name} is nested too deeply.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{name}:{line}: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{name} is not YAML: {error}.") from error
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{name}:1: a recipe is a mapping, which begins with `name:`.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = [
            _describe(problem, node, name) for problem in error.errors(include_url=False, include_input=False)
        ]
        raise RecipeError("\n".join(dict.fromkeys(problems[:_MAX_PROBLEMS]))) from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice and an anchor that is used too often."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands here a second time", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Anchors that repeat each other grow without bound when they are read; a recipe has no use for them.
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not used here", event.start_mark
            )
        return super().compose_node(parent, index)


def _describe(problem: Any, root: yaml.Node, name: str) -> str:  # noqa: ANN401 - a dict of pydantic's
    location = [part for part in problem["loc"] if part != "__root__"]
    node, path = root, list[str]()
    for part in location:
        child = _find_child(node, part)
        if child is None:
            # The tag of a union, which pydantic puts between, or a key that is missing: the line is its parent's.
            continue
        node = child
        path.append(str(part))
    if problem["type"] == "missing":
        path.append(str(location[-1]))
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "this key is unknown"
        node = _find_key(root, location) or node
    where = ".".join(path)
    line = node.start_mark.line + 1
    return f"{name}:{line}: {where + ': ' if where else ''}{message}"


def _find_child(node: yaml.Node, part: object) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child if isinstance(child, yaml.Node) else None
    return None


def _find_key(root: yaml.Node, location: list[object]) -> yaml.Node | None:
    node: yaml.Node = root
    for part in location[:-1]:
        node = _find_child(node, part) or node
    if isinstance(node, yaml.MappingNode):
        found = next((key for key, _ in node.value if key.value == location[-1]), None)
        return found if isinstance(found, yaml.Node) else None
    return None
