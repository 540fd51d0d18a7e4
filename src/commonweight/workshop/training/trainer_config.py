"""Configs of other trainers for our stages: YAML that ``trl sft``, ``trl dpo`` and ``axolotl train`` read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tuning_settings import (
    ACCUMULATION,
    LoraSettings,
    PreferenceSettings,
    SftSettings,
    TuningSettings,
)

Trainer = Literal["trl", "axolotl"]

CONFIG = "config.yaml"
MODEL = "model"
"""Folder of the model that training begins with, beside the config."""
ROWS = "rows"
"""Folder of the rows, beside the config: ``train.jsonl`` and ``validation.jsonl``."""
RUN = "run"
"""Folder that the trainer writes its weights and logs to, beside the config."""

_TRL_LORA = {"r": "lora_r", "lora_dropout": "lora_dropout", "use_rslora": "use_rslora", "use_dora": "use_dora"}
_AXOLOTL_LORA = {
    "r": "lora_r",
    "lora_dropout": "lora_dropout",
    "use_rslora": "peft_use_rslora",
    "use_dora": "peft_use_dora",
    "init_lora_weights": "peft_init_lora_weights",
    "layers_to_transform": "peft_layers_to_transform",
    "layers_pattern": "peft_layers_pattern",
    "trainable_token_indices": "peft_trainable_token_indices",
}
"""Names of fields of ``lora`` in the trainers' configs, but for ``lora_alpha`` and ``target_modules``."""
_AXOLOTL_FIELDS = {
    ACCUMULATION: ACCUMULATION,
    "lr_scheduler_type": "lr_scheduler",
    "lr_scheduler_kwargs": "lr_scheduler_kwargs",
    "optim": "optimizer",
    "optim_args": "optim_args",
    "warmup_steps": "warmup_steps",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "adam_beta1": "adam_beta1",
    "adam_beta2": "adam_beta2",
    "adam_epsilon": "adam_epsilon",
    "neftune_noise_alpha": "neftune_noise_alpha",
    "gradient_checkpointing": "gradient_checkpointing",
    "label_smoothing": "dpo_label_smoothing",
}
"""Fields of TRL that axolotl has, and their names there."""


class RowCounts(BaseModel):
    """What was written for a trainer, and what was left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: int
    validation: int
    tokens: int
    """Of the training rows, each once."""
    learned_tokens: int
    """Of these, the ones with a loss."""
    left_out: dict[str, int]
    """Rows by reason."""


def make_sft_config(settings: SftSettings, trainer: Trainer) -> dict[str, Any]:
    """What supervised fine-tuning with these settings is in the words of another trainer.

    The rows hold token ids and labels already, so that no template, mask or packing of the trainer's own applies.

    Raises:
        TrainingError: the trainer has no words for one of them.
    """
    if trainer == "trl":
        return _make_trl_config(settings) | {"packing": False}
    return _make_axolotl_config(settings) | _list_axolotl_datasets({"ds_type": "json", "type": None})


def make_preference_config(settings: PreferenceSettings, trainer: Trainer) -> dict[str, Any]:
    """What preference optimisation with these settings is in the words of another trainer.

    Raises:
        TrainingError: the trainer has no words for one of them.
    """
    names, weights = list(settings.losses), list(settings.losses.values())
    if trainer == "trl":
        losses = {"loss_type": names, "loss_weights": weights, "beta": settings.beta}
        return _make_trl_config(settings) | losses
    return (
        _make_axolotl_config(settings)
        | {"rl": "dpo", "rl_beta": settings.beta, "dpo_loss_type": names, "dpo_loss_weights": weights}
        | {"chat_template": "tokenizer_default"}
        | _list_axolotl_datasets(
            {"ds_type": "json", "type": "chat_template.default", "field_messages": "messages"}
        )
    )


def get_command(method: Literal["sft", "dpo"], trainer: Trainer) -> str:
    """The command that trains with a config, in its folder."""
    return f"trl {method} --config {CONFIG}" if trainer == "trl" else f"axolotl train {CONFIG}"


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write a config as YAML."""
    (folder / CONFIG).write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")


