"""Releasing a build: the gate on its outputs, and the release folder that its recipe describes."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

from pydantic import ValidationError

from commonweight.lineage.build_folder import RECIPE, BuildFolder
from commonweight.lineage.digests import LineageError
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import RecipeError

GATE = "gate"
"""Folder of the build that the gate's verdict is written to."""


def release_build(folder: Path, output: Path, keys: Path, day: date, report: Callable[[str], None]) -> None:
    """Hold a build against its gate, and write its release.

    Args:
        folder: build folder of a recipe with the section ``release``, all of whose stages are done.
        keys: where a signing key is made, if the recipe names none.

    Raises:
        RecipeError: something is not built, or the recipe has no such section.
        ReleaseError, LineageError: the gate blocks, or an output was changed.
    """
    from commonweight.workshop.release.collect import Evaluation
    from commonweight.workshop.release.release_folder import run_gate, run_release
    from commonweight.workshop.release.settings import ReleaseSettings

    build = BuildFolder(folder)
    path = folder / RECIPE
    if not path.is_file():
        raise RecipeError(f"{folder} is no build folder: it has no {RECIPE}.")
    try:
        recipe = Recipe.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecipeError(f"{path} is not what a build wrote; run `commonweight build` again.") from error
    if recipe.release is None:
        raise RecipeError(f"The recipe {recipe.name} has no section `release`.")
    outputs = _find_outputs(build, list(recipe.stages))
    section = recipe.release
    export = outputs[section.export]
    model = next(
        outputs[item.stage] for item in recipe.stages[section.export].list_references() if item.role == "model"
    )
    evaluations = [Evaluation(outputs[name]) for name in section.evaluations]
    settings = ReleaseSettings.model_validate(
        {name: getattr(section, name) for name in ReleaseSettings.model_fields}
    )
    gate = folder / GATE
    with build.lock():
        records = build.read_records()
        gate.mkdir(exist_ok=True)
        run_gate(settings, records, export, model, evaluations, day, gate, report)
        run_release(settings, records, export, model, evaluations, gate, keys, day, output, report)


def _find_outputs(build: BuildFolder, names: list[str]) -> dict[str, Path]:
    """The output of every stage, by what the status file says of the last build."""
    status = build.read_status() or {}
    stages = status.get("stages")
    if not isinstance(stages, dict):
        raise LineageError(f"{build.path} has no stages in its status file.")
    outputs: dict[str, Path] = {}
    for name in names:
        stage = stages.get(name)
        if not isinstance(stage, dict) or stage.get("state") != "done" or not isinstance(stage.get("key"), str):
            raise RecipeError(f"The stage {name} is not done; run `commonweight build` first.")
        outputs[name] = build.get_output(name, stage["key"])
    return outputs
