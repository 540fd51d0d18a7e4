"""Weights from the Hugging Face hub: from ``hf:org/repo/file.gguf`` to a checked file in the hub's own cache.

In that cache ``snapshots/<commit>/<file>`` links to ``blobs/<etag>``, and the etag of a large (LFS) file is
the SHA-256 of its content (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so what the hub
stated about a file stays known offline.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from commonweight.catalog.checksum import sha256_of

_REFERENCE = re.compile(r"hf:([^/@]+/[^/@]+)(?:@(\w[\w.-]*))?/(.*[^/])")
_PART = re.compile(r"(.+)-\d{5}-of-(?!00000)(\d{5})\.gguf")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BadReferenceError(ValueError):
    """The text is no reference to a file on the hub."""

    def __init__(self, reference: str) -> None:
        super().__init__(
            f"{reference!r} names no file on the hub; "
            "write hf:org/repo/file.gguf or hf:org/repo@revision/file.gguf"
        )


class PullError(OSError):
    """The hub did not hand the file over; the message says why and what to do."""


class CorruptDownloadError(OSError):
    """The content is not what the hub states; the file has been removed from the cache."""


@dataclass(frozen=True)
class _HubFile:
    repo: str
    revision: str
    name: str

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}/{self.name}"

    @classmethod
    def parse(cls, reference: str) -> "_HubFile":
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise BadReferenceError(reference)
        repo, revision, name = match.groups(default=constants.DEFAULT_REVISION)
        return cls(repo, revision, name)

    def parts(self) -> list["_HubFile"]:
        """Every file of a split GGUF in order (llama.cpp's naming, from 00001), or the one file it is."""
        match = _PART.fullmatch(self.name)
        if match is None:
            return [self]
        stem, total = match.groups()
        return [replace(self, name=f"{stem}-{i:05}-of-{total}.gguf") for i in range(1, int(total) + 1)]


def pull(reference: str) -> Path:
    """The local file for ``hf:org/repo[@revision]/file.gguf``; of a split GGUF, pull all and give the first.

    What is in the local cache is used without asking the hub, even if a branch has moved on since. Within one
    call a broken connection is taken up where it broke; after a call that failed, a file starts afresh.

    Raises:
        BadReferenceError: the reference has another form.
        PullError: the hub cannot be reached, refuses, or has no such file.
        CorruptDownloadError: the content's SHA-256 is not the one that the hub states.
    """
    first, *others = _HubFile.parse(reference).parts()
    path = _fetch(first)
    # A branch may move between two parts, and llama.cpp looks for all of them in the first one's folder.
    commit = path.parents[first.name.count("/")].name
    for part in others:
        _fetch(replace(part, revision=commit))
    return path


def list_cached() -> list[Path]:
    """GGUF models in the local cache, sorted by path: of a split one its first part, of all every snapshot."""
    # Not scan_cache_dir: it leaves out a whole repository once one ref or link in it leads nowhere.
    found = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/**/*.gguf")
    return sorted(path for path in found if path.exists() and not _LATER_PART.search(path.name))


def find(reference: str) -> Path | None:
    """The file that :func:`pull` would give without a download, unchecked.

    Raises:
        BadReferenceError: the reference has another form.
    """
    return _find(_HubFile.parse(reference).parts()[0])


def _find(file: _HubFile) -> Path | None:
    try:
        # Not hf_hub_download(local_files_only=True): it may go online, for a user agent it then never sends.
        found = try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    except ValueError as error:
        raise BadReferenceError(str(file)) from error
    return Path(found) if isinstance(found, str) else None


def _fetch(file: _HubFile) -> Path:
    found: Path | str | None = _find(file)
    if found is None:
        try:
            found = hf_hub_download(file.repo, file.name, revision=file.revision)
        except Exception as error:  # the client's own, httpx's and xet's share no narrower class
            raise PullError(f"cannot pull {file}: {_explain(file, error)}") from error
    path = Path(found)
    _check(path)
    return path


def stated_sha256(path: Path) -> str | None:
    """What the hub states about a file in its cache; None where it states nothing."""
    # One hop only: a blob may itself link to the store that repositories share, where names are xet hashes.
    # Small files kept in plain git have a 40-digit etag, and a file system without links loses the etag.
    blob = _blob(path)
    return blob.name if _SHA256.fullmatch(blob.name) else None


def _blob(path: Path) -> Path:
    return path.parent / path.readlink() if path.is_symlink() else path


def _check(path: Path) -> None:
    stated = stated_sha256(path)
    found = stated and sha256_of(path)
    if found != stated:
        for step in (path.resolve(), _blob(path), path):
            step.unlink(missing_ok=True)
        raise CorruptDownloadError(
            f"{path.name} is corrupt: the hub states SHA-256 {stated}, the content has {found}; "
            "it is removed, and running this again downloads it afresh"
        )


def _explain(file: _HubFile, error: BaseException) -> str:
    # The client reports most failures to reach the hub as "not in the cache", caused by the real one.
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    page = f"{constants.ENDPOINT}/{file.repo}"
    match error:
        case GatedRepoError():
            why = f"access needs its owner's consent; ask at {page}, then log in with `hf auth login`"
        case RepositoryNotFoundError():
            why = "no such repository, or a private one; check the spelling, or log in with `hf auth login`"
        case RevisionNotFoundError():
            why = f"the repository has no such revision; its branches and tags are at {page}/tree/main"
        case RemoteEntryNotFoundError():
            why = f"the repository has no such file; its files are at {page}/tree/{file.revision}"
        case HfHubHTTPError(response=response) if response.status_code in (401, 403):
            why = f"the hub refused (HTTP {response.status_code}); log in with `hf auth login`"
        case HfHubHTTPError(response=response):
            why = f"the hub answered HTTP {response.status_code}; try again later"
        case OfflineModeIsEnabled():
            why = "it is not in the local cache, and HF_HUB_OFFLINE is set; unset it and try again"
        case OSError(strerror=str(reason)):
            why = f"{reason}; check the disk that holds {constants.HF_HUB_CACHE}"
        case _:
            detail = f"{type(error).__name__}: {error}".splitlines()[0]
            why = f"the download broke off ({detail}); check the connection and try again"
    return why
