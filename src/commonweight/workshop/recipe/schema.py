"""The recipe: a name, the policy of its material, and stages by name, each a kind with its settings."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import AliasChoices, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from commonweight.lineage.provenance import ProvenancePolicy
from commonweight.workshop.recipe.stage_kind import EXPORTS, TUNED, Place, Stage, StageName
from commonweight.workshop.recipe.stages import AnyStage
from commonweight.workshop.recipe.stages.data import EvaluationSetStage, SourceStage
from commonweight.workshop.release.settings import ReleaseSettings
from commonweight.workshop.settings import Settings, Several
from commonweight.workshop.training.tuning_settings import AdapterSettings

REFERENCES = "references"
"""Type of the one problem that holds all wrong references, each a :data:`Problem`."""
Problem = tuple[Place, str]


class ReleaseSection(ReleaseSettings):
    """What ``commonweight release`` makes of a build."""

    export: StageName
    evaluations: Several[StageName] = ()


class ShippedAdapter(AdapterSettings):
    """An adapter that a stage of training once made, and that ships with the recipe."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Recipe(Settings):
    """What stands in a recipe file."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    description: str = ""
    use: Literal["commercial", "research"] = "commercial"
    """What the model may be used for; material for research only is refused otherwise."""
    generated_prompts: Literal["allow", "block"] = Field(
        "block", validation_alias=AliasChoices("generated-prompts", "generated_prompts")
    )
    """Prompts that a model wrote."""
    share_alike: Literal["propagate", "attribute", "block"] = Field(
        "block", validation_alias=AliasChoices("share-alike", "share_alike")
    )
    """Share-alike material: gives the model its licence, is named only, or is refused."""
    stages: dict[StageName, AnyStage] = Field(min_length=1)
    release: ReleaseSection | None = None
    shipped: dict[StageName, ShippedAdapter] = Field(default_factory=dict)
    """Adapters that ``commonweight build --use-shipped`` takes in place of stages that train."""

    @property
    def policy(self) -> ProvenancePolicy:
        """What it decides about material."""
        return ProvenancePolicy(
            use=self.use, generated_prompts=self.generated_prompts, share_alike=self.share_alike
        )

    @model_validator(mode="before")
    @classmethod
    def name_sources(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """A source that has no name of its own has that of its stage."""
        if not isinstance(values, dict) or not isinstance(values.get("stages"), dict):
            return values
        stages = {
            name: {"name": name, **stage}
            if isinstance(stage, dict) and stage.get("kind") in ("source", "evaluation_set")
            else stage
            for name, stage in values["stages"].items()
        }
        return {**values, "stages": stages}

    @model_validator(mode="before")
    @classmethod
    def state_origin(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """What is released states its licence and base; where the recipe leaves them out, they follow from it.

        They stand in the stage's entry, so that they are in its key.
        """
        if not isinstance(values, dict):
            return values
        stages, release = values.get("stages"), values.get("release")
        if not isinstance(stages, dict) or not isinstance(release, dict):
            return values
        name = release.get("export")
        export = stages.get(name) if isinstance(name, str) else None
        if not isinstance(export, dict) or export.get("kind") != "export":
            return values
        base = release.get("base_model") or _find_base(stages, export)
        export = {**export}
        for key, value in (("licence", release.get("licence")), ("base_model", base)):
            if export.get(key) is None:
                export[key] = value
        return {
            **values,
            "stages": {**stages, name: export},
            "release": {**release, "base_model": base},
        }

    @model_validator(mode="after")
    def check_references(self) -> Self:
        """Every reference names a stage of a fitting kind, and none depends on itself."""
        problems = [*self._list_wrong_references()] or [*_find_circle(self.stages)]
        if problems:
            raise PydanticCustomError(REFERENCES, "stages refer to others wrongly", {"problems": problems})
        return self

    def _list_wrong_references(self) -> Iterator[Problem]:
        for name, stage in self.stages.items():
            for reference in stage.list_references():
                place = ("stages", name, *reference.place)
                yield from self._check_reference(place, reference.stage, reference.kinds)
        for name in self.shipped:
            yield from self._check_reference(("shipped", name), name, TUNED)
        if self.release is not None:
            yield from self._check_reference(("release", "export"), self.release.export, EXPORTS)
            for index, name in enumerate(self.release.evaluations):
                yield from self._check_reference(("release", "evaluations", index), name, ("evaluate",))

    def _check_reference(self, place: Place, name: str, fitting: tuple[str, ...]) -> Iterator[Problem]:
        target = self.stages.get(name)
        if target is None:
            yield place, f"the recipe has no stage {name!r}"
        elif target.kind not in fitting:
            yield place, f"the stage {name!r} is of the kind {target.kind}; {' or '.join(fitting)} is wanted here"


def _find_base(stages: dict[Any, Any], stage: Any) -> object:  # noqa: ANN401 - whatever the file holds
    """The id of the imported model that a stage's weights begin with; None: they begin at random."""
    for _ in stages:
        if not isinstance(stage, dict) or not isinstance(stage.get("model"), str):
            return None
        stage = stages.get(stage["model"])
        if isinstance(stage, dict) and stage.get("kind") == "import":
            return stage.get("model_id")
    return None


def _find_circle(stages: Mapping[str, Stage]) -> Iterator[Problem]:
    """The first circle of stages that depend on each other. Walks without recursion: recipes may be long."""
    done: set[str] = set()
    for first in stages:
        path: list[str] = []
        pending = [(first, False)]
        while pending:
            name, is_left = pending.pop()
            if is_left:
                path.pop()
                done.add(name)
                continue
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                yield ("stages", name), f"the stages depend on each other in a circle: {circle}"
                return
            if name in done:
                continue
            path.append(name)
            pending.append((name, True))
            pending += [(reference.stage, False) for reference in stages[name].list_references()]


def make_schema() -> dict[str, Any]:
    """The JSON schema of recipes, for editors."""
    schema = Recipe.model_json_schema(by_alias=True)
    for stage in (SourceStage, EvaluationSetStage):
        schema["$defs"][stage.__name__]["required"].remove("name")  # it has that of its stage
    keys = schema["properties"]
    keys |= {key.replace("-", "_"): value for key, value in keys.items()}  # both spellings are read
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
