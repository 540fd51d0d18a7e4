"""Settings of stages that train a model further: fine-tuning, preference, adapters. No training library here."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from commonweight.workshop.settings import Settings, Several

Share = Annotated[float, Field(ge=0, lt=1)]
Names = str | Several[str]
Rank = Annotated[int, Field(ge=1, le=1024)]

ACCUMULATION = "gradient_accumulation_steps"
OWN_FIELDS: Mapping[str, str] = {
    "output_dir": "checkpoints stand in the build folder",
    "packing": "rows are not packed",
    "eval_packing": "rows are not packed",
    "padding_free": "rows are padded",
    "dataset_kwargs": "rows are encoded before",
    "dataset_text_field": "rows are encoded before",
    "chat_template_path": "the template is the model's",
    "eos_token": "the tokenizer is the model's",
    "pad_token": "the tokenizer is the model's",
    "completion_only_loss": "answers are what is learned",
    "assistant_only_loss": "answers are what is learned",
    "truncation_mode": "max_length decides",
    "model_init_kwargs": "the model is a stage's",
    "trust_remote_code": "no code comes with a model",
    "learning_rate": "it is a setting of the stage",
    "num_train_epochs": "it is the setting epochs",
    "max_steps": "it is a setting of the stage",
    "max_length": "it is a setting of the stage",
    "seed": "it is a setting of the stage",
    "data_seed": "it is the setting seed",
    "report_to": "it is a setting of the stage",
    "per_device_train_batch_size": f"batch_size and {ACCUMULATION} decide",
    "per_device_eval_batch_size": f"batch_size and {ACCUMULATION} decide",
    "auto_find_batch_size": f"batch_size and {ACCUMULATION} decide",
    "eval_strategy": "evaluation_interval decides",
    "eval_steps": "evaluation_interval decides",
    "eval_on_start": "evaluation_interval decides",
    "eval_delay": "evaluation_interval decides",
    "save_strategy": "evaluation_interval decides",
    "save_steps": "evaluation_interval decides",
    "save_total_limit": "the best and the last checkpoint are kept",
    "save_only_model": "a killed run goes on from its checkpoint",
    "load_best_model_at_end": "the stage decides which checkpoint is kept",
    "metric_for_best_model": "the stage decides which checkpoint is kept",
    "greater_is_better": "the stage decides which checkpoint is kept",
    "resume_from_checkpoint": "a killed run goes on from its checkpoint",
    "ignore_data_skip": "a killed run goes on from its checkpoint",
    "logging_strategy": "every step is logged",
    "logging_steps": "every step is logged",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "bf16": "the machine decides",
    "fp16": "the machine decides",
    "use_cpu": "the machine decides",
    "push_to_hub": "a release is what is published",
    "loss_weights": "the setting losses decides",
    "beta": "it is a setting of the stage",
    "precompute_ref_log_probs": "they are computed before, always",
    "sync_ref_model": "the reference is the model that the stage began with",
}
"""Fields of TRL's configurations that are not taken from ``trl``, and what decides them instead."""


class LoraSettings(Settings):
    """Low-rank adapters: fields of peft's ``LoraConfig``, those whose result can be merged into the weights."""

    r: Rank = 16
    """Rank."""
    lora_alpha: int | None = Field(default=None, ge=1, le=65_536)
    """Scale, divided by the rank (by its root with ``use_rslora``); None: twice the rank."""
    lora_dropout: Share = 0.0
    target_modules: Names = "all-linear"
    """Names of modules, one regular expression, or ``all-linear``: all linear layers but the output."""
    exclude_modules: Names | None = None
    use_rslora: bool = False
    """Scale by the root of the rank."""
    use_dora: bool = False
    """Magnitude and direction apart (DoRA)."""
    init_lora_weights: Literal["default", "gaussian", "orthogonal"] = "default"
    """How the first weights are drawn, among the ways that begin with the base as it is; peft's ``True`` is
    ``default``."""
    layers_to_transform: Several[Annotated[int, Field(ge=0)]] | None = None
    layers_pattern: Names | None = None
    rank_pattern: dict[str, Rank] = Field(default_factory=dict)
    """Ranks of modules that have another."""
    alpha_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)

    @field_validator("target_modules")
    @classmethod
    def _require_targets(cls, names: Names) -> Names:
        if not names:
            raise ValueError("target_modules names no module")
        return names

    @property
    def alpha(self) -> int:
        """The scale, where none is set twice the rank."""
        return 2 * self.r if self.lora_alpha is None else self.lora_alpha


