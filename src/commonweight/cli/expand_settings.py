"""Commands that take settings: expands each settings parameter to the options of its class.

A new option needs no change of a command: it is a field of the settings and an entry in ``setting_options``.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from commonweight.cli.setting_options import (
    ENGINE_OPTIONS,
    GUARD_OPTIONS,
    REMOTE_OPTIONS,
    SERVER_OPTIONS,
    EngineChoice,
)
from commonweight.engines.settings import EngineSettings
from commonweight.runtime.settings import GuardSettings, ServerSettings

OPTIONS: dict[type, dict[str, Any]] = {
    EngineSettings: ENGINE_OPTIONS,
    EngineChoice: REMOTE_OPTIONS,
    GuardSettings: GUARD_OPTIONS,
    ServerSettings: SERVER_OPTIONS,
}


@dataclass(frozen=True)
class OnlyFields:
    """Marks a settings parameter, in ``Annotated``: the command has only these of its options."""

    fields: tuple[str, ...]


def expand_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's settings parameters by their options. The decorator goes below typer's own."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, dict[str, str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind, fields = _read_annotation(parameter.annotation)
        if kind not in OPTIONS:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        defaults = kind()
        names = {field: f"{parameter.name}_{field}" for field in fields}
        groups[parameter.name] = kind, names
        for field, name in names.items():
            default = getattr(defaults, field)
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None if default == () else default,
                    annotation=OPTIONS[kind][field],
                )
            )

    @functools.wraps(command)
    def expanded(**values: Any) -> None:  # noqa: ANN401 - whatever the options hold
        for parameter, (kind, names) in groups.items():
            given = {field: values.pop(name) for field, name in names.items()}
            given = {field: value for field, value in given.items() if value is not None}
            values[parameter] = kind(
                **{field: tuple(value) if isinstance(value, list) else value for field, value in given.items()}
            )
        command(**values)

    # Typer reads these, and not the command's own.
    setattr(expanded, "__signature__", inspect.Signature(parameters))  # noqa: B010 - functions declare none
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del expanded.__wrapped__
    return expanded


def _read_annotation(annotation: Any) -> tuple[Any, tuple[str, ...]]:  # noqa: ANN401 - any type
    """Read the settings class that a parameter is annotated with, and the fields that are options."""
    if get_origin(annotation) is Annotated:
        kind, *marks = get_args(annotation)
        if only := next((mark for mark in marks if isinstance(mark, OnlyFields)), None):
            return kind, only.fields
        return annotation, ()
    try:
        return annotation, tuple(OPTIONS.get(annotation, ()))
    except TypeError:  # an annotation that cannot be hashed
        return annotation, ()
