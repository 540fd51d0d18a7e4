"""Charters as recipes name them, and the principle that a row is read under."""

from pathlib import Path

from commonweight.charter import DEFAULT, Charter, CharterError, Principle, parse
from commonweight.lineage.digests import digest_bytes
from commonweight.workshop.alignment.settings import AlignmentError
from commonweight.workshop.data.rows import Row, draw_fraction
from commonweight.workshop.settings import DEFAULT_CHARTER


def read_charter(name: str, root: Path) -> Charter:
    """Read the charter that a recipe names.

    Raises:
        AlignmentError: it is not there, or is no charter; says the first problem and its line.
    """
    try:
        return parse(_read_bytes(name, root))
    except CharterError as error:
        problem = error.problems[0]
        raise AlignmentError(f"The charter {name} cannot be used: line {problem.line}: {problem.text}.") from error


def digest_charter(name: str, root: Path) -> str:
    """SHA-256 of the file of the charter that a recipe names.

    Raises:
        AlignmentError: it is not there.
    """
    return digest_bytes(_read_bytes(name, root))


def choose_principle(row: Row, charter: Charter, seed: int) -> Principle | None:
    """The principle that a row is read under: its own, or one drawn among those that the charter enforces.

    None: it names one that the charter does not have.
    """
    if row.principle is not None:
        return next((one for one in charter.principles if one.id == row.principle), None)
    enforced = [one for one in charter.principles if is_enforced(one)] or list(charter.principles)
    return enforced[int(draw_fraction("principle", str(seed), row.row_id) * len(enforced))]


def is_enforced(principle: Principle) -> bool:
    """Whether requests or answers are refused under a principle."""
    return principle.mode == "enforce" and "refuse" in (
        principle.applies_to.get("input"),
        principle.applies_to.get("output"),
    )


def _read_bytes(name: str, root: Path) -> bytes:
    if name == DEFAULT_CHARTER:
        return DEFAULT.read_bytes()
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise AlignmentError(f"The charter {name} cannot be read: {error.strerror}.") from error
