"""The manifest of an exported training: what a cluster was given, and what its run is held against."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from commonweight.lineage.digests import digest_file
from commonweight.lineage.record import Sha256
from commonweight.workshop.data.manifest import ProvenanceGroup
from commonweight.workshop.recipe.stage_kind import RecipeError, Stage, StageInput
from commonweight.workshop.training.trainer_config import ROWS, RUN, RowCounts, Trainer

MANIFEST = "MANIFEST.json"
_MAX_BYTES = 64 * 2**20


class ManifestInput(BaseModel):
    """An output that the training begins with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    stage: str
    content: Sha256
    """Digest of its files."""
    record: Sha256
    """Identity of its record."""


class ClusterManifest(BaseModel):
    """``MANIFEST.json`` of an exported training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["commonweight-training/1"] = "commonweight-training/1"
    recipe: str
    stage: str
    trainer: Trainer
    settings: dict[str, JsonValue]
    """The stage's entry in the effective recipe."""
    inputs: tuple[ManifestInput, ...]
    licences: tuple[str, ...]
    """Of all material in rows and model."""
    generators: tuple[str, ...]
    provenance: tuple[ProvenanceGroup, ...]
    """Origin, licence and generator of the rows, with a digest of their ids."""
    rows: RowCounts
    tools: dict[str, str]
    files: dict[str, Sha256]
    """Digest of every other file of the folder, by its path."""

    def check_stage(self, name: str, spec: Stage, inputs: tuple[StageInput, ...]) -> None:
        """Compare what was exported with a stage as it would run now.

        Raises:
            RecipeError: it is another stage, or has other inputs or settings.
        """
        if self.stage != name:
            raise RecipeError(f"The run is of the stage {self.stage!r} by its {MANIFEST}, not of {name!r}.")
        exported = {(item.role, item.stage): item.content for item in self.inputs}
        for item in inputs:
            if exported.pop((item.role, item.stage), None) != item.record.content:
                raise RecipeError(
                    f"The run was trained with another {item.role}: the output of {item.stage} is not what "
                    f"its {MANIFEST} names."
                )
        settings = spec.model_dump(mode="json", by_alias=True)
        # Fields that a later version has added are not compared: the run had their defaults.
        changed = sorted(key for key, value in self.settings.items() if settings.get(key) != value)
        if exported or changed:
            what = changed[0] if changed else f"the input {min(stage for _, stage in exported)}"
            raise RecipeError(f"The run was exported with other settings of {name}: {what} differs.")

    def check_rows(self, folder: Path) -> None:
        """Compare the rows that came back with a run, where they did, with those that went out.

        Raises:
            RecipeError: a file has changed.
        """
        for name, digest in self.files.items():
            if name.startswith(f"{ROWS}/") and (folder / name).is_file() and digest_file(folder / name) != digest:
                raise RecipeError(
                    f"{name} of the run is not the file that its {MANIFEST} names: its digest differs."
                )


def read_cluster_manifest(folder: Path) -> ClusterManifest | None:
    """Read the manifest of a folder; None where it has none.

    Raises:
        RecipeError: it has one that cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise RecipeError(f"{path} is larger than {_MAX_BYTES // 2**20} MiB.")
    try:
        return ClusterManifest.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise RecipeError(f"{path} is not the manifest of an exported training.") from error


def find_run(folder: Path) -> Path:
    """Where the weights are: in ``run/`` of an exported folder that came back, else in the folder itself."""
    return folder / RUN if (folder / RUN).is_dir() else folder
