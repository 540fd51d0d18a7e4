"""The licence bundle: the licence's text, and a notice with attributions and obligations out of the records."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from commonweight.lineage.licence_texts import recognise_licence
from commonweight.lineage.licences import find_licence
from commonweight.lineage.record import Record
from commonweight.workshop.release.documents import ReleaseError, quote, read_file
from commonweight.workshop.release.evidence import Evidence, quote_sentence
from commonweight.workshop.release.obligations import fold_obligations

_TEXTS = files("commonweight.workshop.release") / "licences"
_MAX_LICENCE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """One origin of material, as the records' decisions have it."""

    name: str
    content: str
    licence: str
    generator: str
    rows: int
    digest: str | None
    """Of its content, where a record has its name or it came from outside as it is."""


def list_sources(material: Iterable[Record]) -> tuple[Source, ...]:
    """All origins of material, sorted; each once, whatever many rules and stages decided on it."""
    material = tuple(material)
    digests = {record.name: record.content for record in material}
    digests |= {item.name: item.digest for record in material for item in record.inputs if item.record is None}
    found = {
        Source(
            decision.source,
            decision.content,
            decision.licence or "none",
            decision.generator or "people",
            decision.rows,
            digests.get(decision.source),
        )
        for record in material
        for decision in record.decisions
    }
    return tuple(sorted(found, key=lambda s: (s.name, s.content, s.licence, s.generator, s.rows)))


def find_licence_text(licence: str, file: str | None) -> bytes:
    """The text of the release's licence: the publisher's file, or one that ships.

    Raises:
        ReleaseError: there is none, or it is the text of another licence.
    """
    if file is not None:
        data = read_file(Path(file), _MAX_LICENCE_BYTES)
    else:
        shipped = _TEXTS / f"{licence}.txt"
        if not shipped.is_file():
            raise ReleaseError(f"The text of {licence} does not ship; name a file with it as licence_text.")
        data = shipped.read_bytes()
    check_licence_text(licence, data)
    return data


def check_licence_text(licence: str, data: bytes) -> bool:
    """Check that a text is that of a licence.

    Returns:
        Whether the whole text is known, rather than its name only.

    Raises:
        ReleaseError: it is the text of another, or not known to be this one's.
    """
    shipped = _TEXTS / f"{licence}.txt"
    if shipped.is_file():
        if shipped.read_bytes() != data:
            raise ReleaseError(f"LICENSE is not the text of {licence}.")
        return True
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ReleaseError("LICENSE is not UTF-8.") from error
    found = recognise_licence(text)
    if found and licence not in found:
        raise ReleaseError(f"LICENSE is the text of {', '.join(sorted(found))}, and the release has {licence}.")
    known = find_licence(licence)
    if not found and (known is None or known.name.lower() not in " ".join(text.split()).lower()):
        raise ReleaseError(f"LICENSE does not name {licence}.")
    return False


def make_notice(evidence: Evidence) -> bytes:
    """The bytes of ``NOTICE``.

    Raises:
        LineageError: a licence is unknown, or two cannot be met at once.
    """
    declaration = evidence.declaration
    obligations = fold_obligations(evidence)
    lines = [
        declaration.title,
        "",
        f"Released {declaration.date} under {declaration.licence} (see LICENSE).",
        "What follows is computed from lineage.jsonl.",
        "",
        "Material",
        "--------",
    ]
    for source in list_sources(evidence.material):
        is_model = source.content == "weights"
        what = "weights" if is_model else f"{source.rows} rows of {source.content}"
        origin = "" if is_model else f", written by {source.generator}"
        digest = f", SHA-256 {source.digest}" if source.digest else ""
        licence = find_licence(source.licence)
        name = f"{source.licence} ({licence.name})" if licence else source.licence
        lines.append(quote_sentence(f"- {source.name}: {what}, {name}{origin}{digest}"))
    lines += ["", "Obligations", "-----------"]
    lines += [f"- {sentence}" for sentence in obligations.sentences] or ["- none"]
    if obligations.licence:
        lines.append(f"- the release carries {obligations.licence}, or a licence that it is compatible with")
    lines += [f"- the release's name begins with {naming}" for naming in obligations.naming]
    if not obligations.commercial:
        lines.append("- no commercial use of the release")
    return ("\n".join(lines) + "\n").encode()


def describe_text(licence: str, is_known: bool) -> str:
    """One sentence about the text of a licence."""
    whole = "is the known text of" if is_known else "names"
    return f"LICENSE {whole} {quote(licence)}."
