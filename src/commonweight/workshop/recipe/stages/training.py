"""Stages that train: tokenizers, models from random weights, models that learn to answer, and their adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from commonweight.lineage.provenance import Material, check_material, require_material
from commonweight.lineage.record import Decision, Record
from commonweight.workshop.recipe.estimates import describe_merge, describe_tuning
from commonweight.workshop.recipe.forecast import Forecast, ModelSize
from commonweight.workshop.recipe.stage_kind import (
    MODELS,
    ROWS,
    TOKENIZERS,
    TRAINING_TOOLS,
    Reference,
    Stage,
    StageName,
    StageResult,
    StageRun,
    make_kind,
    observe,
    select_settings,
)
from commonweight.workshop.training.settings import PretrainSettings, TokenizerSettings
from commonweight.workshop.training.tuning_settings import AdapterSettings, PreferenceSettings, SftSettings

ORDINARY = "ordinary"
"""Role of rows that a model's answers to must stay likely."""
TUNING_TOOLS = (*TRAINING_TOOLS, "trl", "peft", "accelerate")


class TokenizerStage(Stage, TokenizerSettings):
    """A byte-level BPE tokenizer, trained on rows."""

    kind: Literal["tokenizer"]
    data: StageName

    def list_references(self) -> tuple[Reference, ...]:
        return (Reference("data", self.data, ("data",), ROWS),)


class PretrainStage(Stage, PretrainSettings):
    """A decoder, trained from random weights on text."""

    kind: Literal["pretrain"]
    data: StageName
    tokenizer: StageName

    def list_references(self) -> tuple[Reference, ...]:
        return (
            Reference("data", self.data, ("data",), ROWS),
            Reference("tokenizer", self.tokenizer, ("tokenizer",), TOKENIZERS),
        )


class SftStage(Stage, SftSettings):
    """A model, trained further on the answers of conversations."""

    kind: Literal["sft"]
    data: StageName
    model: StageName

    def list_references(self) -> tuple[Reference, ...]:
        return Reference("data", self.data, ("data",), ROWS), Reference("model", self.model, ("model",), MODELS)


class PreferenceStage(Stage, PreferenceSettings):
    """A model, trained further to prefer one answer to another."""

    kind: Literal["preference"]
    data: StageName
    """Rows of kind ``preference``."""
    ordinary: StageName
    """Rows of messages whose answers must stay likely."""
    model: StageName

    def list_references(self) -> tuple[Reference, ...]:
        return (
            Reference("data", self.data, ("data",), ROWS),
            Reference(ORDINARY, self.ordinary, (ORDINARY,), ROWS),
            Reference("model", self.model, ("model",), MODELS),
        )


class AdapterStage(Stage, AdapterSettings):
    """A model with an adapter from outside in its weights."""

    kind: Literal["adapter"]
    model: StageName

    def list_references(self) -> tuple[Reference, ...]:
        return (Reference("model", self.model, ("model",), MODELS),)


def _run_tokenizer(run: StageRun) -> StageResult:
    from commonweight.workshop.training.tokenizer import run_tokenizer

    data = run.get_folder("data")
    return observe(run_tokenizer(select_settings(TokenizerSettings, run.spec), data, run.output, run.report))


def _run_pretrain(run: StageRun) -> StageResult:
    from commonweight.workshop.training.pretrain import run_pretrain

    data, tokenizer = run.get_folder("data"), run.get_folder("tokenizer")
    settings = select_settings(PretrainSettings, run.spec)
    observed = run_pretrain(settings, data, tokenizer, run.output, run.checkpoints, run.report)
    facts = {
        "trained_tokens": settings.total_steps * settings.batch_tokens,
        "parameters": int(observed["parameters"]),
        "bits_per_byte": observed["bits_per_byte"],
    }
    return StageResult(facts=facts, observed=dict(observed))


def _run_sft(run: StageRun) -> StageResult:
    from commonweight.workshop.training.sft import run_sft

    data, model = run.get_folder("data"), run.get_folder("model")
    settings = select_settings(SftSettings, run.spec)
    observed = run_sft(settings, data, model, run.output, run.checkpoints, run.report, _find_base_id(run))
    facts = {"trained_tokens": int(observed["trained_tokens"]), "held_out_loss": observed["eval_loss"]}
    return StageResult(facts=facts, observed=dict(observed))


def _run_preference(run: StageRun) -> StageResult:
    from commonweight.workshop.training.preference import run_preference

    data, ordinary, model = (run.get_folder(role) for role in ("data", ORDINARY, "model"))
    settings = select_settings(PreferenceSettings, run.spec)
    base_id = _find_base_id(run)
    observed = run_preference(settings, data, ordinary, model, run.output, run.checkpoints, run.report, base_id)
    facts = {
        "trained_tokens": int(observed["trained_tokens"]),
        "kept_step": int(observed["kept_step"]),
        "held_out_loss": observed["eval_loss"],
        "ordinary_logp_before": observed["ordinary_logp_before"],
        "ordinary_logp_after": observed["ordinary_logp_after"],
    }
    return StageResult(facts=facts, observed=dict(observed))


def _find_base_id(run: StageRun) -> str | None:
    """The publisher's name of the model that a stage began with; None: it was made here."""
    (record,) = [item.record for item in run.inputs if item.role == "model"]
    model_id = record.parameters.get("model_id") if record.kind == "import" else None
    return None if model_id is None else str(model_id)


