"""Stages that take a model in from a file, and write it out into files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from commonweight.lineage.provenance import Material, check_material, require_material
from commonweight.lineage.record import PARITY
from commonweight.workshop.export.settings import ExportSettings, ImportSettings
from commonweight.workshop.recipe.forecast import Forecast, ModelSize, read_model_size
from commonweight.workshop.recipe.stage_kind import (
    ENGINE_TOOLS,
    EXPORT_TOOLS,
    MODELS,
    ROWS,
    TRAINING_TOOLS,
    Reference,
    Stage,
    StageName,
    StageResult,
    StageRun,
    make_kind,
    observe,
    select_settings,
)


class ImportStage(Stage, ImportSettings):
    """A base model from a GGUF file."""

    kind: Literal["import"]
    trained_tokens: int | None = Field(default=None, ge=1)
    """Tokens that it was trained on, as its publisher states; the gate's row on compute asks for it."""


class ExportStage(Stage, ExportSettings):
    """GGUF files of a model, with a parity report."""

    kind: Literal["export"]
    model: StageName
    text: StageName
    """Rows whose text parity is measured on."""

    def list_references(self) -> tuple[Reference, ...]:
        return Reference("model", self.model, ("model",), MODELS), Reference(PARITY, self.text, ("text",), ROWS)


def _run_import(run: StageRun) -> StageResult:
    from commonweight.workshop.export.importing import find_base, run_import

    assert isinstance(run.spec, ImportStage)
    settings = select_settings(ImportSettings, run.spec)
    material = Material(run.spec.model_id, "weights", run.spec.licence, run.spec.model_id, rows=0)
    decisions = check_material([material], run.policy)
    require_material(decisions)
    observed = run_import(settings, find_base(settings, run.root), run.output, run.report)
    return StageResult(
        licences=(run.spec.licence,),
        generators=(run.spec.model_id,),
        decisions=decisions,
        facts={} if run.spec.trained_tokens is None else {"trained_tokens": run.spec.trained_tokens},
        observed=dict(observed),
    )


def _run_export(run: StageRun) -> StageResult:
    from commonweight.workshop.export.exporting import run_export

    assert isinstance(run.spec, ExportStage)
    settings = select_settings(ExportSettings, run.spec)
    metadata = {**settings.make_metadata(), "commonweight.lineage.head": run.lineage_head()}
    model, text = run.get_folder("model"), run.get_folder(PARITY)
    return observe(run_export(settings, model, text, metadata, run.output, run.report))


def _digest_base(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    from commonweight.catalog.checksum import compute_sha256
    from commonweight.workshop.export.importing import find_base

    del data_root
    assert isinstance(spec, ImportStage)
    return {spec.model_id: compute_sha256(find_base(select_settings(ImportSettings, spec), root))}


def _foresee_base(spec: Stage, forecast: Forecast) -> ModelSize | None:
    from commonweight.catalog.header import UnreadableModelError
    from commonweight.workshop.export.importing import find_base

    assert isinstance(spec, ImportStage)
    try:
        return read_model_size(find_base(select_settings(ImportSettings, spec), forecast.root))
    except UnreadableModelError:
        return None


def _foresee_export(spec: Stage, forecast: Forecast) -> ModelSize | None:
    assert isinstance(spec, ExportStage)
    return forecast.get_model(spec.model)


KINDS = (
    make_kind(
        "import",
        1,
        ImportStage,
        _run_import,
        "export.importing",
        EXPORT_TOOLS,
        digest_sources=_digest_base,
        foresee=_foresee_base,
    ),
    make_kind(
        "export",
        1,
        ExportStage,
        _run_export,
        "export.exporting",
        (*EXPORT_TOOLS, *TRAINING_TOOLS, *ENGINE_TOOLS),
        record_roles=("model",),
        foresee=_foresee_export,
    ),
)
"""The kinds of this room."""
