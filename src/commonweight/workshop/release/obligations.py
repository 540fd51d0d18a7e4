"""Obligations of a release: the licences of its material folded, against the licence and name that it is given."""

import re
from collections.abc import Iterable

from commonweight.lineage.licences import Obligations, find_licence, fold_licences
from commonweight.lineage.provenance import list_generator_licences
from commonweight.workshop.release.documents import ReleaseError
from commonweight.workshop.release.evidence import Evidence


def fold_obligations(evidence: Evidence) -> Obligations:
    """What the material's licences and its generators' terms ask together.

    Raises:
        LineageError: one is unknown, or two cannot be met at once.
    """
    export = evidence.export
    return fold_licences(
        {*export.licences, *list_generator_licences(export.generators)}, evidence.declaration.share_alike
    )


def check_licence(evidence: Evidence, obligations: Obligations) -> None:
    """Check that the release's licence and name meet the obligations.

    Raises:
        ReleaseError: says which one they do not meet.
    """
    declaration = evidence.declaration
    licence = find_licence(declaration.licence)
    if licence is None:
        raise ReleaseError(f"The licence of the release, {declaration.licence}, is not known.")
    if obligations.licence is not None:
        required = find_licence(obligations.licence)
        allowed = (obligations.licence, *(required.compatible_with if required else ()))
        if licence.id not in allowed:
            raise ReleaseError(f"The material asks for {' or '.join(allowed)}, and the release has {licence.id}.")
    if licence.commercial and not obligations.commercial:
        limited = next(item.id for item in obligations.licences if not item.commercial)
        raise ReleaseError(f"{limited} permits no commercial use, and {licence.id} does.")
    for naming in obligations.naming:
        if not all(_begins_with(name, naming) for name in (declaration.name, declaration.title)):
            raise ReleaseError(f"The release's name must begin with {naming}, by a licence of its material.")


def _begins_with(name: str, beginning: str) -> bool:
    words, wanted = (re.sub(r"[-_\s.]+", " ", text).strip().lower() for text in (name, beginning))
    return words == wanted or words.startswith(f"{wanted} ")


def name_licences(names: Iterable[str]) -> str:
    """Licences in a row of text."""
    return ", ".join(sorted(names)) or "none"
