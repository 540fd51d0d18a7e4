"""What changed between two versions of a charter, principle by principle."""

from typing import Literal, NamedTuple

from commonweight.charter.principle import Charter, Principle


class Change(NamedTuple):
    """One thing that is not as it was."""

    where: str
    """The id of a principle, or the charter's."""
    what: str
    """The field; of a principle that came or went, nothing."""
    kind: Literal["added", "removed", "changed"]
    before: str = ""
    after: str = ""
    warning: str = ""
    """Why somebody should look at it again."""


def differences(old: Charter, new: Charter) -> list[Change]:
    """All that changed in meaning, in the order of the new file; what went comes last."""
    changes = [
        Change(new.id, field, "changed", _shown(getattr(old, field)), _shown(getattr(new, field)))
        for field in type(new).model_fields
        if field not in {"principles", "sha256"} and getattr(old, field) != getattr(new, field)
    ]
    before = {principle.id: principle for principle in old.principles}
    after = {principle.id: principle for principle in new.principles}
    for principle in new.principles:
        if principle.id in before:
            changes += _between(before[principle.id], principle)
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


def _between(before: Principle, after: Principle) -> list[Change]:
    return [
        Change(
            after.id,
            field,
            "changed",
            _shown(getattr(before, field)),
            _shown(getattr(after, field)),
            "this was a hard principle"
            if before.tier == "hard" and field in {"tier", "mode", "restricts"}
            else "",
        )
        for field in type(after).model_fields
        if getattr(before, field) != getattr(after, field)
    ]


def _shown(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
        case frozenset():
            return ", ".join(sorted(str(inner) for inner in value))
        case tuple():
            return "\n".join(_shown(inner) for inner in value)
        case None:
            return ""
        case _:
            return str(value)
