"""Hugging Face hub client: lists repositories, downloads files into the hub's cache, and checks their SHA-256."""

import logging
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from commonweight.catalog.checksum import compute_sha256
from commonweight.catalog.generation import CONFIG_FILE
from commonweight.catalog.gguf_names import is_model
from commonweight.catalog.hub_cache import (
    find_blob,
    find_file,
    find_stated_sha256,
    list_cached_models,
    list_file_parts,
)
from commonweight.catalog.nearest import find_nearest, format_suggestions
from commonweight.catalog.reference import HubFileReference, HubRepoReference, PullError, is_hub_file_name

log = logging.getLogger(__name__)

_LISTING_TIMEOUT_SECONDS = 10


class CorruptDownloadError(OSError):
    """The content is not what the hub states; the file has been removed from the cache."""


def pull(reference: HubFileReference) -> Path:
    """The local file for a file on the hub; of a split GGUF, pull all parts and give the first.

    What is in the local cache is used without asking the hub, even if a branch has moved on since. Within one
    call a broken connection is taken up where it broke; after a call that failed, a file starts afresh.

    Raises:
        PullError: the hub cannot be reached, refuses, or has no such file.
        CorruptDownloadError: the content's SHA-256 is not the one that the hub states.
    """
    first, *others = list_file_parts(reference)
    if find_file(first) is None:
        _fetch_config(reference)
    path = _fetch(first)
    # A branch may move between two parts, and llama.cpp looks for all of them in the first one's folder.
    commit = path.parents[first.name.count("/")].name
    for part in others:
        _fetch(replace(part, revision=commit))
    return path


def list_models(reference: HubRepoReference) -> list[str]:
    """Names of the GGUF models in a repository, sorted; of split ones, of the first part.

    If the hub gives no answer, those in the local cache that fit the reference.

    Raises:
        PullError: the hub gives none, and the cache has nothing that fits.
    """
    try:
        names = _list_files(reference)
    except Exception as error:  # as for downloads
        cached = list_cached_models(reference)
        why = _explain(reference, error)
        if not cached:
            raise PullError(f"cannot list {reference}: {why}") from error
        if not isinstance(error, OfflineModeIsEnabled):
            log.warning("cannot list %s: %s; its models in the local cache are used", reference, why)
        return cached
    return sorted(name for name in names if is_model(name))


def _list_files(reference: HubRepoReference | HubFileReference) -> list[str]:
    api = HfApi()
    found = api.model_info(reference.repo, revision=reference.revision, timeout=_LISTING_TIMEOUT_SECONDS)
    return [file.rfilename for file in found.siblings or [] if is_hub_file_name(file.rfilename)]


def _fetch(file: HubFileReference) -> Path:
    found: Path | str | None = find_file(file)
    if found is None:
        try:
            found = hf_hub_download(file.repo, file.name, revision=file.revision)
        except Exception as error:  # the client's own, httpx's and xet's share no narrower class
            raise PullError(f"cannot pull {file}: {_explain(file, error)}") from error
    path = Path(found)
    _check(path)
    return path


def _fetch_config(reference: HubFileReference) -> None:
    """Download what the publisher recommends for sampling, if the repository has it."""
    config = replace(reference, name=str(Path(reference.name).with_name(CONFIG_FILE)))
    try:
        hf_hub_download(config.repo, config.name, revision=config.revision)
    except Exception as error:  # as for models; what keeps them from coming is told there
        log.debug("no %s: %s", config, error)


def _check(path: Path) -> None:
    stated = find_stated_sha256(path)
    found = stated and compute_sha256(path)
    if found != stated:
        for step in (path.resolve(), find_blob(path), path):
            step.unlink(missing_ok=True)
        raise CorruptDownloadError(
            f"{path.name} is corrupt: the hub states SHA-256 {stated}, the content has {found}; "
            "it is removed, and running this again downloads it afresh"
        )


def _explain(reference: HubFileReference | HubRepoReference, error: BaseException) -> str:
    # The client reports most failures to reach the hub as "not in the cache", caused by the real one.
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    page = f"{constants.ENDPOINT}/{reference.repo}"
    match error:
        case GatedRepoError():
            why = f"access needs its owner's consent; ask at {page}, then log in with `hf auth login`"
        case RepositoryNotFoundError():
            why = "no such repository, or a private one; check the spelling, or log in with `hf auth login`"
        case RevisionNotFoundError():
            why = f"the repository has no such revision; its branches and tags are at {page}/tree/main"
        case RemoteEntryNotFoundError():
            why = f"the repository has no such file; its files are at {page}/tree/{reference.revision}"
            if isinstance(reference, HubFileReference):
                why += format_suggestions(_list_near(reference))
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
            why = f"the connection broke off ({detail}); check the connection and try again"
    return why


def _list_near(missing: HubFileReference) -> list[str]:
    try:
        names = _list_files(missing)
    except Exception:  # the advice is left out
        return []
    return [str(replace(missing, name=name)) for name in find_nearest(missing.name, filter(is_model, names))]
