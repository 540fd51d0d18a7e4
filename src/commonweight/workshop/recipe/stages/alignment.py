"""Stages of alignment: answers of a model, criticised, revised and selected under a charter."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from commonweight.lineage.provenance import (
    Material,
    check_material,
    list_generator_licences,
    require_material,
)
from commonweight.workshop.alignment.settings import (
    CritiqueSettings,
    EndpointSettings,
    GenerateSettings,
    ModelSettings,
    ReviseSettings,
    SelectSettings,
)
from commonweight.workshop.recipe.estimates import answer_prompts, describe_generation
from commonweight.workshop.recipe.forecast import Forecast, Volume
from commonweight.workshop.recipe.stage_kind import (
    ENGINE_TOOLS,
    EXPORTS,
    ROWS,
    RecipeError,
    Reference,
    Stage,
    StageName,
    StageResult,
    StageRun,
    find_gguf,
    make_kind,
    select_settings,
)

if TYPE_CHECKING:
    from commonweight.lineage.record import Decision
    from commonweight.workshop.alignment.chat import ChatModel
    from commonweight.workshop.alignment.origins import ModelOrigin

STARTER = "starter"
VOTE_TOKENS, QUESTION_TOKENS = 2, 80
"""Of a vote that is held to one word, and of the words around what is voted on or revised: for estimates."""
MAX_COMPOSED_CHARACTERS = 700
"""Of a composed answer with its prompt, for estimates."""


class _AnsweringStage(Stage, ModelSettings):
    """A stage in which a model reads rows and answers."""

    data: StageName
    model: StageName | None = None
    """A stage of the kind export; null: the model that ``engine`` describes."""

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        require_model(self.model, self.engine)
        return self

    def list_references(self) -> tuple[Reference, ...]:
        return _list_references(self.data, self.model)


class GenerateStage(_AnsweringStage, GenerateSettings):
    """Answers of a model to prompts."""

    kind: Literal["generate"]


class CritiqueStage(_AnsweringStage, CritiqueSettings):
    """Votes of a model, the critic, on whether answers break their principle."""

    kind: Literal["critique"]


class ReviseStage(Stage, ReviseSettings):
    """Answers that keep their principle, in place of those that a model gave first."""

    kind: Literal["revise"]
    data: StageName
    model: StageName | None = None
    """A stage of the kind export: the model that revises; null: the one that ``engine`` describes, or none where
    revisions are composed."""

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.method == "critic":
            require_model(self.model, self.engine)
        elif self.model is not None or self.engine is not None:
            raise ValueError("revisions that are composed need no model: leave out model and engine")
        return self

    def list_references(self) -> tuple[Reference, ...]:
        return _list_references(self.data, self.model)


class SelectStage(Stage, SelectSettings):
    """Rows whose answers are good enough to be learned."""

    kind: Literal["select"]
    data: StageName

    def list_references(self) -> tuple[Reference, ...]:
        return _list_references(self.data, None)


def require_model(model: str | None, engine: EndpointSettings | None) -> None:
    """Check that exactly one of the two says whose answers these are.

    Raises:
        ValueError: neither does, or both.
    """
    if model is None and engine is None:
        raise ValueError("name the model that answers: model (a stage of the kind export) or engine")
    if engine is None:
        return
    stated = {"model": engine.model, "generator": engine.generator, "licence": engine.licence}
    if model is None and (missing := [name for name, value in stated.items() if value is None]):
        raise ValueError(
            f"engine has no {', '.join(missing)}, and no stage model says it; answers of a model without terms "
            "train nothing"
        )
    if model is not None and (given := [name for name, value in stated.items() if value is not None]):
        raise ValueError(f"engine.{given[0]} and the stage {model} say the same thing: leave one of them out")


def _list_references(data: str, model: str | None) -> tuple[Reference, ...]:
    rows = Reference("data", data, ("data",), ROWS)
    return (rows,) if model is None else (rows, Reference("model", model, ("model",), EXPORTS))


def _run_generate(run: StageRun) -> StageResult:
    from commonweight.workshop.alignment.charters import read_charter
    from commonweight.workshop.alignment.generate_stage import run_generate

    assert isinstance(run.spec, GenerateStage)
    settings = select_settings(GenerateSettings, run.spec)
    charter = read_charter(settings.charter, run.root)
    model, origin, decisions = prepare_model(run, settings)
    observed, facts = run_generate(
        settings, run.get_folder("data"), model, origin, charter, run.output, run.checkpoints, run.report
    )
    follows = settings.system != "none"
    return StageResult(
        licences=list_model_licences(settings, origin),
        generators=(origin.generator, *origin.generators),
        decisions=decisions,
        charter=charter.sha256 if follows else None,
        facts=dict(facts),
        observed=dict(observed),
    )


def _run_critique(run: StageRun) -> StageResult:
    from commonweight.workshop.alignment.charters import read_charter
    from commonweight.workshop.alignment.critique_stage import run_critique

    assert isinstance(run.spec, CritiqueStage)
    settings = select_settings(CritiqueSettings, run.spec)
    charter = read_charter(settings.charter, run.root)
    model, origin, decisions = prepare_model(run, settings)
    observed, facts = run_critique(
        settings, run.get_folder("data"), model, origin, charter, run.output, run.checkpoints, run.report
    )
    return StageResult(
        licences=list_model_licences(settings, origin),
        generators=(origin.generator, *origin.generators),
        decisions=decisions,
        charter=charter.sha256,
        facts=dict(facts),
        observed=dict(observed),
    )


def _run_revise(run: StageRun) -> StageResult:
    from commonweight.workshop.alignment.charters import read_charter
    from commonweight.workshop.alignment.origins import check_rows
    from commonweight.workshop.alignment.revise_stage import run_revise

    assert isinstance(run.spec, ReviseStage)
    settings = select_settings(ReviseSettings, run.spec)
    charter = read_charter(settings.charter, run.root)
    data = run.get_folder("data")
    if settings.method == "critic":
        model, origin, decisions = prepare_model(run, settings)
        observed, facts = run_revise(
            settings, data, (model, origin), charter, run.output, run.checkpoints, run.report
        )
        licences, generators = list_model_licences(settings, origin), (origin.generator, *origin.generators)
    else:
        check_rows(data, run.policy)
        words = Material(f"charter {charter.id}", "text", charter.licence, None, rows=1, digest=charter.sha256)
        decisions = check_material([words], run.policy)
        require_material(decisions)
        observed, facts = run_revise(settings, data, None, charter, run.output, run.checkpoints, run.report)
        licences, generators = (charter.licence,), ()
    return StageResult(
        licences=licences,
        generators=generators,
        decisions=decisions,
        charter=charter.sha256,
        facts=dict(facts),
        observed=dict(observed),
    )


def _run_select(run: StageRun) -> StageResult:
    from commonweight.workshop.alignment.select_stage import run_select

    settings = select_settings(SelectSettings, run.spec)
    return StageResult(facts=dict(run_select(settings, run.get_folder("data"), run.output, run.report)))


def prepare_model(run: StageRun, settings: ModelSettings) -> "tuple[ChatModel, ModelOrigin, tuple[Decision, ...]]":
    """The model that answers, once rows and model are allowed to train something."""
    from commonweight.workshop.alignment.chat import ChatModel
    from commonweight.workshop.alignment.origins import ModelOrigin, check_origin, check_rows, read_origin
    from commonweight.workshop.data.manifest import read_manifest

    data = run.get_folder("data")
    check_rows(data, run.policy)
    engine = settings.engine
    found = next((item for item in run.inputs if item.role == "model"), None)
    if found is not None:
        path = find_gguf(run, settings.file)
        digest = found.record.files[path.name]
        origin = read_origin(str(found.record.parameters.get("name", found.stage)), found.record)
    else:
        assert engine is not None and engine.model and engine.generator and engine.licence
        path = _find_vocabulary(engine.model, run.root)
        digest = _digest_model(path)
        origin = ModelOrigin(engine.generator, (engine.generator,), (engine.licence,))
    decisions = check_origin(origin, read_manifest(data).rows, run.policy)
    return ChatModel(path, digest, settings), origin, decisions


def list_model_licences(settings: ModelSettings, origin: "ModelOrigin") -> tuple[str, ...]:
    """Licences that a model brings in from outside: those that its terms ask for, and that of an endpoint's."""
    declared = (settings.engine.licence,) if settings.engine and settings.engine.licence else ()
    return tuple(sorted({*declared, *list_generator_licences(origin.generators)}))


