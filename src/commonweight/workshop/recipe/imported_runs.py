"""Stages whose output is taken from a run elsewhere: what runs in place of their own kind."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from commonweight.lineage.digests import digest_file
from commonweight.lineage.record import IMPORTED
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import TUNED, RecipeError, Stage, StageKind, StageResult, StageRun
from commonweight.workshop.recipe.stages import KINDS


def parse_runs(options: Iterable[str]) -> dict[str, Path]:
    """Folders by stage, out of ``STAGE=DIR``.

    Raises:
        RecipeError: one is not written so, or a stage is named twice.
    """
    runs: dict[str, Path] = {}
    for option in options:
        name, mark, folder = option.partition("=")
        if not (name and mark and folder):
            raise RecipeError(f"A run is given as STAGE=DIR, not as {option!r}.")
        if name in runs:
            raise RecipeError(f"Two runs are given for the stage {name}.")
        runs[name] = Path(folder)
    return runs


def make_imported_kinds(recipe: Recipe, runs: Mapping[str, Path]) -> dict[str, StageKind]:
    """What runs in place of the kinds of stages whose runs are given.

    The files of a run are sources of the stage: they are in its key and its record, by their digests.

    Raises:
        RecipeError: the recipe has no such stage, or one that is not trained, or there is no such folder.
    """
    kinds: dict[str, StageKind] = {}
    for name, folder in runs.items():
        spec = recipe.stages.get(name)
        if spec is None:
            raise RecipeError(f"The recipe has no stage {name!r}; it has {', '.join(recipe.stages)}.")
        if spec.kind not in TUNED:
            raise RecipeError(
                f"The stage {name!r} is of the kind {spec.kind}; runs of {' and '.join(TUNED)} are imported."
            )
        if not folder.is_dir():
            raise RecipeError(f"{folder} is no folder of a run.")
        kinds[name] = _make_kind(KINDS[spec.kind], folder)
    return kinds


def _make_kind(kind: StageKind, folder: Path) -> StageKind:
    def run(stage: StageRun) -> StageResult:
        return _run_import(stage, folder)

    def digest_sources(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
        del spec, root, data_root
        return _digest_run(folder)

    return replace(kind, run=run, digest_sources=digest_sources, origin=f"imported from {folder}")


def _digest_run(folder: Path) -> dict[str, str]:
    from commonweight.workshop.recipe.cluster_manifest import MANIFEST, find_run
    from commonweight.workshop.training.run_files import find_run_files
    from commonweight.workshop.training.trainer_config import ROWS

    files = find_run_files(find_run(folder))
    digests = {f"run/{name}": digest_file(files.folder / name) for name in files.names}
    came_back = [folder / MANIFEST, *sorted((folder / ROWS).glob("*.jsonl"))]
    return digests | {
        path.relative_to(folder).as_posix(): digest_file(path) for path in came_back if path.is_file()
    }


def _run_import(stage: StageRun, folder: Path) -> StageResult:
    from commonweight.workshop.recipe.cluster_manifest import find_run, read_cluster_manifest
    from commonweight.workshop.training.imported_run import import_run
    from commonweight.workshop.training.run_files import find_run_files

    manifest = read_cluster_manifest(folder)
    if manifest is not None:
        manifest.check_stage(stage.name, stage.spec, stage.inputs)
        manifest.check_rows(folder)
    found = import_run(find_run_files(find_run(folder)), stage.get_folder("model"), stage.output, stage.report)
    tokens = found.get("tokens")
    if tokens is None and manifest is not None and "epochs" in found:
        tokens = manifest.rows.tokens * found["epochs"]
    facts: dict[str, JsonValue] = {IMPORTED: True, "has_manifest": manifest is not None}
    if tokens is not None:
        facts["trained_tokens"] = round(tokens)
    if "eval_loss" in found:
        facts["held_out_loss"] = found["eval_loss"]
    return StageResult(facts=facts, observed=dict(found))
