"""Linter for valid charters."""

from collections.abc import Iterable, Iterator

from commonweight.charter.outline import split_sections
from commonweight.charter.phrases import fold
from commonweight.charter.principle import Charter, Principle, Requirement
from commonweight.charter.problems import Problem
from commonweight.charter.reading import parse

MIN_HALF_CHARACTERS = 40
"""Minimum length of ``restricts`` and ``permits``, which classifiers and judge are made of."""


def lint(content: bytes) -> list[Problem]:
    """Problems of a valid charter, in the order of its lines.

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
        for text in _lint_principle(principle)
    ]
    found += [Problem(lines[index], text) for index, text in _find_repeated_texts(charter)]
    if not any(_may_refuse(principle) for principle in charter.principles):
        found += [Problem(1, text) for text in _find_idle_requirements(charter.tests)]
    found += [Problem(lines[index], text) for index, text in _find_phrases_in_messages(charter)]
    return sorted(found)


def _lint_principle(principle: Principle) -> Iterator[str]:
    if principle.tier == "hard":
        if principle.overridable_by != "nobody":
            yield "a hard principle is nobody's to set aside: take out overridable_by, or choose another tier"
        if principle.mode != "enforce":
            yield f"a hard principle in mode {principle.mode} holds nothing up"
    if principle.severity == "critical" and "refuse" not in principle.applies_to.values():
        yield "it is critical, and yet refuses nothing"
    if not _may_refuse(principle):
        yield from _find_idle_requirements(principle.tests)
    for half in ("restricts", "permits"):
        if len(getattr(principle, half)) < MIN_HALF_CHARACTERS:
            yield f"{half} says too little: {MIN_HALF_CHARACTERS} characters at least"
    yield from _lint_phrases(principle)
    if not principle.complying:
        yield "there is no example that complies: without one, nothing shows where it ends"
    elif len(principle.complying) < len(principle.violating):
        yield (
            f"{len(principle.violating)} examples violate it and {len(principle.complying)} comply: "
            "give at least as many of these"
        )


def _may_refuse(principle: Principle) -> bool:
    return principle.mode == "enforce" and "refuse" in principle.applies_to.values()


def _find_idle_requirements(tests: Iterable[Requirement]) -> Iterator[str]:
    """Requirements that no configuration can hold, as nothing is refused."""
    for one in tests:
        if one.least_refused is not None:
            yield (
                f"a test asks that {one.least_refused:g} of {one.data} are refused, and nothing refuses: "
                "no configuration can hold that"
            )


def _lint_phrases(principle: Principle) -> Iterator[str]:
    seen: set[str] = set()
    for number, phrase in enumerate(principle.phrases, 1):
        folded = fold(phrase).strip()
        if len(folded) == 1:
            yield f"phrase {number} is one character, which stands in nearly every text: make it longer"
        if folded in seen:
            yield f"phrase {number} is an earlier one: they are compared without case and spacing"
        seen.add(folded)
        if any(folded in fold(example.text) for example in principle.complying):
            yield f"phrase {number} stands in an example that complies: no text with it does"


def _find_phrases_in_messages(charter: Charter) -> Iterator[tuple[int, str]]:
    """Messages that would tell in a refusal what must not leave: index of the principle, and message."""
    phrases = [
        (one.id, fold(phrase).strip())
        for one in charter.principles
        for phrase in one.phrases
        if "output" in one.applies_to
    ]
    for index, principle in enumerate(charter.principles):
        message = fold(principle.message)
        for name in dict.fromkeys(name for name, phrase in phrases if phrase in message):
            yield index, f"{principle.id}: its message holds a phrase of {name}, and is told in refusals"


def _find_repeated_texts(charter: Charter) -> Iterator[tuple[int, str]]:
    """Texts that repeat an earlier principle's: index of the principle, and message."""
    said: dict[str, str] = {}
    for index, principle in enumerate(charter.principles):
        texts = [("restricts", principle.restricts), ("permits", principle.permits)]
        texts += [("an example", example.text) for example in principle.complying]
        texts += [
            ("an example", one.text if isinstance(one.text, str) else f"{one.text.source}#{one.text.sha256}")
            for one in principle.violating
        ]
        for what, text in texts:
            if text in said:
                yield index, f"{principle.id}: {what} is word for word one of {said[text]}'s"
            said[text] = principle.id
