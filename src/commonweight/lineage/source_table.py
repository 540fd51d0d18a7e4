"""Tables of sources: one line a file of data, with its licence, what wrote it, and what it may be used for."""

import csv
import io
import re
from collections.abc import Iterator

from commonweight.lineage.digests import LineageError
from commonweight.lineage.licences import find_licence
from commonweight.lineage.provenance import Content, Material

_COLUMNS = {"name", "rows", "licence", "use", "kind", "generator"}
_CONTENTS: tuple[Content, ...] = ("text", "prompts", "answers")


def parse_source_table(text: str, use: str = "train") -> list[Material]:
    """Read a table in tab-separated values with the columns name, rows, licence, use, kind and generator.

    ``kind`` is ``text``, ``prompts``, ``answers`` or ``prompts and answers``; ``generator`` says in words what
    wrote them: "people", or anything else.

    Args:
        use: lines of another use are left out.

    Raises:
        LineageError: a column is missing, or a line cannot be read; says which.
    """
    reader = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    if missing := _COLUMNS - set(reader.fieldnames or ()):
        raise LineageError(f"The table of sources has no column {', '.join(sorted(missing))}.")
    materials: list[Material] = []
    for number, row in enumerate(reader, start=2):
        if None in row or None in row.values():
            raise LineageError(f"Line {number} of the table of sources has not as many fields as its first line.")
        if row["use"] == use:
            materials += _read_line(row, number)
    return materials


def _read_line(row: dict[str, str], number: int) -> Iterator[Material]:
    contents = [content for content in _CONTENTS if content in row["kind"]]
    if not contents or not row["rows"].isdigit():
        raise LineageError(f"Line {number} of the table of sources has a kind or a number of rows that is none.")
    for content in contents:
        yield Material(
            source=row["name"],
            content=content,
            licence=_read_licence(row["licence"]),
            generator=_read_generator(row["generator"], content),
            rows=int(row["rows"]),
            is_test_split="test split" in row["generator"].lower(),
        )


def _read_licence(text: str) -> str:
    """The identifier alone where a remark says only whose declaration it is."""
    match = re.fullmatch(r"(\S+) \(orig [^)]*\)", text)
    return match[1] if match and find_licence(match[1]) else text


def _read_generator(text: str, content: Content) -> str | None:
    part = re.search(rf"\b{content}: ([^;]*)", text)
    words = part[1] if part else text
    if re.match(r"people(?! and models)", words):
        return None
    return words
