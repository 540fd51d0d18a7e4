"""Resolution of model references to GGUF files on disk. The hub's client, slow to import, comes in only late."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from commonweight.catalog import hub_cache
from commonweight.catalog.gguf_names import is_model, match_quantisation, parse_quantisation
from commonweight.catalog.header import UnreadableModelError
from commonweight.catalog.nearest import find_nearest, format_suggestions
from commonweight.catalog.reference import (
    STARTER,
    FileReference,
    FolderReference,
    HubFileReference,
    HubRepoReference,
    ModelNotFoundError,
    StarterReference,
    parse_reference,
    suggest_hub_reference,
)
from commonweight.catalog.starter import find_starter, pull_starter
from commonweight.catalog.suggestions import SUGGESTIONS

PREFERRED_QUANTISATIONS = ("Q4_K_M", "Q4_0", "Q8_0")
"""Order of preference in a repository with several models, if the reference names none."""
MAX_NAMES_SHOWN = 12
_WHERE_NAMES_ARE = "models on this machine: `commonweight models list`; on the Hugging Face hub: hf:org/repo"


def resolve(text: str | None) -> Path:
    """The GGUF file that a reference names, downloaded from the hub if need be.

    A reference to a repository of the hub means the same as one to the file that is chosen there: what is
    cached of it is used, even if the branch has moved on since.

    Raises:
        ModelNotFoundError: there is no such model, or several, or the text is no reference.
        PullError: the hub or the package index cannot be reached, refuses, or has no such file.
        CorruptDownloadError: the content's SHA-256 is not the one that the hub states.
        UnreadableModelError: a folder cannot be read.
    """
    match parse_reference(text):
        case StarterReference():
            return find_starter() or pull_starter()
        case HubFileReference() as reference:
            from commonweight.catalog import hub

            return hub.pull(reference)
        case HubRepoReference() as reference:
            from commonweight.catalog import hub

            return hub.pull(_choose(reference, hub.list_models(reference)))
        case local:
            return _find_local(local)


def resolve_local(text: str | None) -> Path | None:
    """As :func:`resolve`, without the network: None for a model that would have to be pulled."""
    match parse_reference(text):
        case StarterReference():
            return find_starter()
        case HubFileReference() as reference:
            return hub_cache.find(reference)
        case HubRepoReference() as reference:
            with contextlib.suppress(ModelNotFoundError):  # the hub may have more
                return hub_cache.find(_choose(reference, hub_cache.list_cached_models(reference)))
            return None
        case local:
            return _find_local(local)


def _find_local(reference: FileReference | FolderReference) -> Path:
    match reference:
        case FolderReference(path):
            return _find_in_folder(path)
        case FileReference(path):
            try:
                path.stat()
            except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character
                advice = format_suggestions(_list_near(path)) or _explain_names(path)
                raise ModelNotFoundError(f"cannot read {path}: No such file or directory{advice}") from error
            except OSError:
                pass  # the reader reports it
            return path


def _choose(reference: HubRepoReference, names: Sequence[str]) -> HubFileReference:
    """The model meant, of those in the repository."""
    if not names:
        raise ModelNotFoundError(f"{reference} has no GGUF model; look for a repository whose name ends in -GGUF")
    files = {name: HubFileReference(reference.repo, name, reference.revision) for name in names}
    wanted = reference.quantisation
    matches = [names] if wanted is None and len(names) == 1 else []
    matches += [match_quantisation(names, one) for one in ([wanted] if wanted else PREFERRED_QUANTISATIONS)]
    found = next(filter(None, matches), [])
    if len(found) == 1:
        return files[found[0]]
    if found:
        raise ModelNotFoundError(
            f"{reference} fits several files, {_enumerate(found)}; name one, like {files[found[0]]}"
        )
    short: dict[str, str] = {}
    for name, file in files.items():
        label = parse_quantisation(name)
        short[label or name] = str(replace(reference, quantisation=label) if label else file)
    there = sorted(short, key=str.casefold)
    if wanted:
        near = format_suggestions([short[label] for label in find_nearest(wanted, there)])
        raise ModelNotFoundError(f"{reference} does not exist; the repository has {_enumerate(there)}{near}")
    raise ModelNotFoundError(
        f"{reference} has several models, {_enumerate(there)}; name one, like {short[there[0]]}"
    )


def _find_in_folder(folder: Path) -> Path:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise UnreadableModelError(f"cannot read {folder}: {error.strerror}") from error
    models = [name for name in names if is_model(name) and (folder / name).is_file()]
    if not models:
        raise ModelNotFoundError(f"{folder} holds no GGUF model; it holds {_enumerate(names) or 'nothing'}")
    if len(models) > 1:
        example = folder / models[0]
        raise ModelNotFoundError(f"{folder} holds several models, {_enumerate(models)}; name one, like {example}")
    return folder / models[0]


def _list_near(missing: Path) -> list[str]:
    """References to models that exist and look like one that does not."""
    known = {file.name: file for file in hub_cache.list_cached()}
    by_name = {STARTER: STARTER} | {name: hub_cache.make_cached_reference(file) for name, file in known.items()}
    if file := find_starter():
        by_name[file.name] = STARTER
    near = _list_near_paths(missing)
    if (form := suggest_hub_reference(str(missing))) and not Path(*missing.parts[:1]).exists():
        near.append(form)
    near += [by_name[name] for name in find_nearest(missing.name, by_name)]
    if not near and _is_name(missing):
        on_the_hub = {one.name: one.reference for one in SUGGESTIONS}
        near = [on_the_hub[name] for name in find_nearest(missing.name, on_the_hub, 1)]
    return list(dict.fromkeys(near))


def _explain_names(missing: Path) -> str:
    """The end of the error message for what looks like a model's name and is none."""
    return f"; {_WHERE_NAMES_ARE}" if _is_name(missing) else ""


def _is_name(missing: Path) -> bool:
    """Whether it rather looks like the name of a model than like a path."""
    return len(missing.parts) == 1 and missing.suffix != ".gguf" and missing.name.isprintable()


def _list_near_paths(missing: Path) -> list[str]:
    """Paths that differ in the first part that does not exist."""
    with contextlib.suppress(OSError, ValueError):
        folder = next((parent for parent in missing.parents if parent.is_dir()), Path())
        first, *rest = missing.relative_to(folder).parts
        near = find_nearest(first, sorted(entry.name for entry in folder.iterdir()))
        paths = [folder.joinpath(name, *rest) for name in near]
        there = (path for path in paths if path.is_dir() or (path.suffix == ".gguf" and path.exists()))
        return [str(FileReference(path)) for path in there]
    return []


def _enumerate(names: Sequence[str]) -> str:
    hidden = len(names) - MAX_NAMES_SHOWN
    shown = ", ".join(names[:MAX_NAMES_SHOWN])
    return f"{shown} and {hidden} more" if hidden > 0 else shown
