"""Business charters: charters in prose with texts of their own, which show how well a guard without data holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from commonweight.guard import Bundle, BundleError, Guard
from commonweight.guard.encoders.encoder import TextEncoder
from commonweight.guard.heads.recompile import CompileError, recompile
from commonweight.runtime.charter import read_charter
from commonweight.runtime.errors import UserError
from commonweight.workshop.heads.sources import LabelledSource, find_files, read_source


@dataclass(frozen=True)
class Business:
    """A charter in prose, and the texts to measure it with."""

    charter: Path
    texts: LabelledSource


def find_businesses(paths: list[Path]) -> list[Business]:
    """Find the charters (``NAME.md``) in folders that have texts beside them (``NAME.jsonl``)."""
    return [
        Business(path.with_suffix(".md"), read_source(path))
        for path in find_files(paths)
        if path.suffix == ".jsonl" and path.with_suffix(".md").exists()
    ]


def drop_businesses(paths: Iterable[Path], businesses: Iterable[Business]) -> Iterator[Path]:
    """Drop the texts of business charters from files, as they belong to no other charter."""
    theirs = {one.charter.with_suffix(".jsonl") for one in businesses}
    return (path for path in paths if path not in theirs)


def open_business_guard(
    business: Business, base: Bundle, encoder: TextEncoder | None, *, reads_states: bool
) -> Guard:
    """Open the guard that a server makes of the charter and a bundle: `serve --charter`.

    Raises:
        UserError: it cannot be made.
    """
    charter = read_charter(business.charter)
    try:
        return Guard(charter, recompile(charter, base, encoder, {}), encoder, reads_states=reads_states)
    except (BundleError, CompileError) as error:
        raise UserError(f"{business.charter}: {error}") from error
