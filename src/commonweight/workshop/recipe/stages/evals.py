"""Stages that measure."""

from typing import Literal

from commonweight.lineage.record import EVALUATION
from commonweight.workshop.evals.settings import EvaluationSettings
from commonweight.workshop.recipe.stage_kind import (
    ENGINE_TOOLS,
    EVALUATION_SETS,
    EXPORTS,
    Reference,
    Stage,
    StageName,
    StageResult,
    StageRun,
    find_gguf,
    make_kind,
    observe,
    select_settings,
)
from commonweight.workshop.recipe.stages.data import RAW


class EvaluateStage(Stage, EvaluationSettings):
    """Figures of an exported model."""

    kind: Literal["evaluate"]
    model: StageName
    """A stage of the kind export."""
    file: Literal["F16", "Q8_0", "Q4_K_M"] = "Q8_0"
    """Which of its files is measured."""

    def list_references(self) -> tuple[Reference, ...]:
        return (
            Reference("model", self.model, ("model",), EXPORTS),
            *(Reference("evaluation", name, ("tasks",), EVALUATION_SETS) for name in self.datasets),
        )


def _run_evaluate(run: StageRun) -> StageResult:
    from commonweight.workshop.evals.datasets import DatasetFile
    from commonweight.workshop.evals.run import run_evaluation
    from commonweight.workshop.evals.settings import EvaluationSettings

    assert isinstance(run.spec, EvaluateStage)
    model = find_gguf(run, run.spec.file)
    datasets = {
        item.stage: DatasetFile(next((item.folder / RAW).iterdir()), item.record.own_licences[0])
        for item in run.inputs
        if item.role == EVALUATION
    }
    settings = select_settings(EvaluationSettings, run.spec)
    return observe(run_evaluation(settings, model, datasets, run.output, run.report, run.date))


KINDS = (
    make_kind(
        "evaluate",
        2,
        EvaluateStage,
        _run_evaluate,
        "evals.run",
        ("inspect-ai", "lm-eval", *ENGINE_TOOLS),
        keyed_tools=("commonweight", *ENGINE_TOOLS),
    ),
)
"""The kinds of this room."""
