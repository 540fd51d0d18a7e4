"""Problems of a recipe: what pydantic finds, as a line of the file, the path of the key, and plain words."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from commonweight.workshop.recipe.schema import REFERENCES

_WORDS: Mapping[str, str] = {
    "missing": "this key is missing",
    "extra_forbidden": "this key is unknown",
    "union_tag_not_found": "this key is missing",
    "int_type": "a whole number is wanted",
    "float_type": "a number is wanted",
    "finite_number": "a finite number is wanted",
    "bool_type": "true or false is wanted",
    "string_type": "text is wanted; quote it if it looks like a number, a date, yes or no",
    "tuple_type": "a list is wanted",
    "list_type": "a list is wanted",
    "dict_type": "keys with values are wanted",
    "model_type": "keys with values are wanted",
    "model_attributes_type": "keys with values are wanted",
    "date_from_datetime_parsing": "a date is wanted, such as 2026-12-31",
    "date_from_datetime_inexact": "a date is wanted, such as 2026-12-31",
    "date_type": "a date is wanted, such as 2026-12-31",
    "too_short": "at least one entry is wanted",
}
"""What is said instead of pydantic's words, by the type of the problem."""
_KEY = "[key]"
"""How pydantic marks a problem of a key itself."""


def list_problems(error: ValidationError, root: yaml.Node) -> Iterator[tuple[int, str]]:
    """Lines, and what is wrong there: the path of the key and a few words.

    Args:
        root: the file's content with its positions.
    """
    found = error.errors(include_url=False, include_input=False)
    places = [problem["loc"] for problem in found]
    for problem in found:
        if problem["type"] == REFERENCES:
            for location, words in problem["ctx"]["problems"]:
                yield _describe(root, list(location), words, is_key=False)
        elif problem["type"] == "too_short" and any(_is_below(place, problem["loc"]) for place in places):
            continue  # the entries are there, and wrong: each is named on its own
        else:
            yield _describe_problem(root, problem)


def _is_below(place: tuple[object, ...], above: tuple[object, ...]) -> bool:
    return len(place) > len(above) and place[: len(above)] == above


def _describe_problem(root: yaml.Node, problem: Any) -> tuple[int, str]:  # noqa: ANN401 - a dict of pydantic's
    kind, context = problem["type"], problem.get("ctx") or {}
    location = list(problem["loc"])
    if kind == "union_tag_invalid":
        discriminator = context["discriminator"].strip("'")
        words = f"{context['tag']!r} is none of {context['expected_tags'].replace(chr(39), '')}"
        return _describe(root, [*location, discriminator], words, is_key=False)
    if kind == "union_tag_not_found":
        location.append(context["discriminator"].strip("'"))
    is_missing = kind in ("missing", "union_tag_not_found")
    words = _WORDS.get(kind) or problem["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if kind == "string_pattern_mismatch":
        words = f"it must match {context['pattern']}"
    return _describe(
        root, location, words.rstrip("."), is_key=kind == "extra_forbidden", missing=location[-1:] * is_missing
    )


def _describe(
    root: yaml.Node,
    location: list[Any],
    words: str,
    *,
    is_key: bool,
    missing: list[Any] | None = None,
) -> tuple[int, str]:
    """The line and the words of a problem; the tags of unions, which pydantic puts between, are left out."""
    node, path = root, list[str]()
    names = [part for part in location if part != _KEY]
    is_key = is_key or _KEY in location
    steps = names[: len(names) - len(missing or [])]
    for number, part in enumerate(steps):
        child = _find_child(node, part)
        if child is None:
            continue
        key, value = child
        path.append(str(part))
        node = key if is_key and number == len(steps) - 1 and key is not None else value
    path += [str(part) for part in missing or []]
    return node.start_mark.line + 1, f"{'.'.join(path)}: {words}" if path else words


def _find_child(node: yaml.Node, part: object) -> tuple[yaml.Node | None, yaml.Node] | None:
    """The node of a key, and that of its value; of an entry of a list, only the entry's."""
    if isinstance(node, yaml.MappingNode):
        names = {part, *_SPELLINGS.get(part, ())}
        return next(((key, value) for key, value in node.value if key.value in names), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None


_SPELLINGS: Mapping[object, tuple[str, ...]] = {
    "generated-prompts": ("generated_prompts",),
    "share-alike": ("share_alike",),
}
"""Keys that may be written otherwise than problems name them."""
