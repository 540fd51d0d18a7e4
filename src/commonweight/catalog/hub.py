"""Hugging Face hub client: lists repositories, downloads files into the hub's cache, and checks their SHA-256.

In that cache ``snapshots/<commit>/<file>`` links to ``blobs/<etag>``, and the etag of a large (LFS) file is
the SHA-256 of its content (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so what the hub
stated about a file stays known offline.
"""

import logging
import re
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
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
from commonweight.catalog.gguf_names import is_model, list_parts, match_quantisation
from commonweight.catalog.nearest import find_nearest, format_suggestions
from commonweight.catalog.reference import (
    BadReferenceError,
    HubFileReference,
    HubRepoReference,
    is_hub_file_name,
    parse_reference,
)

log = logging.getLogger(__name__)

_LISTING_TIMEOUT_SECONDS = 10
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PullError(OSError):
    """A listing or download failed; the message says why and what to do."""


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
    first, *others = _list_parts(reference)
    if _find(first) is None:
        _fetch_config(reference)
    path = _fetch(first)
    # A branch may move between two parts, and llama.cpp looks for all of them in the first one's folder.
    commit = path.parents[first.name.count("/")].name
    for part in others:
        _fetch(replace(part, revision=commit))
    return path


def find(reference: HubFileReference) -> Path | None:
    """The file that :func:`pull` would give without a download, unchecked."""
    return _find(_list_parts(reference)[0])


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


def list_cached_models(reference: HubRepoReference) -> list[str]:
    """Names of the GGUF models in the local cache that fit the reference, sorted."""
    folder = _cache() / f"models--{reference.repo.replace('/', '--')}"
    ref = folder / "refs" / reference.revision
    snapshot = folder / "snapshots" / (ref.read_text() if ref.is_file() else reference.revision)
    found = (path for path in snapshot.glob("**/*.gguf") if path.exists())
    names = (path.relative_to(snapshot).as_posix() for path in found)
    models = sorted(name for name in names if is_model(name))
    return match_quantisation(models, reference.quantisation) if reference.quantisation else models


def list_cached() -> list[Path]:
    """GGUF models in the local cache, sorted by path: of a split one its first part, of all every snapshot."""
    # Not scan_cache_dir: it leaves out a whole repository once one ref or link in it leads nowhere.
    found = _cache().glob("models--*/snapshots/*/**/*.gguf")
    return sorted(path for path in found if path.exists() and is_model(path.name))


def make_cached_reference(path: Path) -> str:
    """The reference to a file that :func:`list_cached` lists; its path if there is none."""
    folder, _, commit, *name = path.relative_to(_cache()).parts
    repo = folder.removeprefix("models--").replace("--", "/", 1)
    try:
        reference = parse_reference(f"hf:{repo}/{'/'.join(name)}")
    except BadReferenceError:
        return str(path)
    if not isinstance(reference, HubFileReference) or reference.repo != repo:
        return str(path)
    return str(reference if _find(reference) == path else replace(reference, revision=commit))


def _cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


def _list_parts(reference: HubFileReference) -> list[HubFileReference]:
    return [replace(reference, name=name) for name in list_parts(reference.name)]


def _list_files(reference: HubRepoReference | HubFileReference) -> list[str]:
    api = HfApi()
    found = api.model_info(reference.repo, revision=reference.revision, timeout=_LISTING_TIMEOUT_SECONDS)
    return [file.rfilename for file in found.siblings or [] if is_hub_file_name(file.rfilename)]


def _find(file: HubFileReference) -> Path | None:
    # Not hf_hub_download(local_files_only=True): it may go online, for a user agent it then never sends.
    found = try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    return Path(found) if isinstance(found, str) else None


def _fetch(file: HubFileReference) -> Path:
    found: Path | str | None = _find(file)
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


def find_stated_sha256(path: Path) -> str | None:
    """SHA-256 that the hub states for a file in its cache; None if it states none."""
    # One hop only: a blob may itself link to the store that repositories share, where names are xet hashes.
    # Small files kept in plain git have a 40-digit etag, and a file system without links loses the etag.
    blob = _find_blob(path)
    return blob.name if _SHA256.fullmatch(blob.name) else None


def _find_blob(path: Path) -> Path:
    return path.parent / path.readlink() if path.is_symlink() else path


def _check(path: Path) -> None:
    stated = find_stated_sha256(path)
    found = stated and compute_sha256(path)
    if found != stated:
        for step in (path.resolve(), _find_blob(path), path):
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
