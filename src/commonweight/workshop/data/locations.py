"""Where a source lies, as a recipe writes it: a path, ``hf:``, ``package:`` or a URL."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"hf:(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>{_NAME}))?(?:/(?P<path>.+))?")
_PACKAGE = re.compile(r"package:(?P<package>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)/(?P<path>.+)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BRANCHES = ("main", "master")


@dataclass(frozen=True)
class LocalPath:
    """A file or folder; the path is relative to the recipe's folder."""

    path: PurePosixPath


@dataclass(frozen=True)
class HubPath:
    """A dataset repository on the hub, or a file or folder in it."""

    repo: str
    revision: str
    path: PurePosixPath | None = None

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which names one content for ever."""
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True)
class WebFile:
    """A file on the web."""

    url: str
    name: str
    """The last part of its path, which tells its type."""


@dataclass(frozen=True)
class PackagePath:
    """A file or folder in an installed Python package."""

    package: str
    path: PurePosixPath


Location = LocalPath | HubPath | WebFile | PackagePath


def parse_location(text: str) -> Location:
    """What ``from`` says.

    Raises:
        ValueError: it is none of the four; says what is wrong in a sentence.
    """
    if text.startswith("hf:"):
        return _parse_hub(text)
    if text.startswith("package:"):
        match = _PACKAGE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} does not name a file in a package; write package:NAME/path.")
        return PackagePath(match["package"], _parse_inner_path(match["path"], text))
    if "://" in text:
        return _parse_url(text)
    path = PurePosixPath(text)
    if path.is_absolute() or "\\" in text or not text.strip():
        raise ValueError(f"{text!r} is no path relative to the recipe, written with forward slashes.")
    return LocalPath(path)


def _parse_hub(text: str) -> HubPath:
    match = _HUB.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} does not name a dataset on the hub; write hf:org/name@revision or .../path.")
    revision = match["revision"]
    if revision is None or revision in _BRANCHES:
        raise ValueError(f"{text!r} names no fixed content; write a commit or a tag after @.")
    path = _parse_inner_path(match["path"], text) if match["path"] else None
    return HubPath(match["repo"], revision, path)


def _parse_url(text: str) -> WebFile:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{text!r} is no URL.") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(f"{text!r} is no http or https URL.")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"The URL of a source on {host} holds a password, which its record would publish.")
    name = PurePosixPath(unquote(parts.path)).name
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{text!r} does not end in the name of a file.")
    return WebFile(text, name)


def _parse_inner_path(path: str, text: str) -> PurePosixPath:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path:
        raise ValueError(f"{text!r} leaves its folder, or has an empty step in its path.")
    return PurePosixPath(path)
