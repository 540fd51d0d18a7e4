"""``LICENSE``: the text of the release's licence, one that ships or the publisher's own.

The texts that ship are verbatim: those of the SPDX License List 3.28 (MIT, BSD, CC-BY-SA-3.0, and ISC in its usual
wording), of Creative Commons (4.0, CC0) and of the Apache Software Foundation.
"""

import re
from importlib.resources import files
from pathlib import Path

from commonweight.lineage.licence_texts import recognise_licence
from commonweight.lineage.licences import find_licence
from commonweight.workshop.release.documents import ReleaseError, quote, read_file

_TEXTS = files("commonweight.workshop.release") / "licences"
_MAX_LICENCE_BYTES = 1 << 20
_COPYRIGHT_LINE = re.compile(
    r"^[ \t]*(?:copyright[ \t]+(?:\(c\)|©|[0-9<])|all rights reserved).*\n?", re.IGNORECASE | re.MULTILINE
)
_TITLE = re.compile(r"(?:(?:the|a|mit|isc|bsd|2|3|clause|new|revised|simplified|licen[cs]e) ?)*")
"""Words that may stand above the copyright line; anything else could take permissions back."""


def list_licence_texts() -> tuple[str, ...]:
    """Identifiers of the licences whose text ships."""
    return tuple(sorted(item.name.removesuffix(".txt") for item in _TEXTS.iterdir()))


def find_licence_text(licence: str, file: str | None, holder: str | None = None) -> bytes:
    """The text of the release's licence: the publisher's file, or one that ships.

    Args:
        holder: year and name of the copyright holder, for a text that names them.

    Raises:
        ReleaseError: there is none, it is the text of another licence, or it has a place for a holder and none is
            given.
    """
    if file is not None:
        data = read_file(Path(file), _MAX_LICENCE_BYTES)
        check_licence_text(licence, data)
        return data
    shipped = _read_shipped(licence)
    if shipped is None:
        raise ReleaseError(
            f"The text of {licence} does not ship; name a file with it as licence_text. "
            f"Those that ship are {', '.join(list_licence_texts())}."
        )
    if not names_holder(licence):
        return shipped.encode()
    if holder is None:
        raise ReleaseError(
            f"The text of {licence} names who holds the copyright: set copyright, such as '2026 Ada Example'."
        )
    return _COPYRIGHT_LINE.sub(lambda _: f"Copyright (c) {holder}\n", shipped, count=1).encode()


def names_holder(licence: str) -> bool:
    """Whether the text that ships has a line that names the copyright holder."""
    return licence in ("MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause")


def check_licence_text(licence: str, data: bytes) -> bool:
    """Check that a text is that of a licence.

    Returns:
        Whether the whole text is known (below a line that names who holds the copyright), not its name only.

    Raises:
        ReleaseError: it is the text of another, or not known to be this one's.
    """
    shipped = _read_shipped(licence)
    if shipped is not None and not names_holder(licence):
        if shipped.encode() != data:
            raise ReleaseError(f"LICENSE is not the text of {licence} that ships.")
        return True
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ReleaseError("LICENSE is not UTF-8.") from error
    if shipped is not None and _list_terms(text) == _list_terms(shipped):
        return True
    found = recognise_licence(text)
    if found and licence not in found:
        raise ReleaseError(f"LICENSE is the text of {', '.join(sorted(found))}, and the release has {licence}.")
    known = find_licence(licence)
    if not found and (known is None or known.name.lower() not in " ".join(text.split()).lower()):
        raise ReleaseError(f"LICENSE does not name {licence}.")
    return False


def describe_text(licence: str, is_known: bool) -> str:
    """One sentence about the text of a licence."""
    whole = "is the known text of" if is_known else "names"
    below = ", below the publisher's copyright line" if is_known and names_holder(licence) else ""
    return f"LICENSE {whole} {quote(licence)}{below}."


def _read_shipped(licence: str) -> str | None:
    if licence not in list_licence_texts():
        return None
    return (_TEXTS / f"{licence}.txt").read_text(encoding="utf-8")


def _list_terms(text: str) -> list[str]:
    """The words of a licence, without its title and the lines that name the copyright holder.

    What stands above these lines, other than a title, and what stands between them counts.
    """
    above, *others = _COPYRIGHT_LINE.split(text)
    title, *parts = (" ".join(re.findall(r"[^\W_]+", part.casefold())) for part in (above, *others))
    kept = [] if parts and _TITLE.fullmatch(title) else [title]
    return [part for part in [*kept, *parts] if part]
