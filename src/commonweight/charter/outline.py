"""Outline parser: front matter, headings, and the lines below each."""

import re
from dataclasses import dataclass, field

HEADING = re.compile(r"(#{1,3}) +(.*?)\s*#*\s*")
FENCE = re.compile(r"\s*(```|~~~)")
ITEM = re.compile(r"[-*] +(.*)")


@dataclass
class OutlineBlock:
    """Consecutive lines, with the number of the first (from 1)."""

    line: int
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The prose, its paragraphs unwrapped."""
        paragraphs = re.split(r"\n\s*\n", "\n".join(self.lines).strip())
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

    def split_items(self) -> list["OutlineBlock"]:
        """The items of a list, preceded by a block of the text outside of items, if any."""
        blocks = [OutlineBlock(self.line)]
        for number, line in enumerate(self.lines, self.line):
            if item := ITEM.fullmatch(line):
                blocks.append(OutlineBlock(number, [item[1]]))
            else:
                blocks[-1].lines.append(line)
        return blocks if blocks[0].text else blocks[1:]


@dataclass
class Section:
    """A heading with its settings and prose."""

    level: int
    title: str
    line: int
    settings: OutlineBlock | None = None
    """The inside of its first fenced block."""
    prose: OutlineBlock = field(default_factory=lambda: OutlineBlock(0))


def read_front_matter(text: str) -> tuple[OutlineBlock | None, int]:
    """The front matter, and the index of the line after it."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return None, 0
    for index, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return OutlineBlock(2, lines[1:index]), index + 1
    return None, 0


def split_sections(text: str, start: int) -> list[Section]:
    """The sections from a line's index on. What stands before the first heading is in one of level 0."""
    found = [Section(0, "", start + 1, prose=OutlineBlock(start + 1))]
    fenced: OutlineBlock | None = None
    fence = ""
    for number, line in enumerate(text.split("\n")[start:], start + 1):
        section = found[-1]
        if fenced is not None:
            if line.strip() == fence:
                fenced = None
            else:
                fenced.lines.append(line)
        elif (opening := FENCE.match(line)) and section.settings is None:
            fence = opening[1]
            section.settings = fenced = OutlineBlock(number + 1)
        elif heading := HEADING.fullmatch(line):
            found.append(Section(len(heading[1]), heading[2], number, prose=OutlineBlock(number + 1)))
        else:
            section.prose.lines.append(line)
    return found
