"""Schemas of ``output_config.format``: objects in them are closed, as the API requires and SDKs send them."""

from typing import Any

ALLOW_OTHERS = frozenset({"additionalProperties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf"})
"""Keywords by which an object may have properties that it does not name."""
_SCHEMA_MAPS = frozenset({"properties", "$defs", "definitions"})
_SCHEMAS = frozenset({"items", "prefixItems", "anyOf", "oneOf", "additionalProperties"})


def close_objects(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, in which no object has properties that it does not name.

    Left as they are: objects that name none, that say themselves what else they may have, and, if the schema puts
    any together with ``allOf``, all that lie within, because the parts of one must allow those of the others.
    """
    closed: dict[str, Any] = _close(schema, is_deep=not _combines(schema))
    return closed


def _close(schema: Any, *, is_deep: bool) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(schema, list):
        return [_close(part, is_deep=is_deep) for part in schema]
    if not isinstance(schema, dict):
        return schema
    has_properties = "properties" in schema
    closed = dict(schema)
    for key, value in schema.items() if is_deep else ():
        if key in _SCHEMA_MAPS and isinstance(value, dict):
            closed[key] = {name: _close(part, is_deep=True) for name, part in value.items()}
        elif key in _SCHEMAS and not (has_properties and key in ("anyOf", "oneOf")):
            closed[key] = _close(value, is_deep=True)
    if has_properties and not schema.keys() & ALLOW_OTHERS:
        closed["additionalProperties"] = False
    return closed


def _combines(schema: object) -> bool:
    match schema:
        case dict():
            return "allOf" in schema or any(_combines(part) for part in schema.values())
        case list():
            return any(_combines(part) for part in schema)
        case _:
            return False
