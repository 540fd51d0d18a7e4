"""YAML parser for settings: a safe subset, with the line of every problem."""

import json
from collections.abc import Iterator
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from commonweight.charter.outline import OutlineBlock
from commonweight.charter.problems import Problem

SettingsT = TypeVar("SettingsT", bound=BaseModel)
MAX_DEPTH = 16
_WORDS = {
    "extra_forbidden": "is not known here",
    "missing": "is missing",
}


class _Loader(yaml.SafeLoader):
    """Safe loader without YAML's booleans: ``mode: off`` is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_settings(block: OutlineBlock, model: type[SettingsT]) -> SettingsT | list[Problem]:
    """The validated settings, or their problems."""
    source = "\n".join(block.lines)
    try:
        # Aliases make exponential documents out of small ones, and brackets in brackets take quadratic time.
        depth = 0
        for event in yaml.parse(source, _Loader):
            if isinstance(event, yaml.AliasEvent):
                return [
                    Problem(block.line + _get_row(event.start_mark), "aliases (*name) are not used in charters")
                ]
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                return [Problem(block.line + _get_row(event.start_mark), "the settings are nested too deeply")]
        node = yaml.compose(source, _Loader)
        if not isinstance(node, yaml.MappingNode):
            return [Problem(block.line, "settings are lines of `name: value`")]
        if twice := [
            Problem(block.line + key.start_mark.line, f"{key.value}: given twice") for key in _find_repeated(node)
        ]:
            return twice
        values = yaml.load(source, _Loader)
    except yaml.MarkedYAMLError as error:
        at = _get_row(error.problem_mark or error.context_mark)
        return [Problem(block.line + at, f"this is no YAML: {error.problem}")]
    except (yaml.YAMLError, ValueError) as error:
        return [Problem(block.line, f"this is no YAML: {error}")]
    try:
        # By JSON's rules lists become tuples and sets, and still no number becomes a text.
        return model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        return [
            Problem(
                block.line + _find_line(node, problem["loc"]),
                f"{'.'.join(str(part) for part in problem['loc'] if part != '[key]')}: "
                + _WORDS.get(problem["type"], problem["msg"][:1].lower() + problem["msg"][1:]),
            )
            for problem in error.errors(include_url=False)
        ]


def _get_row(mark: object) -> int:
    # Marks have a class in Python and one in C, which no annotation covers.
    return int(getattr(mark, "line", 0))


def _find_repeated(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _find_repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _find_repeated(value)


def _find_line(node: yaml.Node, path: tuple[int | str, ...]) -> int:
    """The line, from 0, that the path leads to, or as far as it does."""
    line = node.start_mark.line
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
    return line