def _make_trl_config(settings: TuningSettings) -> dict[str, Any]:
    return {
        "model_name_or_path": MODEL,
        "dataset_name": ROWS,
        "dataset_train_split": "train",
        "dataset_test_split": "validation",
        "output_dir": RUN,
        "learning_rate": settings.learning_rate,
        "warmup_steps": 0.1,
        "lr_scheduler_type": "linear",
        "num_train_epochs": settings.epochs,
        **({} if settings.max_steps is None else {"max_steps": settings.max_steps}),
        "per_device_train_batch_size": settings.batch_size // settings.accumulation,
        "per_device_eval_batch_size": settings.batch_size // settings.accumulation,
        "max_length": settings.max_length,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "logging_steps": 1,
        "report_to": list(settings.report_to) or "none",
        **_list_checkpoints(settings),
        **dict(_list_trl_lora(settings.lora, settings.quantised_base)),
        **settings.trl,
    }


def _make_axolotl_config(settings: TuningSettings) -> dict[str, Any]:
    return {
        "base_model": MODEL,
        "output_dir": RUN,
        "dataset_prepared_path": "prepared",
        "learning_rate": settings.learning_rate,
        "optimizer": "adamw_torch",
        **({} if "warmup_steps" in settings.trl else {"warmup_ratio": 0.1}),
        "lr_scheduler": "linear",
        "num_epochs": settings.epochs,
        **({} if settings.max_steps is None else {"max_steps": settings.max_steps}),
        "micro_batch_size": settings.batch_size // settings.accumulation,
        ACCUMULATION: settings.accumulation,
        "sequence_len": settings.max_length,
        "sample_packing": False,
        "bf16": "auto",
        "gradient_checkpointing": True,
        "seed": settings.seed,
        "logging_steps": 1,
        **({"use_tensorboard": True} if "tensorboard" in settings.report_to else {}),
        **_list_checkpoints(settings),
        **dict(_list_axolotl_lora(settings.lora, settings.quantised_base)),
        **{_translate("trl", name, _AXOLOTL_FIELDS, "axolotl"): value for name, value in settings.trl.items()},
    }


def _list_checkpoints(settings: TuningSettings) -> dict[str, Any]:
    """Measurements and checkpoints, in words that both trainers share."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.evaluation_interval,
        "save_strategy": "steps",
        "save_steps": settings.evaluation_interval,
        "save_total_limit": 2,
        # The loss of preferences falls on while answers get worse: there the last is what is kept.
        **({} if isinstance(settings, PreferenceSettings) else best),
    }


def _list_axolotl_datasets(form: Mapping[str, Any]) -> dict[str, Any]:
    train, held_out = ({"path": f"{ROWS}/{name}.jsonl", "split": "train"} for name in ("train", "validation"))
    return {"datasets": [{**train, **form}], "test_datasets": [{**held_out, **form}]}


def _list_trl_lora(lora: LoraSettings | None, is_quantised: bool) -> Iterator[tuple[str, Any]]:
    if lora is None:
        return
    yield "use_peft", True
    yield "load_in_4bit", is_quantised
    yield "lora_alpha", lora.alpha
    yield "lora_target_modules", _list_names(lora.target_modules)
    yield from _list_fields(lora, _TRL_LORA, "trl")


def _list_axolotl_lora(lora: LoraSettings | None, is_quantised: bool) -> Iterator[tuple[str, Any]]:
    if lora is None:
        return
    yield "adapter", "qlora" if is_quantised else "lora"
    yield "load_in_4bit", is_quantised
    yield "lora_alpha", lora.alpha
    if lora.target_modules == "all-linear":
        yield "lora_target_linear", True
    else:
        yield "lora_target_modules", _list_names(lora.target_modules)
    yield from _list_fields(lora, _AXOLOTL_LORA, "axolotl")


def _list_fields(lora: LoraSettings, names: Mapping[str, str], trainer: Trainer) -> Iterator[tuple[str, Any]]:
    """Fields whose value is not peft's own default, by their names there."""
    own = {"lora_alpha", "target_modules"}
    for name, value in lora.model_dump(mode="json", exclude_defaults=True, exclude=own).items():
        yield _translate("lora", name, names, trainer), value
    if "r" not in lora.model_dump(exclude_defaults=True):
        yield names["r"], lora.r


def _list_names(names: str | tuple[str, ...]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _translate(where: str, name: str, names: Mapping[str, str], trainer: Trainer) -> str:
    if name not in names:
        raise TrainingError(f"{where}.{name} has no counterpart in a config of {trainer}; leave it out to export")
    return names[name]
