"""The plan of a build: stages in order, the key of each, and what is done already."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from commonweight.lineage.build_folder import BuildFolder
from commonweight.lineage.digests import digest_json
from commonweight.lineage.provenance import EvaluationSet
from commonweight.lineage.record import Record
from commonweight.workshop.data.locations import LocalPath, parse_location
from commonweight.workshop.recipe.forecast import Forecast, ModelSize, Volume, read_volume
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import DECIDED, RecipeError, Stage, StageKind
from commonweight.workshop.recipe.stages import KINDS
from commonweight.workshop.recipe.stages.data import EvaluationSetStage

State = Literal["done", "to do", "waiting"]
Only = str | tuple[str, ...] | None
"""The stage that is built with what it depends on, or several; None: all."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan."""

    name: str
    spec: Stage
    kind: StageKind
    key: str | None
    """None while an input is not built, on which the key depends."""
    state: State
    record: Record | None
    """Of the output, where it is there."""
    estimate: str
    """Time and memory of the work, or where the output comes from instead, in words; empty where nothing is to do
    or it is quick."""


def order_stages(recipe: Recipe, only: Only = None) -> list[str]:
    """Stages in the order of their dependencies, which for equals is that of the recipe.

    Args:
        only: the stage to be built, or several, with what they depend on; None: all.

    Raises:
        RecipeError: there is no such stage.
    """
    wanted = list(recipe.stages) if only is None else [only] if isinstance(only, str) else list(only)
    for name in wanted:
        if name not in recipe.stages:
            raise RecipeError(f"The recipe has no stage {name!r}; it has {', '.join(recipe.stages)}.")
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        for reference in recipe.stages[name].list_references():
            if reference.stage not in ordered:
                add(reference.stage)
        ordered[name] = None

    for name in wanted:
        if name not in ordered:
            add(name)
    return list(ordered)


def compute_key(
    recipe: Recipe,
    name: str,
    spec: Stage,
    kind: StageKind,
    inputs: Mapping[str, Record],
    sources: Mapping[str, str],
    evaluation_sets: Iterable[EvaluationSet] = (),
) -> str:
    """The digest that decides whether a stage's output is there already.

    Args:
        inputs: records of the outputs that it takes, by stage.
        sources: digests of what it reads from outside, by name.
        evaluation_sets: what the recipe measures on. A source that becomes one of them is looked at again.
    """
    is_decided = kind.name in DECIDED
    measured = {one.name for one in evaluation_sets if kind.name == "source" and one.digest in sources.values()}
    return digest_json(
        {
            "kind": kind.name,
            "name": name,
            "version": kind.version,
            "parameters": spec.model_dump(mode="json"),
            "inputs": [_identify(item.role, inputs[item.stage], kind) for item in spec.list_references()],
            "sources": dict(sources),
            "policy": recipe.policy.model_dump(mode="json") if is_decided else None,
            "evaluation_sets": sorted(measured),
            "tools": get_versions(kind.keyed_tools),
        }
    )


def _identify(role: str, record: Record, kind: StageKind) -> list[str]:
    """What a key says of an input: its content; its record, too, where the output's files hold its chain."""
    return [role, record.content, *([record.identity] if role in kind.record_roles else [])]


def make_plan(
    recipe: Recipe,
    build: BuildFolder,
    root: Path,
    data_root: Path | None,
    only: Only = None,
    kinds: Mapping[str, StageKind] | None = None,
) -> list[PlannedStage]:
    """Find what is done and what is to do.

    Args:
        kinds: what runs in place of a stage's own kind, by stage.

    Raises:
        RecipeError: a source is not there or not what the recipe says.
    """
    plan: list[PlannedStage] = []
    records: dict[str, Record] = {}
    evaluation_sets = list_evaluation_sets(recipe, root, data_root)
    forecast = Forecast(recipe.stages, root, data_root)

    def foresee(name: str, found: Volume | ModelSize | None) -> None:
        if found is not None:
            forecast.outputs[name] = found

    for name in order_stages(recipe, only):
        spec = recipe.stages[name]
        kind = (kinds or {}).get(name, KINDS[spec.kind])
        if any(item.stage not in records for item in spec.list_references()):
            estimate = kind.origin or kind.estimate(spec, forecast)
            plan.append(PlannedStage(name, spec, kind, None, "waiting", None, estimate))
            foresee(name, KINDS[spec.kind].foresee(spec, forecast))
            continue
        sources = kind.digest_sources(spec, root, data_root)
        key = compute_key(recipe, name, spec, kind, records, sources, evaluation_sets)
        record = build.find_record(name, key)
        if record is not None:
            records[name] = record
        estimate = kind.origin or ("" if record else kind.estimate(spec, forecast))
        there = read_volume(build.get_output(name, key)) if record is not None else None
        foresee(name, there or KINDS[spec.kind].foresee(spec, forecast))
        plan.append(PlannedStage(name, spec, kind, key, "done" if record else "to do", record, estimate))
    return plan


def list_evaluation_sets(recipe: Recipe, root: Path, data_root: Path | None) -> tuple[EvaluationSet, ...]:
    """What the recipe measures on, by the digests of its files; rows are compared by the filter stages.

    A local file whose digest is stated need not be here: rebuilding a model from what ships measures nothing.

    Raises:
        DataError: one is not what the recipe says, or not there without a stated digest.
    """
    found = []
    for name, spec in recipe.stages.items():
        if not isinstance(spec, EvaluationSetStage):
            continue
        location = parse_location(spec.location)
        if spec.sha256 is not None and isinstance(location, LocalPath) and not (root / location.path).exists():
            found.append(EvaluationSet(name, spec.sha256))
        else:
            digests = KINDS[spec.kind].digest_sources(spec, root, data_root)
            found += [EvaluationSet(name, digest) for digest in digests.values()]
    return tuple(found)


def get_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of installed distributions; those that are not installed are left out."""
    versions: dict[str, str] = {}
    for name in distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
