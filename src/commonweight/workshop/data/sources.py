"""Sources: their files and digests, and their rows with provenance."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from commonweight.lineage.digests import digest_content, digest_file
from commonweight.workshop.data.downloads import fetch_hub, fetch_url
from commonweight.workshop.data.formats import FormatError, parse_content, recognise_format
from commonweight.workshop.data.locations import HubPath, LocalPath, PackagePath, WebFile, parse_location
from commonweight.workshop.data.readers import (
    DATA_SUFFIXES,
    TEXT_SUFFIXES,
    Record,
    SourceFile,
    is_source_file,
    read_prompt_lines,
    read_records,
    read_text_rows,
)
from commonweight.workshop.data.rows import DataError, Row
from commonweight.workshop.data.settings import Column, Format, SourceSettings, is_licence_name

_COLUMNS = frozenset(get_args(Column))
_LONGEST_LABEL = 200
_OTHER_SPELLING = "license"


@dataclass(frozen=True)
class LocatedSource:
    """A source's files, found and checked."""

    files: tuple[SourceFile, ...]
    sha256: str
    revision: str | None = None


def locate_source(
    settings: SourceSettings,
    root: Path,
    data_root: Path | None,
    downloads: Path,
    report: Callable[[str], None],
) -> LocatedSource:
    """Find a source's files, download them where they are not here, and compare their digest.

    Args:
        root: the recipe's folder.
        data_root: a local mirror that stands for the hub and the web.
        downloads: where files from the web are put.

    Raises:
        DataError: it is not there, or not what the recipe states.
    """
    location = settings.parsed_location
    revision: str | None = None
    name: str | None = None
    match location:
        case LocalPath():
            path = root / location.path
        case PackagePath():
            path = _find_in_package(location)
        case HubPath() if data_root is not None:
            revision = location.revision
            path = data_root / location.repo / (location.path or "")
        case HubPath():
            path, revision = fetch_hub(location)
        case WebFile():
            name = location.name
            path = _find_web_file(settings, location, data_root, downloads, report)
    try:
        if not path.exists():
            where = "the data root" if data_root and isinstance(location, HubPath) else "that place"
            raise DataError(f"The source {settings.name}: there is nothing for {settings.location} in {where}.")
        files = _list_files(path, name or path.name, settings)
        digests = {file.name: digest_file(file.path) for file in files}
    except OSError as error:
        raise DataError(f"The source {settings.name} cannot be read: {error.strerror}.") from error
    sha256 = digest_content(digests) if path.is_dir() else digests[files[0].name]
    if settings.sha256 not in (None, sha256):
        raise DataError(
            f"The source {settings.name} has changed under its name: the recipe states the digest "
            f"{settings.sha256}, {settings.location} has {sha256}."
        )
    return LocatedSource(files, sha256, revision)


def find_text(location: str, root: Path) -> Path:
    """A file that comes with a source, by a path relative to the recipe or in a package.

    Raises:
        DataError: it is not there, or lies elsewhere.
    """
    path = find_path(location, root)
    if not path.is_file():
        raise DataError(f"There is no file {location}.")
    return path


def find_path(location: str, root: Path) -> Path:
    """A file or folder by a path relative to the recipe or in a package, whether it is there or not.

    Raises:
        DataError: it lies elsewhere, or in a package that is not installed.
    """
    parsed = parse_location(location)
    match parsed:
        case LocalPath():
            return root / parsed.path
        case PackagePath():
            return _find_in_package(parsed)
        case _:
            raise DataError(f"{location} is neither a path nor in a package.")


def read_source(settings: SourceSettings, source: LocatedSource, dropped: Counter[str]) -> Iterator[Row]:
    """Rows of a source, one by one; what has no text, or is left out, is counted in ``dropped``.

    Raises:
        DataError: a file is torn or a row does not fit; names the file and the row, without its text.
    """
    format_ = settings.format
    taken = 0
    try:
        for file in source.files:
            for record in _read_file(settings, file):
                taken += 1
                fields = _rename(record.fields, settings)
                if format_ == "auto":
                    format_ = _recognise(fields, record)
                row = _make_row(settings, format_, fields, record)
                if row is None:
                    dropped["empty"] += 1
                elif fields.get("principle") in settings.leave_out:
                    dropped["left-out"] += 1
                else:
                    yield row
                if taken == settings.limit:
                    return
    except DataError as error:
        raise DataError(f"The source {settings.name}: {error}") from None
    if not taken:
        raise DataError(f"The source {settings.name} has no rows.")