def _run_adapter(run: StageRun) -> StageResult:
    from commonweight.workshop.training.adapter import run_adapter
    from commonweight.workshop.training.adapter_files import find_adapter

    assert isinstance(run.spec, AdapterStage)
    adapter = find_adapter(select_settings(AdapterSettings, run.spec), run.root)
    (base,) = [item.record for item in run.inputs if item.role == "model"]
    decisions = _check_adapter(run, run.spec, adapter.record, base)
    require_material(decisions)
    observed = run_adapter(adapter, run.get_folder("model"), run.output, run.report)
    declared = adapter.record
    if declared is None:
        run.report("adapter: no record comes with it; what it was trained on is not known")
        return StageResult(licences=(run.spec.licence,), decisions=decisions, observed=dict(observed))
    tokens = declared.facts.get("trained_tokens")
    return StageResult(
        licences=(run.spec.licence, *declared.licences),
        generators=declared.generators,
        decisions=decisions,
        facts={"declared_record": declared.identity, "declared_kind": declared.kind}
        | ({} if tokens is None else {"trained_tokens": tokens}),
        observed=dict(observed),
    )


def _check_adapter(
    run: StageRun, spec: AdapterStage, declared: Record | None, base: Record
) -> tuple[Decision, ...]:
    """Decide on an adapter by its licence, and by what its record says that it was trained on.

    Licences and generators of the base were decided on when it came in.
    """
    materials = [Material(spec.location, "weights", spec.licence, None, rows=0)]
    if declared is not None:
        materials += [
            Material(spec.location, "weights", licence, None, rows=0)
            for licence in declared.licences
            if licence not in (*base.licences, spec.licence)
        ]
        materials += [
            Material(spec.location, "answers", spec.licence, generator, rows=0)
            for generator in declared.generators
            if generator not in base.generators
        ]
    return check_material(materials, run.policy, run.evaluation_sets)


def _digest_adapter(spec: Stage, root: Path, data_root: Path | None) -> Mapping[str, str]:
    from commonweight.lineage.digests import digest_content
    from commonweight.workshop.training.adapter_files import find_adapter

    del data_root
    assert isinstance(spec, AdapterStage)
    adapter = find_adapter(select_settings(AdapterSettings, spec), root)
    record = {} if adapter.record is None else {f"{spec.location} (record)": adapter.record.identity}
    return {spec.location: digest_content(adapter.digests)} | record


def _estimate_pretraining(spec: Stage, forecast: Forecast) -> str:
    from commonweight.workshop.training.estimate import estimate

    assert isinstance(spec, PretrainStage)
    tokenizer = forecast.stages[spec.tokenizer]
    assert isinstance(tokenizer, TokenizerStage)
    needs = estimate(select_settings(PretrainSettings, spec), tokenizer.vocab_size)
    return (
        f"{needs.parameters / 1e6:.1f} M parameters, {needs.tokens / 1e6:.1f} M tokens, {needs.flops:.1e} FLOPs, "
        f"{needs.memory_bytes / 1e9:.1f} GB memory, {needs.disk_bytes / 1e9:.2f} GB disk, "
        f"about {needs.seconds:.0f} s"
    )


def _foresee_pretraining(spec: Stage, forecast: Forecast) -> ModelSize:
    from commonweight.workshop.training.estimate import count_parameters

    assert isinstance(spec, PretrainStage)
    tokenizer = forecast.stages[spec.tokenizer]
    assert isinstance(tokenizer, TokenizerStage)
    _, parameters = count_parameters(select_settings(PretrainSettings, spec), tokenizer.vocab_size)
    cache_bytes = 2 * 2 * spec.layers * spec.kv_heads * spec.head_dim
    return ModelSize(parameters, spec.layers, spec.dim, tokenizer.vocab_size, cache_bytes)


def _foresee_tuning(spec: Stage, forecast: Forecast) -> ModelSize | None:
    assert isinstance(spec, SftStage | PreferenceStage | AdapterStage)
    return forecast.get_model(spec.model)


def _estimate_sft(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, SftStage)
    return describe_tuning(spec, forecast.get_model(spec.model), forecast.get_volume(spec.data))


def _estimate_preference(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, PreferenceStage)
    return describe_tuning(spec, forecast.get_model(spec.model), forecast.get_volume(spec.data), sequences=2)


def _estimate_adapter(spec: Stage, forecast: Forecast) -> str:
    assert isinstance(spec, AdapterStage)
    return describe_merge(forecast.get_model(spec.model))


KINDS = (
    make_kind("tokenizer", 1, TokenizerStage, _run_tokenizer, "training.tokenizer", ("tokenizers",)),
    make_kind(
        "pretrain",
        2,
        PretrainStage,
        _run_pretrain,
        "training.pretrain",
        TRAINING_TOOLS,
        foresee=_foresee_pretraining,
        estimate=_estimate_pretraining,
    ),
    make_kind(
        "sft",
        2,
        SftStage,
        _run_sft,
        "training.sft",
        TUNING_TOOLS,
        foresee=_foresee_tuning,
        estimate=_estimate_sft,
    ),
    make_kind(
        "preference",
        1,
        PreferenceStage,
        _run_preference,
        "training.preference",
        TUNING_TOOLS,
        foresee=_foresee_tuning,
        estimate=_estimate_preference,
    ),
    make_kind(
        "adapter",
        1,
        AdapterStage,
        _run_adapter,
        "training.adapter",
        (*TRAINING_TOOLS, "peft"),
        digest_sources=_digest_adapter,
        foresee=_foresee_tuning,
        estimate=_estimate_adapter,
    ),
)
"""The kinds of this room."""
