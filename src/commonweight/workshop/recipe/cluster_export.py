"""Exporting a stage for a trainer elsewhere: config, rows, base model, manifest and the command to run."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from commonweight.lineage.chain import fold
from commonweight.lineage.digests import digest_files
from commonweight.lineage.provenance import EvaluationSet, ProvenancePolicy, check_material, require_material
from commonweight.workshop.data.dataset import read_rows
from commonweight.workshop.data.manifest import read_provenance
from commonweight.workshop.data.rows import Row
from commonweight.workshop.recipe.build import Builder
from commonweight.workshop.recipe.cluster_manifest import MANIFEST, ClusterManifest, ManifestInput
from commonweight.workshop.recipe.plan import get_versions, list_evaluation_sets
from commonweight.workshop.recipe.stage_kind import (
    TRAINING_TOOLS,
    TUNED,
    RecipeError,
    Report,
    Stage,
    StageInput,
    select_settings,
)
from commonweight.workshop.recipe.stages.data import read_materials
from commonweight.workshop.recipe.stages.training import PreferenceStage, SftStage
from commonweight.workshop.training.trainer_config import (
    MODEL,
    RUN,
    RowCounts,
    Trainer,
    get_command,
    make_preference_config,
    make_sft_config,
    write_config,
)
from commonweight.workshop.training.tuning_settings import PreferenceSettings, SftSettings

CONVERSATIONS = "conversations.jsonl"
"""The rows as people read them, with where each comes from; no trainer reads it."""
README = "README.md"
_METRICS = "metrics.jsonl"
_ROWS = ("data", "ordinary")
"""Roles of inputs that are rows."""


def export_training(builder: Builder, stage: str | None, trainer: Trainer, output: Path, report: Report) -> None:
    """Write a folder that a trainer elsewhere runs a stage from; what comes before the stage is built first.

    Args:
        stage: None: the only stage of the recipe that can be exported.
        output: a folder that is not there yet. It is private to its owner, as builds are.

    Raises:
        RecipeError, LineageError, or the error of a room: one sentence; nothing is left in the folder's place.
    """
    name = _choose_stage(builder, stage)
    spec = builder.recipe.stages[name]
    if output.exists():
        raise RecipeError(f"{output} is there already.")
    builder.build(report, tuple(dict.fromkeys(reference.stage for reference in spec.list_references())))
    inputs = builder.list_inputs(spec)
    sets = list_evaluation_sets(builder.recipe, builder.root, builder.data_root)
    check_rows([item.folder for item in inputs if item.role in _ROWS], builder.recipe.policy, sets)
    draft = output.with_name(f".{output.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    try:
        counts = _write_files(spec, inputs, trainer, draft)
        manifest = _make_manifest(builder.recipe.name, name, spec, inputs, trainer, counts)
        (draft / README).write_text(_describe(manifest, spec), encoding="utf-8")
        manifest = manifest.model_copy(update={"files": digest_files(draft)})
        (draft / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        draft.rename(output)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    left_out = sum(counts.left_out.values())
    report(f"{name}: {counts.train:,} rows, {counts.validation:,} held out, {left_out:,} left out")


def _choose_stage(builder: Builder, stage: str | None) -> str:
    stages = builder.recipe.stages
    fitting = [name for name, spec in stages.items() if spec.kind in TUNED]
    if stage is None:
        if len(fitting) == 1:
            return fitting[0]
        found = f"it has {', '.join(fitting)}: choose one with --stage" if fitting else "it has none"
        raise RecipeError(f"One stage of the kind {' or '.join(TUNED)} is exported from a recipe, and {found}.")
    if stage not in stages:
        raise RecipeError(f"The recipe has no stage {stage!r}; it has {', '.join(stages)}.")
    if stage not in fitting:
        raise RecipeError(
            f"The stage {stage!r} is of the kind {stages[stage].kind}; those of the kind {' or '.join(TUNED)} "
            "are exported."
        )
    return stage


def check_rows(folders: Iterable[Path], policy: ProvenancePolicy, sets: tuple[EvaluationSet, ...]) -> None:
    """Ask the licence gate about all rows that are to leave this machine, wherever in the recipe they came in.

    Raises:
        LineageError: it refuses some; says which, and why.
    """
    materials = [one for folder in folders for one in read_materials(folder)]
    require_material(check_material(materials, policy, sets))


def _write_files(spec: Stage, inputs: tuple[StageInput, ...], trainer: Trainer, folder: Path) -> RowCounts:
    from commonweight.workshop.training.trainer_rows import write_preference_rows, write_sft_rows

    folders = {item.role: item.folder for item in inputs}
    if isinstance(spec, SftStage):
        settings = select_settings(SftSettings, spec)
        config = make_sft_config(settings, trainer)
        counts = write_sft_rows(settings, folders["data"], folders["model"], folder, trainer)
    else:
        assert isinstance(spec, PreferenceStage)
        preference = select_settings(PreferenceSettings, spec)
        config = make_preference_config(preference, trainer)
        counts = write_preference_rows(preference, folders["data"], folders["model"], folder, trainer)
    write_config(config, folder)
    with (folder / CONVERSATIONS).open("w", encoding="utf-8") as file:
        for row in read_rows(folders["data"]):
            if row.content.kind in ("messages", "preference"):
                file.write(json.dumps(_encode_row(row), ensure_ascii=False) + "\n")
    (model,) = [item for item in inputs if item.role == "model"]
    for name in model.record.files:
        if "/" not in name and name != _METRICS:
            (folder / MODEL).mkdir(exist_ok=True)
            shutil.copyfile(model.folder / name, folder / MODEL / name)
    return counts


def _encode_row(row: Row) -> dict[str, object]:
    content = row.content
    texts = {"messages": content.messages, "chosen": content.chosen, "rejected": content.rejected}
    return {
        "row_id": row.row_id,
        "split": row.split,
        **{
            name: [{"role": message.role, "content": message.content} for message in messages]
            for name, messages in texts.items()
            if messages is not None
        },
        **({"given": content.given} if content.given else {}),
        "source": row.source,
        "licence": row.licence,
        "generator": row.generator,
        "principle": row.principle,
    }


def _make_manifest(
    recipe: str, name: str, spec: Stage, inputs: tuple[StageInput, ...], trainer: Trainer, counts: RowCounts
) -> ClusterManifest:
    records = [item.record for item in inputs]
    return ClusterManifest(
        recipe=recipe,
        stage=name,
        trainer=trainer,
        settings=spec.model_dump(mode="json", by_alias=True),
        inputs=tuple(
            ManifestInput(
                role=item.role, stage=item.stage, content=item.record.content, record=item.record.identity
            )
            for item in inputs
        ),
        licences=fold(records, (), "licences"),
        generators=fold(records, (), "generators"),
        provenance=tuple(group for item in inputs if item.role in _ROWS for group in read_provenance(item.folder)),
        rows=counts,
        tools=get_versions(("commonweight", *TRAINING_TOOLS, "trl", "peft")),
        files={},
    )


def _describe(manifest: ClusterManifest, spec: Stage) -> str:
    """The bytes of ``README.md``."""
    method: Literal["sft", "dpo"] = "sft" if isinstance(spec, SftStage) else "dpo"
    rows = manifest.rows
    left_out = [f"{count:,} rows are left out: each {reason}." for reason, count in sorted(rows.left_out.items())]
    return "\n".join(
        [
            f"# {manifest.recipe}: the stage {manifest.stage}, for {manifest.trainer}",
            "",
            "In this folder, on the machine that trains:",
            "",
            f"    {get_command(method, manifest.trainer)}",
            "",
            *_NOTES[method],
            "",
            f"{rows.train:,} rows are trained on ({rows.tokens:,} tokens, {rows.learned_tokens:,} with a loss), "
            f"{rows.validation:,} are held out.",
            *left_out,
            "",
            f"Licences of rows and model: {', '.join(manifest.licences) or 'none'}. Models that wrote rows: "
            f"{', '.join(manifest.generators) or 'none'}. {CONVERSATIONS} has the rows as text, each with its "
            f"source, licence and generator; {MANIFEST} has digests of all files and the identities of the "
            "records that they were made from.",
            "",
            "The batch of the config is that of one process. On N processes divide `per_device_train_batch_size` "
            "(of axolotl `micro_batch_size`) by N, or the run is another one than the recipe describes. "
            "Distribution (accelerate, FSDP, DeepSpeed) is the trainer's own: add what it needs to the config.",
            "",
            f"Bring this folder back with `{RUN}/` in it, or `{RUN}/` alone, and go on with the recipe:",
            "",
            f"    commonweight build RECIPE --import-run {manifest.stage}=FOLDER",
            "",
        ]
    )


_NOTES: Mapping[str, tuple[str, ...]] = {
    "sft": (
        "The rows in `rows/` are token ids with their labels, as the recipe itself would train on them: answers "
        "have a loss, prompts and beginnings that are given (`given` in conversations.jsonl) have none, and rows "
        "are cut to the length that the recipe states. No template, mask or packing of the trainer's is used.",
    ),
    "dpo": (
        "The rows in `rows/` are conversations with a chosen and a rejected answer; the trainer renders them with "
        "the model's chat template. The recipe's own stage also stops when ordinary answers become less likely; "
        "neither trainer does: compare checkpoints.",
    ),
}
