"""What a bundle was or will be trained on, as material that the provenance gate decides on."""

from collections.abc import Iterable
from pathlib import Path

from commonweight.guard.heads.bundle import Bundle, BundleError
from commonweight.lineage.errors import WorkshopError
from commonweight.lineage.provenance import Material
from commonweight.workshop.heads.sources import SourceError, read_source


def read_materials(path: Path) -> list[Material]:
    """List the sources that a bundle's manifest names, once for each licence that holds for a source.

    Raises:
        WorkshopError: it is no bundle, or one made before generators were recorded.
    """
    try:
        manifest = Bundle.load(path, None).manifest
    except BundleError as error:
        raise WorkshopError(f"{error}.") from error
    if manifest.licence is None:
        raise WorkshopError(f"{path} does not say which models wrote its sources: compile the charter again.")
    return [
        Material(
            source=one.name,
            content=one.content,
            licence=licence,
            generator=one.generator,
            rows=one.rows,
            digest=one.sha256,
        )
        for one in manifest.sources
        for licence in one.licence.split(" AND ")
    ]


def list_materials(files: Iterable[Path]) -> list[Material]:
    """List files of labelled texts, before anything is made of them; those that train nothing are left out.

    Raises:
        WorkshopError: one is malformed.
    """
    try:
        sources = [read_source(path) for path in files]
    except SourceError as error:
        raise WorkshopError(f"{error}.") from error
    return [
        Material(
            source=one.name,
            content="answers" if any(row.answer is not None for row in one.rows) else "prompts",
            licence=licence,
            generator=one.generator,
            rows=len(one.rows),
            digest=one.sha256,
        )
        for one in sources
        if one.role != "unused"
        for licence in one.licence.split(" AND ")
    ]
