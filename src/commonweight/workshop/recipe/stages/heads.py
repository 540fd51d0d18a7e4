"""The stage that compiles a guard for a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from commonweight.lineage.provenance import check_material, list_generator_licences, require_material
from commonweight.workshop.heads.settings import GuardSettings
from commonweight.workshop.recipe.stage_kind import (
    ENGINE_TOOLS,
    EXPORTS,
    Reference,
    Stage,
    StageName,
    StageResult,
    StageRun,
    find_gguf,
    make_kind,
    select_settings,
)


class GuardStage(Stage, GuardSettings):
    """A guard's bundle, compiled from a charter and labelled texts for an exported model."""

    kind: Literal["guard"]
    model: StageName
    """A stage of the kind export."""
    file: Literal["F16", "Q8_0", "Q4_K_M"] = "Q8_0"
    """Which of its files is to be served with the bundle."""

    def list_references(self) -> tuple[Reference, ...]:
        return (Reference("model", self.model, ("model",), EXPORTS),)


def _run_guard(run: StageRun) -> StageResult:
    from commonweight.workshop.heads.guard_stage import list_texts, run_guard
    from commonweight.workshop.heads.provenance import list_materials

    assert isinstance(run.spec, GuardStage)
    settings = select_settings(GuardSettings, run.spec)
    model = find_gguf(run, run.spec.file)
    materials = list_materials(list_texts(settings, run.root))
    decisions = check_material(materials, run.policy, run.evaluation_sets)
    require_material(decisions)
    observed = run_guard(settings, model, run.root, run.output, run.checkpoints / "cache", run.report)
    answers = {one.generator for one in materials if one.generator and one.content != "prompts"}
    return StageResult(
        licences=tuple(sorted({one.licence or "" for one in materials} | set(list_generator_licences(answers)))),
        generators=tuple(sorted({one.generator for one in materials if one.generator})),
        decisions=decisions,
        observed=dict(observed),
    )


def _digest_texts(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    from commonweight.workshop.heads.guard_stage import digest_sources

    del data_root
    return digest_sources(select_settings(GuardSettings, spec), root)


KINDS = (
    make_kind(
        "guard",
        2,
        GuardStage,
        _run_guard,
        "heads.guard_stage",
        ("scikit-learn", "numpy", *ENGINE_TOOLS),
        digest_sources=_digest_texts,
        keyed_tools=("commonweight", *ENGINE_TOOLS),
    ),
)
"""The kinds of this room."""
