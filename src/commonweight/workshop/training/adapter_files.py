"""Adapters as files: where they are, their digests, the record of what made them. Needs no training library."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from commonweight.lineage.digests import RECORD, LineageError, digest_content, digest_file
from commonweight.lineage.record import Record, decode_record
from commonweight.workshop.data.rows import DataError
from commonweight.workshop.data.sources import find_path
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tuning_settings import AdapterSettings

ADAPTER = "adapter"
"""Folder of a model folder that holds the adapter which was merged into it."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter in peft's layout, found and checked."""

    folder: Path
    digests: Mapping[str, str]
    """Of configuration and weights, by name."""
    record: Record | None
    """Of the stage that made it."""

    @property
    def weights(self) -> Path:
        return self.folder / ADAPTER_WEIGHTS


def find_adapter(settings: AdapterSettings, root: Path) -> AdapterFiles:
    """The files of an adapter; relative paths start at ``root``.

    Raises:
        TrainingError: they are not there, not those that the settings state, or of another record.
    """
    try:
        found = find_path(settings.location, root)
    except (DataError, ValueError) as error:
        raise TrainingError(f"the adapter {settings.location} is not found: {error}") from error
    if not found.exists():
        raise TrainingError(f"the adapter {settings.location} is not there")
    folder = found if found.is_dir() else found.parent
    if not found.is_dir() and found.name != ADAPTER_WEIGHTS:
        raise TrainingError(f"the adapter {settings.location} is neither a folder nor an {ADAPTER_WEIGHTS}")
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / name).is_file():
            raise TrainingError(f"the adapter {settings.location} has no {name}")
    digests = {name: digest_file(folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
    digest = digest_content(digests) if found.is_dir() else digests[ADAPTER_WEIGHTS]
    if settings.sha256 not in (None, digest):
        raise TrainingError(f"the adapter {settings.location} has the SHA-256 {digest}, not {settings.sha256}")
    return AdapterFiles(folder, digests, _read_record(settings, folder, digests))


def _read_record(settings: AdapterSettings, folder: Path, digests: Mapping[str, str]) -> Record | None:
    """The record beside an adapter, where there is one; it must name these very files."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = decode_record(path.read_bytes(), f"the {RECORD} of the adapter {settings.location}")
    except LineageError as error:
        raise TrainingError(str(error)) from error
    for name, digest in digests.items():
        stated = record.files.get(f"{ADAPTER}/{name}", record.files.get(name))
        if stated != digest:
            raise TrainingError(
                f"the {RECORD} of the adapter {settings.location} is of another one: its digest of {name} differs"
            )
    return record


def digest_weights(model: Path) -> str:
    """The digest of a model folder's weights: what an adapter states of its base."""
    return digest_content({path.name: digest_file(path) for path in sorted(model.glob("*.safetensors"))})
