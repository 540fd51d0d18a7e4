"""Targets of the references in a JSON schema: pointers, anchors and ids."""

from collections.abc import Iterator
from urllib.parse import unquote

from commonweight.prompting.constrain.analysis import Schema


class ReferenceTargets:
    """What references of one schema may refer to."""

    def __init__(self, source: Schema) -> None:
        self._source = source
        self._by_id: dict[str, object] | None = None

    def find(self, reference: object) -> object:
        """The value that a reference refers to; None if it is no part of the schema."""
        if not isinstance(reference, str):
            return None
        document, _, fragment = reference.partition("#")
        target = self._find_by_id(document) if document else self._source
        if fragment and not fragment.startswith("/"):
            return self._find_by_id(f"#{fragment}")
        for step in unquote(fragment).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict):
                target = target.get(name)
            elif isinstance(target, list) and name.isdecimal() and int(name) < len(target):
                target = target[int(name)]
            else:
                return None
        return target

    def _find_by_id(self, name: str) -> object:
        if self._by_id is None:
            self._by_id = {}
            for key, value, owner in _walk(self._source):
                if isinstance(value, str) and key in ("$id", "id", "$anchor", "$dynamicAnchor"):
                    anchor = value if key in ("$id", "id") else f"#{value}"
                    self._by_id.setdefault(anchor.removesuffix("#"), owner)
        return self._by_id.get(name)


def _walk(part: object) -> Iterator[tuple[str, object, Schema]]:
    """Every key and value in JSON, with the object that has them."""
    match part:
        case dict():
            for key, value in part.items():
                yield key, value, part
                yield from _walk(value)
        case list():
            for value in part:
                yield from _walk(value)
