"""Types of a recipe's values: every field of the schema takes its own type, and none that could be made one."""

from collections.abc import Iterator
from datetime import date
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, JsonValue, ValidationError

from commonweight.workshop.recipe.schema import Recipe

Path = tuple[str, ...]
"""How a scalar lies in a field's value: in a list or under a key."""

WRONG: dict[type, list[tuple[Any, str]]] = {
    int: [(True, "int_type"), (1000.0, "int_type"), ("1000", "int_type"), (b"1000", "int_type")],
    float: [(True, "float_type"), ("0.9", "float_type"), (b"0.9", "float_type"), (float("inf"), "finite_number")],
    bool: [(1, "bool_type"), (0, "bool_type"), (1.0, "bool_type"), ("yes", "bool_type"), ("true", "bool_type")],
    str: [(True, "string_type"), (1, "string_type"), (1.5, "string_type"), (b"a", "string_type")],
    date: [(True, "value_error"), (1798675200, "value_error"), (1798675200.0, "value_error")],
}
"""Values that pydantic would take for each type if it were not strict, and some that it refuses in any case."""


def list_models(kind: object, seen: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """All models that stand in a type, by name."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ not in seen:
        seen[kind.__name__] = kind
        for field in kind.model_fields.values():
            list_models(field.annotation, seen)
    for part in get_args(kind):
        list_models(part, seen)
    return seen


def list_scalars(kind: Any) -> Iterator[tuple[type, Path]]:
    """The scalars of a field's type, and where in its value each of them lies."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from list_scalars(parts[0])
    elif origin in (Union, UnionType):
        for part in parts:
            yield from list_scalars(part)
    elif origin is tuple:
        assert parts[1:] == (Ellipsis,)
        yield from ((scalar, ("list", *path)) for scalar, path in list_scalars(parts[0]))
    elif origin is dict:
        yield from ((scalar, ("key", *path)) for scalar, path in list_scalars(parts[1]))
    elif origin is Literal:
        assert all(type(value) is str for value in parts)  # compared, not converted
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        return  # a model of its own
    elif kind is not NoneType and kind is not JsonValue:  # fields of a library, which knows their types
        assert kind in WRONG, f"the test knows no wrong values for {kind}"
        yield kind, ()


FIELDS = [
    (model, name, scalar, path)
    for model in list_models(Recipe, {}).values()
    for name, field in model.model_fields.items()
    for scalar, path in list_scalars(field.annotation)
]


def test_the_fields_are_all_there() -> None:
    assert len(FIELDS) > 120
    models = {model.__name__ for model, *_ in FIELDS}
    assert models >= {"Recipe", "PretrainStage", "KlBounds", "RefusalSettings", "GroupSettings", "Waiver"}
    assert (*FIELDS[0][:2], str, ()) == FIELDS[0]
    assert {scalar for _, _, scalar, _ in FIELDS} == set(WRONG)
    assert {path for *_, path in FIELDS} == {(), ("list",), ("key",)}


@pytest.mark.parametrize(
    ("model", "name", "scalar", "path"), FIELDS, ids=[f"{model.__name__}.{name}" for model, name, *_ in FIELDS]
)
def test_a_field_takes_its_type_only(model: type[BaseModel], name: str, scalar: type, path: Path) -> None:
    key = model.model_fields[name].alias or name
    for value, problem in WRONG[scalar]:
        wrapped = value
        for step in reversed(path):
            wrapped = [wrapped] if step == "list" else {"text": wrapped}
        try:
            # A licence, without which a source is refused before its types are looked at.
            model.model_validate({"licence": "MIT", key: wrapped})
        except ValidationError as error:
            found = [one["type"] for one in error.errors() if one["loc"][0:1] == (key,)]
        else:
            found = []
        assert problem in found, f"{value!r} is taken for {scalar.__name__}"