def _find_in_package(location: PackagePath) -> Path:
    try:
        found = resources.files(location.package).joinpath(*location.path.parts)
    except (ImportError, TypeError, OSError) as error:
        raise DataError(f"The package {location.package} is not installed, or holds no files.") from error
    if not isinstance(found, Path):
        raise DataError(f"The package {location.package} is not installed as files on disk.")
    return found


def _find_web_file(
    settings: SourceSettings,
    location: WebFile,
    data_root: Path | None,
    downloads: Path,
    report: Callable[[str], None],
) -> Path:
    sha256 = settings.sha256 or ""
    if data_root is None:
        return fetch_url(location, sha256, settings.max_megabytes * 2**20, downloads, report)
    for name in (sha256, location.name):
        if (data_root / name).is_file():
            return data_root / name
    raise DataError(
        f"The source {settings.name}: the data root has neither {sha256} nor {location.name}, which stand for "
        f"{settings.location}."
    )


def _list_files(path: Path, name: str, settings: SourceSettings) -> tuple[SourceFile, ...]:
    """The files of a folder that are read: those with rows; where there are none, plain texts."""
    if not path.is_dir():
        if not is_source_file(name):
            known = ", ".join((*TEXT_SUFFIXES, *DATA_SUFFIXES))
            raise DataError(f"The source {settings.name}: {name} is of no type that is read ({known}).")
        return (SourceFile(name, path),)
    found = [
        SourceFile(inner.relative_to(path).as_posix(), inner)
        for inner in path.rglob("*")
        if inner.is_file() and not any(part.startswith(".") for part in inner.relative_to(path).parts)
    ]
    found = sorted((file for file in found if is_source_file(file.name)), key=lambda file: file.name)
    chosen = [file for file in found if not file.is_text] or found
    if not chosen:
        known = ", ".join((*TEXT_SUFFIXES, *DATA_SUFFIXES))
        raise DataError(f"The source {settings.name}: its folder has no file of a type that is read ({known}).")
    return tuple(chosen)


def _read_file(settings: SourceSettings, file: SourceFile) -> Iterator[Record]:
    if not file.is_text:
        return read_records(file, _COLUMNS | {_OTHER_SPELLING, *settings.fields.values()})
    if settings.format == "prompts":
        return read_prompt_lines(file)
    if settings.format in ("auto", "text"):
        return read_text_rows(file, settings.row_characters)
    raise DataError(f"{file.name} is plain text, and the format {settings.format} is read from JSONL or Parquet.")


def _rename(fields: Any, settings: SourceSettings) -> dict[str, Any]:  # noqa: ANN401 - a JSON object
    renamed = {name: value for name, value in fields.items() if name in _COLUMNS}
    # A row whose terms have the other spelling must not pass under the source's.
    if "licence" not in renamed and _OTHER_SPELLING in fields:
        renamed["licence"] = fields[_OTHER_SPELLING]
    for ours, theirs in settings.fields.items():
        renamed.pop(ours, None)
        if theirs in fields:
            renamed[ours] = fields[theirs]
    return renamed


def _recognise(fields: dict[str, Any], record: Record) -> Format:
    found = recognise_format(fields)
    if found is None:
        raise DataError(f"{record.place}: it has the columns of no known format; state format or fields.")
    return found


def _make_row(settings: SourceSettings, format_: Format, fields: dict[str, Any], record: Record) -> Row | None:
    try:
        content = parse_content(fields, format_)
        if content is None:
            return None
        return Row(
            row_id=content.compute_row_id(),
            content=content,
            source=settings.name,
            licence=_read_licence(fields, settings),
            generator=_read_label(fields, "generator") or settings.generator,
            principle=_find_principle(fields, settings),
        )
    except FormatError as error:
        raise DataError(f"{record.place}: it {error} (format {format_}).") from None
    except UnicodeEncodeError:
        raise DataError(f"{record.place}: its text is not valid Unicode.") from None


def _read_licence(fields: dict[str, Any], settings: SourceSettings) -> str:
    if "licence" not in fields:
        return settings.licence
    licence = fields["licence"]
    if licence is None or licence == "":
        raise FormatError("has an empty licence, and without one it trains nothing")
    if not isinstance(licence, str) or not is_licence_name(licence):
        raise FormatError("has a licence that is not one SPDX identifier or LicenseRef- name")
    return licence


def _find_principle(fields: dict[str, Any], settings: SourceSettings) -> str | None:
    found = _read_label(fields, "principle")
    return settings.principles.get(found or "") if settings.principles else found


def _read_label(fields: dict[str, Any], column: str) -> str | None:
    """A name in a row; None where it is null, and then a generator that the recipe states holds."""
    value = fields.get(column)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _LONGEST_LABEL:
        raise FormatError(f"has a {column} that is no name of at most {_LONGEST_LABEL} characters")
    return value
