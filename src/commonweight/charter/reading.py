"""Parser of charter files, which reports all problems at once.

The file is Markdown: a heading for every principle, its settings in a fenced block under it, and prose.
``default.md`` is the example.
"""

import hashlib
import re
from collections import Counter

from commonweight.charter.outline import OutlineBlock, Section, read_front_matter, split_sections
from commonweight.charter.phrases import MAX_CHARTER_PHRASES
from commonweight.charter.places import LATER_PLACES
from commonweight.charter.principle import Charter, Front, Principle, Settings, Tier
from commonweight.charter.problems import CharterError, Problem
from commonweight.charter.settings import read_settings

MAX_CHARTER_BYTES = 1_000_000
PROSE = ("Restricts", "Permits", "Message")
PARTS = (*PROSE, "Examples")
VERDICTS = ("violates", "complies")
UNWRITTEN_TIERS: tuple[Tier | None, ...] = ("hard", "safety")
"""What violates these is harmful to read."""
_EXAMPLE = re.compile(r"\**(\w+)\**: +(.*)", re.DOTALL)
_REFERENCE = re.compile(r"([a-z0-9_]+)#([0-9a-f]{16,64})")
_QUOTED = re.compile(r'"(.*\S.*)"', re.DOTALL)
_WHY = re.compile(r"(.*?)\s+\(([^()]*)\)", re.DOTALL)


def parse(content: bytes) -> Charter:
    """The charter in a file.

    Raises:
        CharterError: what is wrong with it, by line.
    """
    if len(content) > MAX_CHARTER_BYTES:
        raise CharterError([Problem(1, f"a charter has at most {MAX_CHARTER_BYTES} bytes")])
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CharterError([Problem(line, "this is not UTF-8")]) from error
    problems: list[Problem] = []
    front = _read_front(text, problems)
    *_, start = read_front_matter(text)
    before, *found = split_sections(text, start)
    if before.prose.text or not found or found[0].level != 1:
        problems.append(Problem(before.line, "a charter begins with its title: `# ...`"))
    title, preamble = (found[0].title, found[0].prose.text) if found and found[0].level == 1 else ("", "")
    principles, lines = _read_principles([section for section in found if section.level > 1], problems)
    problems += [Problem(section.line, "a charter has one title") for section in found[1:] if section.level == 1]
    if not principles and not problems:
        problems.append(Problem(1, "there are no principles: `## ...`"))
    if front is not None:
        problems += _find_repeated_ids(principles, lines, front)
        problems += _find_later_places(principles, lines, front)
    problems += _count_phrases(principles, lines)
    if problems or front is None:
        raise CharterError(problems)
    return Charter.model_validate(
        {
            **front.model_dump(by_alias=True),
            "title": title,
            "preamble": preamble,
            "principles": tuple(principles),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    )


def _read_front(text: str, problems: list[Problem]) -> Front | None:
    block, _ = read_front_matter(text)
    if block is None:
        problems.append(Problem(1, "a charter begins with its front matter, between two lines of `---`"))
        return None
    front = read_settings(block, Front)
    if isinstance(front, Front):
        return front
    problems += front
    return None


def _read_principles(parts: list[Section], problems: list[Problem]) -> tuple[list[Principle], list[int]]:
    """The valid principles, and the lines of their headings."""
    principles, lines = [], []
    groups: list[list[Section]] = []
    for section in parts:
        if section.level == 2:
            groups.append([section])
        elif groups:
            groups[-1].append(section)
        else:
            problems.append(Problem(section.line, f"{section.title!r} stands under no principle"))
    for head, *below in groups:
        wrong: list[Problem] = []
        principle = _read_principle(head, below, wrong)
        problems += wrong
        if principle is not None and not wrong:
            principles.append(principle)
            lines.append(head.line)
    return principles, lines


def _read_principle(head: Section, below: list[Section], problems: list[Problem]) -> Principle | None:
    named: dict[str, Section] = {}
    for section in below:
        if section.title not in PARTS:
            problems.append(Problem(section.line, f"{section.title!r}: a principle has {', '.join(PARTS)}"))
        elif section.title in named:
            problems.append(Problem(section.line, f"{section.title} is there twice"))
        else:
            named[section.title] = section
    if head.prose.text:
        problems.append(Problem(head.prose.line, f"prose belongs under one of {', '.join(PARTS)}"))
    problems += [
        Problem(head.line, f"{head.title!r} says nothing under `### {part}`")
        for part in PROSE
        if part not in named or not named[part].prose.text
    ]
    if head.settings is None:
        problems.append(Problem(head.line, f"{head.title!r} has no settings: a fenced block under its heading"))
        return None
    settings = read_settings(head.settings, Settings)
    tier = settings.tier if isinstance(settings, Settings) else None
    examples = _read_examples(named["Examples"].prose, tier, problems) if "Examples" in named else {}
    if not isinstance(settings, Settings):
        problems += settings
    if problems or not isinstance(settings, Settings):
        return None
    prose = {part.lower(): named[part].prose.text for part in PROSE}
    return Principle.model_validate({**dict(settings), **examples, **prose, "title": head.title})


def _read_examples(block: OutlineBlock, tier: Tier | None, problems: list[Problem]) -> dict[str, object]:
    violating: list[dict[str, object]] = []
    complying: list[dict[str, object]] = []
    for item in block.split_items():
        match = _EXAMPLE.fullmatch(item.text)
        if match is None or match[1] not in VERDICTS:
            problems.append(
                Problem(item.line, "an example is an item: `- complies: ...` or `- violates: source#hash`")
            )
        elif match[1] == "complies":
            borderline = _WHY.fullmatch(match[2])
            text, why = borderline.groups() if borderline else (match[2], None)
            complying.append({"text": text, "why": why})
        elif reference := _REFERENCE.fullmatch(match[2]):
            violating.append({"text": {"source": reference[1], "sha256": reference[2]}})
        elif (quoted := _QUOTED.fullmatch(match[2])) and tier not in UNWRITTEN_TIERS:
            violating.append({"text": quoted[1]})
        else:
            problems.append(
                Problem(
                    item.line,
                    'an example that violates is `source#hash`, or outside of the hard and safety tiers "a text"'
                    if quoted is None
                    else f"in the {tier} tier what violates is not written down: name its source and the start of "
                    "its SHA-256",
                )
            )
    return {"violating": tuple(violating), "complying": tuple(complying)}


def _find_repeated_ids(principles: list[Principle], lines: list[int], front: Front) -> list[Problem]:
    problems = []
    seen: Counter[str] = Counter()
    for principle, line in zip(principles, lines, strict=True):
        seen[principle.id] += 1
        if seen[principle.id] > 1:
            problems.append(Problem(line, f"{principle.id}: another principle has this id"))
        if principle.id in front.retired:
            problems.append(Problem(line, f"{principle.id}: this id is retired, and never used again"))
    return problems


def _find_later_places(principles: list[Principle], lines: list[int], front: Front) -> list[Problem]:
    return [
        Problem(line, f"{principle.id}: the place {place} needs `schema: charter/2` in the front matter")
        for principle, line in zip(principles, lines, strict=True)
        for place in principle.applies_to
        if front.schema_ == "charter/1" and place in LATER_PLACES
    ]


def _count_phrases(principles: list[Principle], lines: list[int]) -> list[Problem]:
    total = 0
    for principle, line in zip(principles, lines, strict=True):
        total += len(principle.phrases)
        if total > MAX_CHARTER_PHRASES:
            return [Problem(line, f"{principle.id}: a charter has at most {MAX_CHARTER_PHRASES} phrases")]
    return []
