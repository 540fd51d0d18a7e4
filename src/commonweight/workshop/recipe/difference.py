"""Differences between two recipes, or between the outputs of two builds: parameters, inputs, tools, results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from commonweight.lineage.graph import read_graph
from commonweight.workshop.recipe.parse import read_recipe


def compare_builds(before: Path, after: Path) -> list[str]:
    """Compare two recipe files, or two build folders.

    Returns:
        One line a difference: where, what it was, what it is.

    Raises:
        RecipeError, LineageError: one of them is neither.
    """
    return list(_compare("", _read(before), _read(after)))


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        records = read_graph(path).records.values()
        return {record.name: record.model_dump(mode="json", exclude={"version", "name"}) for record in records}
    return read_recipe(path).model_dump(mode="json", by_alias=True)


def _compare(where: str, before: Any, after: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            place = f"{where}.{key}" if where else str(key)
            if key not in after:
                yield f"{place}: {_shorten(before[key])} -> (absent)"
            elif key not in before:
                yield f"{place}: (absent) -> {_shorten(after[key])}"
            else:
                yield from _compare(place, before[key], after[key])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _compare(f"{where}[{index}]", one, other)
    elif before != after:
        yield f"{where}: {_shorten(before)} -> {_shorten(after)}"


def _shorten(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
