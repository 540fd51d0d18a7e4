"""Grammar of model references, which is the same wherever a model is named:

    starter                          the starter model; so does no reference at all
    path/to/model.gguf               a file
    path/to/folder                   the one GGUF model in a folder
    hf:org/repo[@revision]/file      a file on the Hugging Face hub
    hf:org/repo[@revision][:QUANT]   a model in a repository of the hub, by its quantisation

A file or folder called ``starter`` is written ``./starter``.
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.constants import DEFAULT_REVISION

STARTER = "starter"
_PREFIX = "hf:"
# The hub's rule for names, of which its client makes sure, too (huggingface_hub.utils.validate_repo_id).
_NAME = r"(?![^/@:]*(?:--|\.\.))\b[\w.-]{1,96}\b(?<!\.git)"
_SEGMENT = r"(?!\.{1,2}(?:/|$))[^/\\:\x00-\x1f]+"
_FILE = rf"{_SEGMENT}(?:/{_SEGMENT})*"
_HUB = re.compile(rf"hf:({_NAME}/{_NAME})(?:@(\w[\w.-]*))?(?:/({_FILE})|:([\w.-]+))?", re.ASCII)
_URL = re.compile(r"[A-Za-z][\w+.-]*://")
_HUB_SITE = re.compile(r"hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/")
_HUB_VIEW = re.compile(r"/(?:blob|raw|resolve|tree)/([^/]+)")


class ModelNotFoundError(LookupError):
    """No model fits the reference; the message names the nearest possibilities."""


class PullError(OSError):
    """A listing or download failed; the message says why and what to do."""


class BadReferenceError(ModelNotFoundError):
    """The text is no model reference; the message names the forms that are."""

    def __init__(self, text: str) -> None:
        if form := suggest_hub_reference(text):
            advice = f"did you mean {form}?"
        elif text.startswith(_PREFIX):
            advice = "write hf:org/repo[@revision][:QUANT] or hf:org/repo/file.gguf"
        else:
            advice = "write starter, the path of a GGUF file or of its folder, or hf:org/repo/file.gguf"
        super().__init__(f"{text!r} is no model reference; {advice}")


@dataclass(frozen=True)
class StarterReference:
    """The starter model."""

    def __str__(self) -> str:
        return STARTER


@dataclass(frozen=True)
class FileReference:
    """A path that is no folder, whether it exists or not."""

    path: Path

    def __str__(self) -> str:
        return _write_path(self.path)


@dataclass(frozen=True)
class FolderReference:
    """A folder that exists."""

    path: Path

    def __str__(self) -> str:
        return _write_path(self.path)


@dataclass(frozen=True)
class HubFileReference:
    """A file in a repository of the hub."""

    repo: str
    name: str
    """Its path in the repository, with slashes."""
    revision: str = DEFAULT_REVISION
    """A branch, tag or commit."""

    def __str__(self) -> str:
        return f"{_write_repo(self.repo, self.revision)}/{self.name}"


@dataclass(frozen=True)
class HubRepoReference:
    """A model in a repository of the hub."""

    repo: str
    quantisation: str | None = None
    """None: the only one, or a usual one."""
    revision: str = DEFAULT_REVISION
    """A branch, tag or commit."""

    def __str__(self) -> str:
        suffix = f":{self.quantisation}" if self.quantisation else ""
        return f"{_write_repo(self.repo, self.revision)}{suffix}"


ModelReference = StarterReference | FileReference | FolderReference | HubFileReference | HubRepoReference


def parse_reference(text: str | None) -> ModelReference:
    """Read a model reference. The file system is only asked whether a path is a folder.

    Raises:
        BadReferenceError: the text has none of the forms.
    """
    if text is None or text == STARTER:
        return StarterReference()
    if not text or text.startswith(_PREFIX) or _URL.match(text):
        reference = _parse_hub(text)
        if reference is None:
            raise BadReferenceError(text)
        return reference
    path = Path(text)
    with contextlib.suppress(RuntimeError):  # ~name of no user
        path = path.expanduser()
    with contextlib.suppress(OSError):
        if path.is_dir():
            return FolderReference(path)
    return FileReference(path)


def suggest_hub_reference(text: str) -> str | None:
    """The reference that ``org/repo``, ``org/repo/file.gguf`` or the URL of a page on the hub stands for."""
    bare = _HUB_SITE.sub("", text.split("?", maxsplit=1)[0], count=1).rstrip("/")
    reference = _parse_hub(_PREFIX + _HUB_VIEW.sub(r"@\1", bare, count=1))
    match reference:
        case HubFileReference(name=name) if name.endswith(".gguf"):
            return str(reference)
        case HubRepoReference(repo=repo) if not repo.endswith(".gguf"):
            return str(reference)
    return None


def is_hub_file_name(name: str) -> bool:
    """Whether a file in a repository of the hub can be named: it stays inside of a folder that it is joined to."""
    return re.fullmatch(_FILE, name) is not None


def _parse_hub(text: str) -> HubFileReference | HubRepoReference | None:
    match = _HUB.fullmatch(text)
    if match is None:
        return None
    repo, revision, name, quantisation = match.groups()
    revision = revision or DEFAULT_REVISION
    return HubFileReference(repo, name, revision) if name else HubRepoReference(repo, quantisation, revision)


def _write_repo(repo: str, revision: str) -> str:
    return f"{_PREFIX}{repo}" + ("" if revision == DEFAULT_REVISION else f"@{revision}")


def _write_path(path: Path) -> str:
    text = str(path)
    return f"./{text}" if text == STARTER or text.startswith(_PREFIX) else text
