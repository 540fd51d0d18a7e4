"""Comparison of two versions of a charter, by principle and field."""

from typing import Literal, NamedTuple

from commonweight.charter.principle import Charter, Principle


class Change(NamedTuple):
    """One difference between two versions."""

    where: str
    """The id of a principle, or the charter's."""
    what: str
    """The field; empty for an added or removed principle."""
    kind: Literal["added", "removed", "changed"]
    before: str = ""
    after: str = ""
    warning: str = ""
    """Reason to review the change; empty if there is none."""


def compare_charters(old: Charter, new: Charter) -> list[Change]:
    """All differences in meaning, in the order of the new file; removed principles come last."""
    changes = [
        Change(new.id, field, "changed", _format(getattr(old, field)), _format(getattr(new, field)))
        for field in type(new).model_fields
        if field not in {"principles", "sha256"} and getattr(old, field) != getattr(new, field)
    ]
    before = {principle.id: principle for principle in old.principles}
    after = {principle.id: principle for principle in new.principles}
    for principle in new.principles:
        if principle.id in before:
            changes += _compare_principles(before[principle.id], principle)
        else:
            reused = principle.id in old.retired
            changes.append(
                Change(
                    principle.id,
                    "",
                    "added",
                    after=principle.title,
                    warning="the id was retired" if reused else "",
                )
            )
    for gone in old.principles:
        if gone.id not in after:
            forgotten = "" if gone.id in new.retired else "add the id to `retired`, so that it is never used again"
            changes.append(Change(gone.id, "", "removed", before=gone.title, warning=forgotten))
    changes += [
        Change(new.id, "retired", "changed", warning=f"{name} is no longer listed: old verdicts may name it")
        for name in sorted(old.retired - new.retired)
    ]
    return changes


def _compare_principles(before: Principle, after: Principle) -> list[Change]:
    return [
        Change(
            after.id,
            field,
            "changed",
            _format(getattr(before, field)),
            _format(getattr(after, field)),
            "this was a hard principle"
            if before.tier == "hard" and field in {"tier", "mode", "restricts"}
            else "",
        )
        for field in type(after).model_fields
        if getattr(before, field) != getattr(after, field)
    ]


def _format(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{key}: {_format(inner)}" for key, inner in value.items())
        case frozenset():
            return ", ".join(sorted(str(inner) for inner in value))
        case tuple():
            return "\n".join(_format(inner) for inner in value)
        case None:
            return ""
        case _:
            return str(value)
