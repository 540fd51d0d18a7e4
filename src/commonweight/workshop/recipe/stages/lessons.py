"""Stages of alignment that make rows of rows: recovery from a beginning, tool loops, pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from commonweight.workshop.alignment.settings import PairSettings, RecoverSettings, ToolLoopSettings
from commonweight.workshop.recipe.estimates import answer_prompts, describe_generation
from commonweight.workshop.recipe.forecast import Forecast, Volume
from commonweight.workshop.recipe.stage_kind import (
    ENGINE_TOOLS,
    EXPORTS,
    ROWS,
    Reference,
    Stage,
    StageName,
    StageResult,
    StageRun,
    find_gguf,
    make_kind,
    select_settings,
)
from commonweight.workshop.recipe.stages.alignment import (
    QUESTION_TOKENS,
    VOTE_TOKENS,
    GenerateStage,
    digest_read_files,
    list_model_licences,
    prepare_model,
    require_model,
)

LOOP_CHARACTERS = 1200
"""Of a conversation with tools, for estimates."""


class RecoverStage(Stage, RecoverSettings):
    """Answers that begin as first answers did, and turn away."""

    kind: Literal["recover"]
    data: StageName
    """First answers, which comply."""
    revised: StageName
    """Answers to the same prompts that turn them away."""
    model: StageName
    """A stage of the kind export, with the tokenizer that beginnings are counted with."""

    def list_references(self) -> tuple[Reference, ...]:
        return (
            Reference("data", self.data, ("data",), ROWS),
            Reference("revised", self.revised, ("revised",), ROWS),
            Reference("model", self.model, ("model",), EXPORTS),
        )


class ToolLoopStage(Stage, ToolLoopSettings):
    """Conversations with tools: some in which something harmful is asked, and harmless ones."""

    kind: Literal["tool_loop"]
    data: StageName
    """Harmful prompts with answers that turn them away."""
    model: StageName
    """A stage of the kind export, with the prompt format of the model that is trained."""

    def list_references(self) -> tuple[Reference, ...]:
        return (
            Reference("data", self.data, ("data",), ROWS),
            Reference("model", self.model, ("model",), EXPORTS),
        )


class PairStage(Stage, PairSettings):
    """The best and the worst answer to a prompt, as a preference."""

    kind: Literal["pair"]
    data: StageName
    """Several answers to each prompt, of the model that is trained; against first answers: revisions."""
    first: StageName | None = None
    """First answers to the same prompts, where pairs are against these."""
    model: StageName | None = None
    """A stage of the kind export: the critic; null: the model that ``engine`` describes, or none where rules
    rank."""

    @model_validator(mode="after")
    def _check_inputs(self) -> Self:
        if (self.against == "first") != (self.first is not None):
            raise ValueError("against: first needs a stage of first answers as first, and nothing else takes one")
        if self.ranking == "critic":
            require_model(self.model, self.engine)
        elif self.model is not None or self.engine is not None:
            raise ValueError("rules need no model: leave out model and engine")
        return self

    def list_references(self) -> tuple[Reference, ...]:
        optional = (("first", self.first, ROWS), ("model", self.model, EXPORTS))
        return (
            Reference("data", self.data, ("data",), ROWS),
            *(Reference(role, name, (role,), kinds) for role, name, kinds in optional if name is not None),
        )


def _run_recover(run: StageRun) -> StageResult:
    from commonweight.workshop.alignment.origins import check_rows
    from commonweight.workshop.alignment.recover_stage import run_recover
    from commonweight.workshop.alignment.stops import NAME, digest_stops, read_stops

    settings = select_settings(RecoverSettings, run.spec)
    data, revised = run.get_folder("data"), run.get_folder("revised")
    for folder in (data, revised):
        check_rows(folder, run.policy)
    model = find_gguf(run, settings.file)
    facts = run_recover(settings, data, revised, model, run.output, run.report)
    own = (NAME, digest_stops())
    return StageResult(licences=(read_stops().licence,), sources=(own,), facts=dict(facts))


def _run_tool_loop(run: StageRun) -> StageResult:
    from commonweight.workshop.alignment.origins import check_rows
    from commonweight.workshop.alignment.tool_loop_stage import run_tool_loop
    from commonweight.workshop.alignment.tool_table import NAME, read_table

    settings = select_settings(ToolLoopSettings, run.spec)
    data = run.get_folder("data")
    check_rows(data, run.policy)
    facts = run_tool_loop(settings, data, find_gguf(run, settings.file), run.output, run.report)
    table = read_table()
    return StageResult(licences=(table.licence,), sources=((NAME, table.sha256),), facts=dict(facts))


def _run_pair(run: StageRun) -> StageResult:
    from commonweight.workshop.alignment.charters import read_charter
    from commonweight.workshop.alignment.origins import check_rows
    from commonweight.workshop.alignment.pair_stage import run_pair

    assert isinstance(run.spec, PairStage)
    settings = select_settings(PairSettings, run.spec)
    data = run.get_folder("data")
    first = run.get_folder("first") if run.spec.first is not None else None
    for folder in (data, first):
        if folder is not None:
            check_rows(folder, run.policy)
    if settings.ranking == "rules":
        _, facts = run_pair(settings, data, first, None, None, run.output, run.checkpoints, run.report)
        return StageResult(facts=dict(facts))
    charter = read_charter(settings.charter, run.root)
    model, origin, decisions = prepare_model(run, settings)
    observed, facts = run_pair(
        settings, data, first, (model, origin), charter, run.output, run.checkpoints, run.report
    )
    return StageResult(
        licences=list_model_licences(settings, origin),
        generators=(origin.generator, *origin.generators),
        decisions=decisions,
        charter=charter.sha256,
        facts=dict(facts),
        observed=dict(observed),
    )


def _digest_stops(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    from commonweight.workshop.alignment.stops import NAME, digest_stops

    del spec, root, data_root
    return {NAME: digest_stops()}


def _digest_table(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    from commonweight.workshop.alignment.tool_table import NAME, read_table

    del spec, root, data_root
    return {NAME: read_table().sha256}


def _digest_critic(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    del data_root
    assert isinstance(spec, PairStage)
    return digest_read_files(spec.charter, spec.engine, root) if spec.ranking == "critic" else {}


def _foresee_recovery(spec: Stage, forecast: Forecast) -> Volume | None:
    assert isinstance(spec, RecoverStage)
    return forecast.get_volume(spec.data)


def _foresee_loops(spec: Stage, forecast: Forecast) -> Volume | None:
    assert isinstance(spec, ToolLoopStage)
    harmful = forecast.get_volume(spec.data)
    if harmful is None:
        return None
    rows = round(harmful.rows / (1 - spec.harmless_share))
    return Volume(rows, rows * LOOP_CHARACTERS)


def _foresee_pairs(spec: Stage, forecast: Forecast) -> Volume | None:
    """At most a pair a prompt, of two answers each."""
    assert isinstance(spec, PairStage)
    rows = forecast.get_volume(spec.data)
    if rows is None:
        return None
    answering = forecast.stages[spec.data]
    samples = answering.samples if isinstance(answering, GenerateStage) else 1
    return Volume(rows.rows // samples, 2 * rows.characters // samples)


def _estimate_rows(spec: Stage, forecast: Forecast) -> str:
    rows = _foresee_loops(spec, forecast) if isinstance(spec, ToolLoopStage) else _foresee_recovery(spec, forecast)
    return "" if rows is None else f"{rows.rows:,} rows at most, written in seconds"


def _estimate_pairs(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, PairStage)
    answers, pairs = forecast.get_volume(spec.data), _foresee_pairs(spec, forecast)
    if answers is None or pairs is None:
        return ""
    if spec.ranking == "rules":
        return f"{pairs.rows:,} pairs at most, ranked in seconds"
    work = answer_prompts(answers, spec.votes, VOTE_TOKENS, each=QUESTION_TOKENS)
    return describe_generation(spec, forecast.get_model(spec.model), work)


_TOOLS = ("pyarrow", *ENGINE_TOOLS)
_KEYED = ("commonweight", *ENGINE_TOOLS)
KINDS = (
    make_kind(
        "recover",
        1,
        RecoverStage,
        _run_recover,
        "alignment.recover_stage",
        _TOOLS,
        digest_sources=_digest_stops,
        keyed_tools=_KEYED,
        foresee=_foresee_recovery,
        estimate=_estimate_rows,
    ),
    make_kind(
        "tool_loop",
        1,
        ToolLoopStage,
        _run_tool_loop,
        "alignment.tool_loop_stage",
        _TOOLS,
        digest_sources=_digest_table,
        keyed_tools=_KEYED,
        foresee=_foresee_loops,
        estimate=_estimate_rows,
    ),
    make_kind(
        "pair",
        1,
        PairStage,
        _run_pair,
        "alignment.pair_stage",
        _TOOLS,
        digest_sources=_digest_critic,
        keyed_tools=_KEYED,
        foresee=_foresee_pairs,
        estimate=_estimate_pairs,
    ),
)
"""The kinds of these stages."""
