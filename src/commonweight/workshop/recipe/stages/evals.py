"""Stages that measure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from commonweight.lineage.record import EVALUATION
from commonweight.workshop.evals.settings import (
    CollapseSettings,
    ComparisonSettings,
    ComplianceSettings,
    EvaluationSettings,
    IfevalSettings,
    RefusalSettings,
    TaskSettings,
)
from commonweight.workshop.heads.settings import BUNDLE, CHARTER
from commonweight.workshop.recipe.estimates import Work, answer_prompts, describe_work
from commonweight.workshop.recipe.forecast import Forecast
from commonweight.workshop.recipe.stage_kind import (
    ENGINE_TOOLS,
    EVALUATION_SETS,
    EVALUATIONS,
    EXPORTS,
    GUARDS,
    MODELS,
    TOKENIZERS,
    Reference,
    Stage,
    StageInput,
    StageName,
    StageResult,
    StageRun,
    find_gguf,
    make_kind,
    observe,
    select_settings,
)
from commonweight.workshop.recipe.stages.data import RAW

if TYPE_CHECKING:
    from commonweight.workshop.evals.contamination import LineageStage
    from commonweight.workshop.evals.datasets import DatasetFile

TEMPLATE_TOKENS, TOOL_TOKENS = 30, 400
"""Around a request in chat and in a tool's result, for estimates."""
SCORED: Mapping[str, int] = {"hellaswag": 6, "bits_per_byte": 1, "answer_bits": 2}
"""Tokens that are read for each of a data set's text, for estimates."""


class EvaluateStage(Stage, EvaluationSettings):
    """Figures of an exported model."""

    kind: Literal["evaluate"]
    model: StageName
    """A stage of the kind export."""
    file: Literal["F16", "Q8_0", "Q4_K_M"] = "Q8_0"
    """Which of its files is measured."""
    guard: StageName | None = None
    """A stage of the kind guard that stands before the model; null: the model is measured alone."""

    def list_references(self) -> tuple[Reference, ...]:
        return (
            Reference("model", self.model, ("model",), EXPORTS),
            *(() if self.guard is None else (Reference("guard", self.guard, ("guard",), GUARDS),)),
            *(Reference("evaluation", name, ("tasks",), EVALUATION_SETS) for name in self.datasets),
        )


class CompareStage(Stage, ComparisonSettings):
    """What changed between two evaluations of the same tasks, sample by sample."""

    kind: Literal["compare"]
    before: StageName
    """A stage of the kind evaluate."""
    after: StageName
    before_model: StageName | None = None
    """The stages of the kind export that were measured: for the divergence."""
    after_model: StageName | None = None
    file: Literal["F16", "Q8_0", "Q4_K_M"] = "Q8_0"
    """Which of their files the divergence is measured on."""

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        if (self.before_model is None) != (self.after_model is None):
            raise ValueError("before_model and after_model go together")
        if self.divergence is not None and self.before_model is None:
            raise ValueError("the divergence needs before_model and after_model")
        return self

    def list_references(self) -> tuple[Reference, ...]:
        models = ("before_model", self.before_model), ("after_model", self.after_model)
        return (
            Reference("before", self.before, ("before",), EVALUATIONS),
            Reference("after", self.after, ("after",), EVALUATIONS),
            *(Reference(role, name, (role,), EXPORTS) for role, name in models if name is not None),
            *(
                (Reference(EVALUATION, self.divergence.dataset, ("divergence", "dataset"), EVALUATION_SETS),)
                if self.divergence is not None
                else ()
            ),
        )


def _run_evaluate(run: StageRun) -> StageResult:
    from commonweight.runtime.settings import GuardSettings
    from commonweight.workshop.evals.run import run_evaluation

    assert isinstance(run.spec, EvaluateStage)
    model = find_gguf(run, run.spec.file)
    settings = select_settings(EvaluationSettings, run.spec)
    guard = None
    if run.spec.guard is not None:
        folder = run.get_folder("guard")
        guard = GuardSettings(charter=folder / CHARTER, bundle=folder / BUNDLE)
    datasets = _describe_datasets(run)
    return observe(run_evaluation(settings, model, datasets, run.output, run.report, run.date, guard))


def _run_compare(run: StageRun) -> StageResult:
    from commonweight.workshop.evals.compare import ComparedModels, run_comparison
    from commonweight.workshop.evals.settings import ComparisonSettings

    assert isinstance(run.spec, CompareStage)
    models = None
    if run.spec.divergence is not None:
        models = ComparedModels(*(find_gguf(run, run.spec.file, role) for role in ("before_model", "after_model")))
    stages, measured = _split_lineage(run.list_lineage("after"), run.spec.after)
    return observe(
        run_comparison(
            select_settings(ComparisonSettings, run.spec),
            run.get_folder("before"),
            run.get_folder("after"),
            models,
            _describe_datasets(run),
            stages,
            measured,
            run.output,
            run.report,
        )
    )


