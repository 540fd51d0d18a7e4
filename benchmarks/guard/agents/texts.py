"""Texts cut out of packages: the tables that name them, and the cuts."""

import ast
import base64
import csv
import hashlib
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = ("agent_system_calibration", "agent_results_calibration", "agent_system", "agent_results")
MOST_CHARACTERS = 20_000
"""Texts are cut at the end of a line before it."""
MOST_BYTES = 200_000
"""Larger files are not read."""
MOST_FOUND = 60
"""Lines of a search, entries of a listing."""


class TextsError(Exception):
    """A package or a text isn't what the tables say; one sentence."""


@dataclass(frozen=True)
class Package:
    """One published version of a repository: the files of a wheel, or of a tarball of npm."""

    number: str
    registry: str
    """``pypi`` or ``npm``."""
    name: str
    version: str
    file: str
    """Name of the file, or, without a digest, how the name of any wheel of that version begins."""
    sha256: str
    repository: str
    licence: str
    licence_file: str
    """Its path in the package, or ``path@commit`` of the repository where the package has none."""


@dataclass(frozen=True)
class Cut:
    """One text: where it stands, how it's shown, and its digest."""

    source: str
    package: str
    path: str
    """Of a file, or of a folder that is searched or listed."""
    lines: str
    """First and last line; of a string constant the line that it begins in."""
    view: str
    """``file``, ``numbered``, ``string``, ``list``, or ``grep:WORD``."""
    kind: str
    sha256: str


def read_packages() -> dict[str, Package]:
    """Read the table of packages, by number."""
    return {row["number"]: Package(**row) for row in _read_table("packages.tsv")}


def read_cuts() -> list[Cut]:
    """Read the table of texts."""
    return [Cut(**row) for row in _read_table("texts.tsv")]


def open_package(path: Path) -> dict[str, str]:
    """Read the files of UTF-8 text in a package, by path.

    Raises:
        TextsError: it's neither a wheel nor a tarball of npm.
    """
    try:
        read = ((name, _decode_text(content)) for name, content in _list_members(path))
        return {name: text for name, text in read if text is not None}
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise TextsError(f"{path.name} is no whole package ({type(error).__name__}).") from error


def open_installed(name: str, version: str) -> dict[str, str] | None:
    """Read an installed package's files that are as its wheel had them; None where that version isn't there."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    if found.version != version:
        return None
    files: dict[str, str] = {}
    for entry in found.files or ():
        path = Path(str(entry.locate()))
        if entry.hash is None or entry.hash.mode != "sha256" or ".." in entry.parts or not path.is_file():
            continue
        if path.stat().st_size > MOST_BYTES:
            continue
        content = path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        text = _decode_text(content)
        if digest == entry.hash.value and text is not None:
            files[entry.as_posix()] = text
    return files


def cut_text(files: Mapping[str, str], path: str, lines: str, view: str) -> str:
    """Cut a text out of a package's files.

    Raises:
        TextsError: there's no such text.
    """
    name, _, word = view.partition(":")
    match name:
        case "list":
            return _list_folder(files, path)
        case "grep":
            return _search_folder(files, path, word)
    if path not in files:
        raise TextsError(f"{path} is not in the package.")
    if view == "string":
        return _find_string(files, path, int(lines))
    first, last = map(int, lines.split("-"))
    shown = files[path].split("\n")[first - 1 : last]
    if view == "numbered":
        shown = [f"{number:6}\t{line}" for number, line in enumerate(shown, first)]
    return "\n".join(shown)


def digest_text(text: str) -> str:
    """SHA-256 of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _read_table(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _list_members(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir() and entry.file_size <= MOST_BYTES:
                    yield entry.filename, wheel.read(entry)
        return
    with tarfile.open(path) as tarball:
        for member in tarball:
            content = tarball.extractfile(member) if member.isfile() and member.size <= MOST_BYTES else None
            if content is not None:
                yield member.name.partition("/")[2], content.read()


def _decode_text(content: bytes) -> str | None:
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or "\r" in text else text


def _list_folder(files: Mapping[str, str], folder: str) -> str:
    sizes = {path: len(text.encode()) for path, text in files.items() if path.startswith(folder)}
    return "\n".join(f"{sizes[path]:>9} {path}" for path in sorted(sizes)[:MOST_FOUND])


def _search_folder(files: Mapping[str, str], folder: str, word: str) -> str:
    found: list[str] = []
    for path in sorted(path for path in files if path.startswith(folder)):
        for number, line in enumerate(files[path].split("\n"), 1):
            if word in line and len(line) <= 300:
                found.append(f"{path}:{number}:{line}")
                if len(found) == MOST_FOUND:
                    return "\n".join(found)
    return "\n".join(found)


def _find_string(files: Mapping[str, str], path: str, line: int) -> str:
    """Find the longest string constant that begins in a line of Python."""
    try:
        tree = ast.parse(files[path])
    except SyntaxError as error:
        raise TextsError(f"{path} is no Python.") from error
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.lineno == line
    ]
    if not texts:
        raise TextsError(f"No string begins in line {line}.")
    return max(texts, key=len)[:MOST_CHARACTERS]
