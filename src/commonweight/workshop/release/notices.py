"""``NOTICE``: attributions and obligations, out of the records."""

from collections.abc import Iterable
from dataclasses import dataclass

from commonweight.lineage.licences import find_licence
from commonweight.lineage.record import Record
from commonweight.workshop.release.evidence import Evidence, quote_sentence
from commonweight.workshop.release.obligations import fold_obligations


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
