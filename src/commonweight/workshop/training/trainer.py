"""What all trainers of TRL share here: models, precision, arguments, checkpoints, logs and what is saved."""

import dataclasses
import difflib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when the hub's library is imported
os.environ["TQDM_DISABLE"] = "1"  # TRL's own progress bars

import datasets
import numpy as np
import torch
import transformers
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerFast

from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tuning_settings import ACCUMULATION, LoraSettings, TuningSettings

METRICS = "metrics.jsonl"
LOGGED = ("loss", "eval_loss", "learning_rate", "grad_norm", "mean_token_accuracy", "eval_mean_token_accuracy")
"""What goes from the trainers' logs into ours; the rest are times and speeds."""
_BF16_CAPABILITY = (8, 0)
"""The first CUDA devices that multiply bfloat16 in hardware."""

Precision = Literal["bf16", "fp32"]


def prepare_libraries(settings: TuningSettings) -> None:
    """Checks what a run needs besides data and model, and quietens the libraries."""
    for tracker in settings.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise TrainingError(f"report_to names {tracker}, which is not installed")
    if settings.quantised_base:
        if not torch.cuda.is_available():
            raise TrainingError("quantised_base needs a CUDA device, and this machine has none: leave it out")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise TrainingError("quantised_base needs the library bitsandbytes, which is not installed")
    if torch.cuda.device_count() > 1:
        raise TrainingError(
            "several CUDA devices are visible, and a stage trains on one: set CUDA_VISIBLE_DEVICES to one of them"
        )
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def choose_precision() -> Precision:
    """bf16 where the device multiplies it in hardware; on processors fp32, which is faster on most."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= _BF16_CAPABILITY:
        return "bf16"
    return "fp32"


def load_model(folder: Path, settings: TuningSettings | None = None) -> PreTrainedModel:
    """The folder's model in fp32; under adapters, as the settings and the device have it, in bf16 or 4 bits."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if settings is not None and settings.lora is not None and choose_precision() == "bf16":
        options["dtype"] = torch.bfloat16
    if settings is not None and settings.quantised_base:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
        options["device_map"] = {"": 0}
    try:
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"the folder {folder.name} holds no model that can be loaded") from error


def get_free_memory() -> int | None:
    """Bytes that are free on the CUDA device; None: there is none."""
    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None


def make_arguments(config: type[Any], settings: TuningSettings, folder: Path, **own: object) -> Any:  # noqa: ANN401
    """TRL's configuration: ours, and the fields of ``trl``.

    Args:
        config: its class.
        folder: where checkpoints go.
        own: fields of this trainer alone.
    """
    known = [field.name for field in dataclasses.fields(config) if field.init]
    for name in settings.trl:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TrainingError(f"trl names {name}, which TRL's {config.__name__} does not have{hint}")
    on_cpu = not torch.cuda.is_available()
    batch = settings.batch_size // settings.accumulation
    fields: dict[str, object] = {
        "output_dir": str(folder),
        "learning_rate": settings.learning_rate,
        "warmup_steps": 0.1,
        "lr_scheduler_type": "linear",
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps if settings.max_steps is not None else -1,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        ACCUMULATION: settings.accumulation,
        "max_length": settings.max_length,
        "bf16": choose_precision() == "bf16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "eval_strategy": "steps",
        "eval_steps": settings.evaluation_interval,
        "save_strategy": "steps",
        "save_steps": settings.evaluation_interval,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": list(settings.report_to) or "none",
    }
    if "gradient_checkpointing" not in settings.trl:  # the older name of the same
        fields["activation_checkpointing"] = False
    try:
        return config(**(fields | own | settings.trl))
    except (TypeError, ValueError, ImportError) as error:
        raise TrainingError(f"TRL's {config.__name__} refuses its fields: {error}") from error


def make_lora(settings: LoraSettings | None) -> LoraConfig | None:
    """peft's configuration of adapters; None: all weights learn."""
    if settings is None:
        return None
    fields = {name: value for name, value in settings.model_dump().items() if value is not None}
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
    fields |= lists | {"lora_alpha": settings.alpha, "task_type": "CAUSAL_LM"}
    if settings.init_lora_weights == "default":
        fields["init_lora_weights"] = True
    return LoraConfig(**fields)


def build_trainer(
    trainer: type[Any],
    settings: TuningSettings,
    tokenizer: PreTrainedTokenizerFast,
    **own: Any,  # noqa: ANN401 - whatever it takes
) -> Any:  # noqa: ANN401 - the class is not typed
    """A trainer of TRL with adapters, our watch over losses, and no printing.

    Args:
        trainer: its class.
        own: what it gets besides: model, arguments, datasets.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    transformers.set_seed(settings.seed)  # before the adapters draw their first weights
    try:
        built = trainer(
            processing_class=tokenizer, peft_config=make_lora(settings.lora), callbacks=[WatchLoss()], **own
        )
    except ValueError as error:  # a module that lora names and the model has not, a loss that wants other fields
        raise TrainingError(f"{trainer.__name__} refuses the settings: {error}") from error
    built.remove_callback(transformers.trainer_callback.PrinterCallback)
    return built


def train(trainer: Any, checkpoints: Path, begin: Callable[[str], None]) -> float:  # noqa: ANN401 - any of TRL's
    """Runs a trainer, from the last checkpoint of a killed run where there is one.

    Args:
        begin: receives ``""`` or ``, from step N``.

    Returns:
        Seconds that it took.
    """
    checkpoint = find_checkpoint(checkpoints)
    begin(f", from step {checkpoint.name.rpartition('-')[2]}" if checkpoint else "")
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    if not all(np.isfinite(loss) for loss in losses):
        raise TrainingError("the held-out loss is not finite: lower the learning rate")
    return time.perf_counter() - started


class WatchLoss(transformers.TrainerCallback):
    """Has the last step measured too, and stops at a loss that is not finite."""

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **others: object,
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_log(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        logs: dict[str, float],
        **others: object,
    ) -> None:
        if not all(np.isfinite(logs[name]) for name in ("loss", "grad_norm", "eval_loss") if name in logs):
            raise TrainingError(
                f"the loss at step {state.global_step} is not finite: lower the learning rate"
                " (the last checkpoint before it is kept)"
            )


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: the trainer writes its state last, so that one without it is torn."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        whole.append((state["global_step"], path))
    return max(whole)[1] if whole else None


def write_metrics(history: Iterable[Mapping[str, float]], path: Path, names: tuple[str, ...] = LOGGED) -> None:
    """Writes a trainer's log, a line a step, without times and speeds."""
    with path.open("w", encoding="utf-8") as file:
        for entry in history:
            figures = {name: entry[name] for name in names if name in entry}
            if figures:
                file.write(json.dumps({"step": entry["step"], **figures}) + "\n")