def _describe_datasets(run: StageRun) -> "Mapping[str, DatasetFile]":
    from commonweight.workshop.evals.datasets import DatasetFile

    return {
        item.stage: DatasetFile(next((item.folder / RAW).iterdir()), item.record.own_licences[0])
        for item in run.inputs
        if item.role == EVALUATION
    }


def _split_lineage(lineage: tuple[StageInput, ...], evaluation: str) -> "tuple[list[LineageStage], list[Path]]":
    """What entered a measured model, with what trained it directly; and the sets that it was measured on."""
    from commonweight.workshop.evals.contamination import LineageStage

    outputs = {item.stage: item for item in lineage}
    entered: dict[str, None] = {}
    trained: set[str] = set()
    pending = [evaluation]
    while pending:
        name = pending.pop()
        if name in entered:
            continue
        entered[name] = None
        record = outputs[name].record
        below = [item.name for item in record.inputs if item.enters and item.record is not None]
        trained.update(below if record.kind in (*MODELS, *TOKENIZERS) else ())
        pending += below
    measured = [item.name for item in outputs[evaluation].record.inputs if item.role == EVALUATION]
    return (
        [LineageStage(name, item.folder, name in trained) for name, item in outputs.items() if name in entered],
        [outputs[name].folder for name in measured],
    )


def _estimate_evaluation(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, EvaluateStage)
    work = Work(0, 0, 0)
    for task in spec.tasks:
        found = _measure_task(task, forecast)
        if found is None:
            return ""
        work += found
    if spec.endpoint is not None:
        return f"{work.answers:,} samples, at the endpoint"
    size = forecast.get_model(spec.model)
    if size is None:
        return ""
    tokens = (work.read + work.written) // max(1, work.answers)
    return describe_work(size, spec.file, work, spec.parallel, tokens)


def _measure_task(task: TaskSettings, forecast: Forecast) -> Work | None:
    """What a model reads and writes in a task; None: a data set is not here yet."""
    if isinstance(task, ComplianceSettings):
        work = Work(0, 0, 0)
        for requests in task.datasets:
            rows = forecast.get_volume(requests.dataset)
            if rows is None:
                return None
            taken = rows.take(requests.limit or task.limit)
            for place in requests.places or task.places:
                each = TOOL_TOKENS if place == "tool_result" else TEMPLATE_TOKENS
                work += answer_prompts(taken, task.samples, task.max_tokens, each)
        return work
    volume = forecast.add_volumes(
        [group.dataset for group in task.datasets] if isinstance(task, RefusalSettings) else [task.dataset]
    )
    if volume is None:
        return None
    taken = volume.take(task.limit)
    if isinstance(task, RefusalSettings | IfevalSettings | CollapseSettings):
        return answer_prompts(taken, task.samples, task.max_tokens, TEMPLATE_TOKENS)
    # What is scored is read: four endings of a beginning, an answer that is about as long as its prompt.
    return Work(taken.rows, SCORED[task.task] * taken.tokens, 0)


def _estimate_comparison(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, CompareStage)
    size = forecast.get_model(spec.after_model)
    if spec.divergence is None or size is None:
        return ""
    rows = forecast.get_volume(spec.divergence.dataset)
    if rows is None:
        return ""
    prompts = rows.take(spec.divergence.limit)
    work = answer_prompts(prompts, 1, spec.divergence.max_tokens, TEMPLATE_TOKENS)
    # Both models read what one has written.
    work += Work(0, 2 * (work.read + work.written), 0)
    return describe_work(size, spec.file, work, spec.parallel, work.read // max(1, work.answers))


KINDS = (
    make_kind(
        "evaluate",
        3,
        EvaluateStage,
        _run_evaluate,
        "evals.run",
        ("inspect-ai", "lm-eval", *ENGINE_TOOLS),
        keyed_tools=("commonweight", *ENGINE_TOOLS),
        estimate=_estimate_evaluation,
    ),
    make_kind(
        "compare",
        1,
        CompareStage,
        _run_compare,
        "evals.compare",
        ("numpy", *ENGINE_TOOLS),
        keyed_tools=ENGINE_TOOLS,
        # The contamination report is about the lineage of what was measured, not its figures only.
        record_roles=("before", "after"),
        estimate=_estimate_comparison,
    ),
)
"""The kinds of this room."""
