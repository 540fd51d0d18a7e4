"""Downloads of sources from the hub and from the web."""

from collections.abc import Callable
from pathlib import Path

import httpx

from commonweight.lineage.digests import digest_file
from commonweight.workshop.data.locations import HubPath, WebFile
from commonweight.workshop.data.readers import DATA_SUFFIXES, TEXT_SUFFIXES, is_source_file
from commonweight.workshop.data.rows import DataError

_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 2**20
_HTTP_PARTIAL = 206
_HTTP_RANGE_REFUSED = 416


def fetch_hub(location: HubPath) -> tuple[Path, str]:
    """The file or folder in the hub client's cache, and the commit.

    Raises:
        DataError: the hub cannot be reached, refuses, or has no such dataset, tag or file.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    commit = location.revision if location.is_commit else _find_tag(location)
    try:
        if location.path is not None and is_source_file(location.path.name):
            found = hf_hub_download(location.repo, str(location.path), repo_type="dataset", revision=commit)
            return Path(found), commit
        inside = f"{location.path}/" if location.path else ""
        patterns = [f"{inside}*{suffix}" for suffix in (*DATA_SUFFIXES, *TEXT_SUFFIXES)]
        folder = snapshot_download(location.repo, repo_type="dataset", revision=commit, allow_patterns=patterns)
    except Exception as error:  # the client's own, httpx's and xet's share no narrower class
        raise _describe_failure(location, error) from error
    return Path(folder) / (location.path or ""), commit


def fetch_url(
    location: WebFile, sha256: str, most_bytes: int, folder: Path, report: Callable[[str], None]
) -> Path:
    """The downloaded file. A download that broke off goes on where it did.

    Raises:
        DataError: the server cannot be reached or refuses, or the file is too large or another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole, part = folder / sha256, folder / f"{sha256}.part"
    if whole.is_file():
        return whole
    try:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=True) as client:
            _download(client, location, part, most_bytes, report)
    except httpx.HTTPStatusError as error:
        raise DataError(
            f"Cannot download {location.url}: the server answers {error.response.status_code}."
        ) from None
    except httpx.HTTPError as error:
        raise DataError(f"Cannot download {location.url}: {type(error).__name__}; try again to go on.") from None
    found = digest_file(part)
    if found != sha256:
        part.unlink()
        raise DataError(
            f"{location.url} has changed: the recipe states the digest {sha256}, the content has {found}."
        )
    part.rename(whole)
    return whole


def _download(
    client: httpx.Client, location: WebFile, part: Path, most_bytes: int, report: Callable[[str], None]
) -> None:
    start = part.stat().st_size if part.exists() else 0
    # The digest is that of the file, not of what a server makes of it on the way.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", location.url, headers=headers) as response:
        if start and response.status_code == _HTTP_RANGE_REFUSED:
            return  # whole already; the digest tells
        response.raise_for_status()
        if response.status_code != _HTTP_PARTIAL:
            start = 0
        report(f"downloading {location.name}" + (f" from byte {start}" if start else ""))
        size = start
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in response.iter_raw(_CHUNK_BYTES):
                size += len(chunk)
                if size > most_bytes:
                    raise DataError(
                        f"{location.url} is larger than the {most_bytes // 2**20} MB that max_megabytes allows."
                    )
                file.write(chunk)


def _find_tag(location: HubPath) -> str:
    from huggingface_hub import HfApi

    try:
        tags = HfApi().list_repo_refs(location.repo, repo_type="dataset").tags
    except Exception as error:  # as for downloads
        raise _describe_failure(location, error) from error
    for tag in tags:
        if tag.name == location.revision:
            return tag.target_commit
    raise DataError(f"hf:{location.repo} has no tag {location.revision}; name a commit or a tag, not a branch.")


def _describe_failure(location: HubPath, error: Exception) -> DataError:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            why = "access needs its owner's consent; ask for it on its page, then log in with `hf auth login`"
        case RepositoryNotFoundError():
            why = "no such dataset, or a private one; check the spelling, or log in with `hf auth login`"
        case RevisionNotFoundError():
            why = f"no such revision: {location.revision}"
        case LocalEntryNotFoundError() | OfflineModeIsEnabled():
            why = "the hub cannot be reached and the local cache does not have it; or use --data-root with a copy"
        case EntryNotFoundError():
            why = f"no such file: {location.path}"
        case _:
            why = type(error).__name__
    return DataError(f"Cannot fetch hf:{location.repo}@{location.revision}: {why}.")
