"""What a charter that can be read still gets wrong."""

from collections.abc import Iterator

from commonweight.charter.outline import split_sections
from commonweight.charter.principle import Charter, Principle
from commonweight.charter.problems import Problem
from commonweight.charter.reading import parse

SHORTEST = 40
"""Characters of a half that says something. A classifier and a judge are made of these words."""


def lint(content: bytes) -> list[Problem]:
    """What to put right, in the order of the lines; the file itself is sound.

    Raises:
        CharterError: it is not.
    """
    charter = parse(content)
    lines = [
        section.line for section in split_sections(content.decode().replace("\r\n", "\n"), 0) if section.level == 2
    ]
    found = [
        Problem(line, f"{principle.id}: {text}")
        for principle, line in zip(charter.principles, lines, strict=True)
        for text in _about(principle)
    ]
    found += [Problem(lines[index], text) for index, text in _said_twice(charter)]
    return sorted(found)


def _about(principle: Principle) -> Iterator[str]:
    if principle.tier == "hard":
        if principle.overridable_by != "nobody":
            yield "a hard principle is nobody's to set aside: take out overridable_by, or choose another tier"
        if principle.mode != "enforce":
            yield f"a hard principle in mode {principle.mode} holds nothing up"
    if principle.severity == "critical" and "refuse" not in principle.applies_to.values():
        yield "it is critical, and yet refuses nothing"
    for half in ("restricts", "permits"):
        if len(getattr(principle, half)) < SHORTEST:
            yield f"{half} says too little: {SHORTEST} characters at least"
    if not principle.complying:
        yield "there is no example that complies: without one, nothing shows where it ends"
    elif len(principle.complying) < len(principle.violating):
        yield (
            f"{len(principle.violating)} examples violate it and {len(principle.complying)} comply: "
            "give at least as many of these"
        )


def _said_twice(charter: Charter) -> Iterator[tuple[int, str]]:
    """The index of a principle, and what it has in common with an earlier one."""
    said: dict[str, str] = {}
    for index, principle in enumerate(charter.principles):
        texts = [("restricts", principle.restricts), ("permits", principle.permits)]
        texts += [("an example", example.text) for example in principle.complying]
        texts += [("an example", f"{one.text.source}#{one.text.sha256}") for one in principle.violating]
        for what, text in texts:
            if text in said:
                yield index, f"{principle.id}: {what} is word for word one of {said[text]}'s"
            said[text] = principle.id
