"""Marks in answers: where the first sentence ends that violates something, as a reader found it.

A line of the file is ``digest TAB end``: the SHA-256 of prompt and answer, and the characters of the answer up to
that sentence's end. So the file holds nothing of the texts.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from commonweight.runtime.errors import UserError
from commonweight.workshop.heads.sources import LabelledText

HEADER = "answer\tend"


def compute_answer_digest(row: LabelledText) -> str:
    """Compute the digest that an answer's mark is found by: of the prompt, a zero byte, and the answer."""
    return hashlib.sha256(f"{row.text}\0{row.answer}".encode("utf-8", "replace")).hexdigest()


def read_marks(path: Path) -> Mapping[str, int]:
    """Read the ends of first violating sentences, by the digests of answers.

    Raises:
        UserError: the file is none of marks.
    """
    try:
        header, *lines = path.read_text().splitlines() or [""]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no file of marks, which is text") from error
    if header != HEADER:
        raise UserError(f"{path}: no file of marks: its first line is not `answer TAB end`")
    marks: dict[str, int] = {}
    for number, line in enumerate(lines, 2):
        digest, _, end = line.partition("\t")
        if len(digest) != 64 or not (end.isascii() and end.isdigit() and int(end)) or digest in marks:
            raise UserError(
                f"{path}:{number}: no digest of an answer, of which there is one, with a character count"
            )
        marks[digest] = int(end)
    return marks
