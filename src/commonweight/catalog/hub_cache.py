"""What lies in the local cache of the Hugging Face hub. Imports nothing of its client that takes long.

In that cache ``snapshots/<commit>/<file>`` links to ``blobs/<etag>``, and the etag of a large (LFS) file is
the SHA-256 of its content (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so what the hub
stated about a file stays known offline.
"""

import re
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants

from commonweight.catalog.gguf_names import is_model, list_parts, match_quantisation
from commonweight.catalog.reference import BadReferenceError, HubFileReference, HubRepoReference, parse_reference

_SHA256 = re.compile(r"[0-9a-f]{64}")


def find(reference: HubFileReference) -> Path | None:
    """The file in the local cache, unchecked; of a split GGUF the first part."""
    return find_file(list_file_parts(reference)[0])


def find_file(file: HubFileReference) -> Path | None:
    """The very file in the local cache."""
    # As the client's try_to_load_from_cache, which comes with all of the client.
    snapshot = _find_snapshot(file)
    path = snapshot / file.name
    return path if path.is_file() else None


def list_file_parts(reference: HubFileReference) -> list[HubFileReference]:
    """A file on the hub; of a split GGUF, all its parts in order."""
    return [replace(reference, name=name) for name in list_parts(reference.name)]


def list_cached_models(reference: HubRepoReference) -> list[str]:
    """Names of the GGUF models in the local cache that fit the reference, sorted."""
    snapshot = _find_snapshot(reference)
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
    return str(reference if find_file(reference) == path else replace(reference, revision=commit))


def find_stated_sha256(path: Path) -> str | None:
    """SHA-256 that the hub states for a file in its cache; None if it states none."""
    # One hop only: a blob may itself link to the store that repositories share, where names are xet hashes.
    # Small files kept in plain git have a 40-digit etag, and a file system without links loses the etag.
    blob = find_blob(path)
    return blob.name if _SHA256.fullmatch(blob.name) else None


def find_blob(path: Path) -> Path:
    """The file that an entry of a snapshot links to, one step on."""
    return path.parent / path.readlink() if path.is_symlink() else path


def _find_snapshot(reference: HubFileReference | HubRepoReference) -> Path:
    """The folder of the revision's files, which may not exist."""
    folder = _cache() / f"models--{reference.repo.replace('/', '--')}"
    ref = folder / "refs" / reference.revision
    return folder / "snapshots" / (ref.read_text() if ref.is_file() else reference.revision)


def _cache() -> Path:
    return Path(constants.HF_HUB_CACHE)
