"""Stages that train: tokenizers, models from random weights, and models that learn to answer."""

from collections.abc import Mapping
from typing import Literal

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
from commonweight.workshop.training.settings import PretrainSettings, SftSettings, TokenizerSettings


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
    observed = run_sft(
        select_settings(SftSettings, run.spec), data, model, run.output, run.checkpoints, run.report
    )
    facts = {"trained_tokens": int(observed["trained_tokens"]), "held_out_loss": observed["eval_loss"]}
    return StageResult(facts=facts, observed=dict(observed))


def _estimate_pretraining(spec: Stage, stages: Mapping[str, Stage]) -> str:
    from commonweight.workshop.training.estimate import estimate

    assert isinstance(spec, PretrainStage)
    tokenizer = stages[spec.tokenizer]
    assert isinstance(tokenizer, TokenizerStage)
    needs = estimate(select_settings(PretrainSettings, spec), tokenizer.vocab_size)
    return (
        f"{needs.parameters / 1e6:.1f} M parameters, {needs.tokens / 1e6:.1f} M tokens, {needs.flops:.1e} FLOPs, "
        f"{needs.memory_bytes / 1e9:.1f} GB memory, {needs.disk_bytes / 1e9:.2f} GB disk, "
        f"about {needs.seconds:.0f} s"
    )


KINDS = (
    make_kind("tokenizer", 1, TokenizerStage, _run_tokenizer, "training.tokenizer", ("tokenizers",)),
    make_kind(
        "pretrain",
        1,
        PretrainStage,
        _run_pretrain,
        "training.pretrain",
        TRAINING_TOOLS,
        estimate=_estimate_pretraining,
    ),
    make_kind("sft", 1, SftStage, _run_sft, "training.sft", (*TRAINING_TOOLS, "trl", "peft", "accelerate")),
)
"""The kinds of this room."""
