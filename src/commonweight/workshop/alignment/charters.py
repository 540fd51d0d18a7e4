"""Charters as recipes name them: ``default``, or a path relative to the recipe."""

from pathlib import Path

from commonweight.charter import DEFAULT, Charter, CharterError, parse
from commonweight.lineage.digests import digest_bytes
from commonweight.workshop.alignment.settings import AlignmentError

DEFAULT_NAME = "default"


def read_charter(name: str, root: Path) -> Charter:
    """Read the charter that a recipe names.

    Raises:
        AlignmentError: it is not there, or is no charter; says the first problem and its line.
    """
    try:
        return parse(_read_bytes(name, root))
    except CharterError as error:
        problem = error.problems[0]
        raise AlignmentError(f"{name}:{problem.line} is no charter: {problem.text}.") from error


def digest_charter(name: str, root: Path) -> str:
    """SHA-256 of the file of the charter that a recipe names.

    Raises:
        AlignmentError: it is not there.
    """
    return digest_bytes(_read_bytes(name, root))


def _read_bytes(name: str, root: Path) -> bytes:
    if name == DEFAULT_NAME:
        return DEFAULT.read_bytes()
    try:
        return (root / name).read_bytes()
    except OSError as error:
        raise AlignmentError(f"The charter {name} cannot be read: {error.strerror}.") from error
