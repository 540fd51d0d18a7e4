"""The stage that compiles a charter for a model: a bundle with heads on the model's own states."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from commonweight.charter import DEFAULT
from commonweight.lineage.digests import digest_file
from commonweight.lineage.errors import WorkshopError
from commonweight.runtime.charter import read_charter
from commonweight.runtime.data import DataFolder
from commonweight.runtime.errors import UserError
from commonweight.workshop.heads.compile import CompileSettings, compile_charter
from commonweight.workshop.heads.settings import BUNDLE, CHARTER, GuardSettings
from commonweight.workshop.heads.sources import SourceError, find_files
from commonweight.workshop.settings import DEFAULT_CHARTER


def digest_sources(settings: GuardSettings, root: Path) -> dict[str, str]:
    """Digest what a bundle is made of, besides the model: the charter and the files of texts, by name.

    Raises:
        WorkshopError: one of them is not there.
    """
    found = {"charter": find_charter(settings, root), **{path.name: path for path in list_texts(settings, root)}}
    try:
        return {name: digest_file(path) for name, path in found.items()}
    except OSError as error:
        raise WorkshopError(f"{error.filename}: {error.strerror}.") from None


def find_charter(settings: GuardSettings, root: Path) -> Path:
    """Find the charter's file."""
    return Path(str(DEFAULT)) if settings.charter == DEFAULT_CHARTER else root / settings.charter


def list_texts(settings: GuardSettings, root: Path) -> list[Path]:
    """List the files of labelled texts.

    Raises:
        WorkshopError: there is none, or two have one name, which tells a source.
    """
    try:
        files = list(find_files([root / path for path in settings.texts]))
    except OSError as error:
        raise WorkshopError(f"{error.filename}: {error.strerror}.") from None
    names = [path.name for path in files]
    if not files or len(set(names)) < len(names):
        raise WorkshopError("texts names no file, or two files of one name; a source is known by its file's name.")
    return files


def run_guard(
    settings: GuardSettings, model: Path, root: Path, output: Path, cache: Path, report: Callable[[str], None]
) -> dict[str, float]:
    """Compile the charter into the output folder, with the charter beside it.

    Args:
        model: the GGUF file whose states heads are trained on; it is served with the bundle.
        cache: private folder of vectors and states, from which a run that was stopped goes on.

    Raises:
        WorkshopError: a bundle cannot be made of what is there.
    """
    charter = find_charter(settings, root)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    compile_settings = CompileSettings(
        texts=list_texts(settings, root), model=str(model), most=settings.most, cache=cache
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            bundle = compile_charter(
                read_charter(charter), compile_settings, DataFolder(Path(folder)), report=report
            )
    except (UserError, SourceError) as error:
        raise WorkshopError(f"{error}.") from error
    bundle.save(output / BUNDLE, None)
    (output / CHARTER).write_bytes(charter.read_bytes())
    return {"sources": float(len(bundle.manifest.sources))}