def _find_vocabulary(reference: str, root: Path) -> Path:
    """The GGUF file whose vocabulary and template a server's model has."""
    if reference != STARTER:
        path = root / reference
        if not path.is_file():
            raise RecipeError(f"The model {reference}, whose vocabulary the engine has, is not there.")
        return path
    from commonweight.catalog.starter import find_starter

    starter = find_starter()
    if starter is None:
        raise RecipeError("The starter model is not installed: commonweight pull gets it.")
    return starter


def _digest_model(path: Path) -> str:
    from commonweight.catalog.checksum import compute_sha256

    return compute_sha256(path)


def _digest_charter(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    """What a stage reads besides rows and models of others: the charter, and an endpoint's vocabulary."""
    del data_root
    assert isinstance(spec, GenerateStage | CritiqueStage | ReviseStage)
    is_read = not isinstance(spec, GenerateStage) or spec.system != "none"
    return digest_read_files(spec.charter if is_read else None, spec.engine, root)


def digest_read_files(charter: str | None, engine: EndpointSettings | None, root: Path) -> dict[str, str]:
    """Digests of a charter, and of the vocabulary of an endpoint."""
    from commonweight.workshop.alignment.charters import digest_charter

    digests = {} if charter is None else {"charter": digest_charter(charter, root)}
    if engine is not None and engine.model is not None:
        digests["engine"] = _digest_model(_find_vocabulary(engine.model, root))
    return digests


def _foresee_answers(spec: Stage, forecast: Forecast) -> Volume | None:
    assert isinstance(spec, GenerateStage)
    prompts = forecast.get_volume(spec.data)
    return None if prompts is None else prompts.answer(spec.max_tokens, spec.samples)


def _foresee_same(spec: Stage, forecast: Forecast) -> Volume | None:
    """At most as many rows as it takes."""
    assert isinstance(spec, CritiqueStage | SelectStage)
    return forecast.get_volume(spec.data)


def _foresee_revisions(spec: Stage, forecast: Forecast) -> Volume | None:
    assert isinstance(spec, ReviseStage)
    rows = forecast.get_volume(spec.data)
    if rows is None or spec.method == "critic":
        return rows
    return Volume(rows.rows, min(rows.characters, rows.rows * MAX_COMPOSED_CHARACTERS))


def _estimate_answers(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, GenerateStage)
    prompts = forecast.get_volume(spec.data)
    work = None if prompts is None else answer_prompts(prompts, spec.samples, spec.max_tokens)
    return describe_generation(spec, forecast.get_model(spec.model), work)


def _estimate_votes(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, CritiqueStage)
    rows = forecast.get_volume(spec.data)
    tokens = spec.max_tokens if spec.reading == "last_line" else VOTE_TOKENS
    work = None if rows is None else answer_prompts(rows, spec.votes, tokens, each=QUESTION_TOKENS)
    return describe_generation(spec, forecast.get_model(spec.model), work)


def _estimate_revisions(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, ReviseStage)
    rows = forecast.get_volume(spec.data)
    if spec.method == "compose":
        return "" if rows is None else f"{rows.rows:,} answers, composed in seconds"
    work = None if rows is None else answer_prompts(rows, 1, spec.max_tokens, each=QUESTION_TOKENS)
    return describe_generation(spec, forecast.get_model(spec.model), work)


_TOOLS = ("pyarrow", *ENGINE_TOOLS)
_KEYED = ("commonweight", *ENGINE_TOOLS)
KINDS = (
    make_kind(
        "generate",
        1,
        GenerateStage,
        _run_generate,
        "alignment.generate_stage",
        _TOOLS,
        digest_sources=_digest_charter,
        keyed_tools=_KEYED,
        foresee=_foresee_answers,
        estimate=_estimate_answers,
    ),
    make_kind(
        "critique",
        1,
        CritiqueStage,
        _run_critique,
        "alignment.critique_stage",
        _TOOLS,
        digest_sources=_digest_charter,
        keyed_tools=_KEYED,
        foresee=_foresee_same,
        estimate=_estimate_votes,
    ),
    make_kind(
        "revise",
        1,
        ReviseStage,
        _run_revise,
        "alignment.revise_stage",
        _TOOLS,
        digest_sources=_digest_charter,
        keyed_tools=_KEYED,
        foresee=_foresee_revisions,
        estimate=_estimate_revisions,
    ),
    make_kind(
        "select",
        1,
        SelectStage,
        _run_select,
        "alignment.select_stage",
        ("pyarrow",),
        foresee=_foresee_same,
    ),
)
"""The kinds of this room."""