class TuningSettings(Settings):
    """What all ways to train a model further have in common."""

    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Peak; it rises over the first tenth of the steps and falls linearly to zero."""
    epochs: float = Field(default=1.0, gt=0, le=1000)
    """Passes over the rows, unless ``max_steps`` is given."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps, instead of ``epochs``."""
    batch_size: int = Field(default=8, ge=1, le=4096)
    """Rows of an optimizer step; ``trl: {gradient_accumulation_steps: N}`` computes it in N parts."""
    max_length: int = Field(default=512, ge=16, le=131_072)
    """Tokens of a row."""
    lora: LoraSettings | None = None
    """Adapters, merged into the weights at the end and stored beside them; without it all weights learn."""
    quantised_base: bool = False
    """Whether the base is held in 4 bits while adapters learn (QLoRA); needs a CUDA device and bitsandbytes."""
    trl: dict[str, JsonValue] = Field(default_factory=dict, max_length=100)
    """Further fields of TRL's configuration: ``lr_scheduler_type``, ``weight_decay``, ``optim``, and so on."""
    eval_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows held out where the dataset has no validation rows."""
    evaluation_interval: int = Field(default=50, ge=1)
    """Steps between measurements and checkpoints; one of these checkpoints is what is saved."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the order of rows, the held-out share and the adapters' first weights."""
    report_to: Several[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = ()
    """Experiment trackers that the trainer reports to."""

    @field_validator("trl")
    @classmethod
    def _refuse_own_fields(cls, fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in fields:
            if name in OWN_FIELDS or name.startswith("hub_"):
                raise ValueError(f"{name} is not taken from trl: {OWN_FIELDS.get(name, 'nothing is uploaded')}")
        parts = fields.get(ACCUMULATION, 1)
        if isinstance(parts, bool) or not isinstance(parts, int) or parts < 1:
            raise ValueError(f"{ACCUMULATION} must be a whole number of at least 1")
        return fields

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.quantised_base and self.lora is None:
            raise ValueError("quantised_base needs lora: weights in 4 bits learn nothing themselves")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of trl.{ACCUMULATION} ({self.accumulation})"
            )
        return self

    @property
    def accumulation(self) -> int:
        """Forward and backward passes of an optimizer step."""
        value: Any = self.trl.get(ACCUMULATION, 1)
        return int(value)


class SftSettings(TuningSettings):
    """How a model learns to answer: supervised fine-tuning on conversations.

    Conversations longer than ``max_length`` are cut at their end, and dropped where no answer is left. The
    checkpoint with the lowest held-out loss is what is saved.
    """


Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
"""Losses of TRL's ``DPOConfig.loss_type``."""
DEFAULT_LOSSES: dict[Loss, float] = {"sigmoid": 1.0, "sft": 0.2}


class PreferenceSettings(TuningSettings):
    """How a model learns to prefer one answer to another: direct preference optimisation.

    Pairs of which an answer, with its prompt, is longer than ``max_length`` are dropped and counted: a cut answer
    is another one, with another likelihood. The last checkpoint within ``ordinary_tolerance`` is what is saved.
    """

    learning_rate: float = Field(default=5e-6, gt=0, le=1)
    """Peak; it rises over the first tenth of the steps and falls linearly to zero."""
    losses: dict[Loss, Annotated[float, Field(gt=0, le=1000)]] = Field(default=DEFAULT_LOSSES, min_length=1)
    """Weights of the losses that are added up; ``sft`` is the mean negative log-likelihood of chosen answers."""
    beta: float = Field(default=0.1, gt=0, le=100)
    """How strongly the model is held to what it was."""
    evaluation_interval: int = Field(default=10, ge=1)
    """Steps between measurements and checkpoints; one of these checkpoints is what is saved."""
    ordinary_tolerance: float = Field(default=0.05, gt=0, le=10)
    """Nats per token by which the mean log-probability of ordinary answers may fall before training stops."""
    ordinary_rows: int = Field(default=64, ge=1, le=100_000)
    """Most rows that it is measured on, drawn by the seed."""

    @field_validator("trl")
    @classmethod
    def _refuse_loss_type(cls, fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if "loss_type" in fields:
            raise ValueError("loss_type is not taken from trl: the setting losses decides")
        return fields

    @model_validator(mode="after")
    def _require_contrast(self) -> Self:
        if set(self.losses) == {"sft"}:
            raise ValueError("losses must name one besides sft, which learns from chosen answers alone")
        if "exo_pair" in self.losses and not self.trl.get("label_smoothing"):
            raise ValueError("exo_pair needs trl.label_smoothing above 0, such as 0.001")
        return self


class AdapterSettings(Settings):
    """An adapter from outside, and under which terms."""

    location: str = Field(alias="from", min_length=1, max_length=2000)
    """A folder in peft's layout or the ``adapter_model.safetensors`` in it: relative to the recipe, or
    ``package:NAME/path``. A ``record.json`` there is the record of what made it, which says what it was trained
    on."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest that the file must have; of a folder, that of the names and digests of weights and configuration."""
    licence: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,99}$")
    """SPDX identifier or ``LicenseRef-`` name of the adapter's weights."""
