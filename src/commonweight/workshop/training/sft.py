"""Supervised fine-tuning through TRL: loss on answers only, held-out loss, the best checkpoint kept."""

import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when the hub's library is imported

import datasets
import numpy as np
import torch
import transformers
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from commonweight.workshop.training.dataset import read_rows
from commonweight.workshop.training.estimate import check_resources, estimate_sft
from commonweight.workshop.training.loss_mask import Encoded, encode_conversations
from commonweight.workshop.training.model import save_model
from commonweight.workshop.training.settings import SftSettings, TrainingError
from commonweight.workshop.training.tokenizer import copy_tokenizer, load_tokenizer

METRICS = "metrics.jsonl"
LOGGED = ("loss", "eval_loss", "learning_rate", "grad_norm", "mean_token_accuracy", "eval_mean_token_accuracy")
"""What goes from the trainer's log into ours; the rest are times and speeds."""


def run_sft(
    settings: SftSettings,
    data: Path,
    model: Path,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    """Fine-tunes a model folder on conversations and writes another; goes on from a killed run's checkpoint.

    Args:
        checkpoints: where the last checkpoints stay, for the caller to remove once the output is safe.
    """
    for tracker in settings.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise TrainingError(f"report_to names {tracker}, which is not installed")
    transformers.utils.logging.disable_progress_bar()
    words = load_tokenizer(model)
    train, held_out = split_conversations(settings, data, words)
    for reason, count in sorted(train.dropped.items()):
        report(f"sft: {count:,} conversations dropped: one {reason}")
    network = load_model(model)
    check_needs(settings, network, train, output)
    trainer = build_trainer(settings, network, words, train, held_out, checkpoints)
    checkpoint = find_checkpoint(checkpoints)
    report(
        f"sft: {len(train.input_ids):,} conversations, {len(held_out.input_ids):,} held out"
        + (f", from step {checkpoint.name.rpartition('-')[2]}" if checkpoint else "")
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    if not all(np.isfinite(loss) for loss in losses):
        raise TrainingError("the held-out loss is not finite: lower the learning rate")
    report(f"sft: held-out loss {losses[-1]:.4f}, best {min(losses):.4f}")
    trained = trainer.model.merge_and_unload() if settings.lora_rank is not None else trainer.model
    write_metrics(trainer.state.log_history, output / METRICS)
    copy_tokenizer(model, output)
    save_model(trained, output)
    return {
        "eval_loss": min(losses),
        "conversations": float(len(train.input_ids)),
        "steps": float(trainer.state.global_step),
        "trained_tokens": float(_count_trained_tokens(settings, train, trainer.state.global_step)),
        "seconds": seconds,
    }


def _count_trained_tokens(settings: SftSettings, train: Encoded, steps: int) -> int:
    """Tokens of all conversations that were trained on, each pass counted, as if all were of the mean length."""
    tokens = sum(len(ids) for ids in train.input_ids)
    return round(tokens / len(train.input_ids) * min(settings.batch_size, len(train.input_ids)) * steps)


def split_conversations(
    settings: SftSettings, data: Path, tokenizer: PreTrainedTokenizerFast
) -> tuple[Encoded, Encoded]:
    """Conversations to train on, and held out: the dataset's validation rows, else a share by the seed."""
    if tokenizer.chat_template is None:
        raise TrainingError("the model's tokenizer has no chat template")
    rows = list(read_rows(data, "train", ("messages",)))
    held_out = list(read_rows(data, "validation", ("messages",)))
    if rows and not held_out:
        count = max(1, round(len(rows) * settings.eval_share))
        chosen = set(np.random.default_rng(settings.seed).permutation(len(rows))[:count].tolist())
        held_out = [row for i, row in enumerate(rows) if i in chosen]
        rows = [row for i, row in enumerate(rows) if i not in chosen]
    encoded = [encode_conversations(part, tokenizer, settings.max_length) for part in (rows, held_out)]
    if not all(part.input_ids for part in encoded):
        raise TrainingError(
            "the dataset has too few conversations with answers to train on some and hold out others"
        )
    return encoded[0], encoded[1]


def load_model(folder: Path) -> PreTrainedModel:
    """The folder's model in fp32: bf16 is slower on most processors."""
    try:
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"the folder {folder.name} holds no model that can be loaded") from error


def check_needs(settings: SftSettings, model: PreTrainedModel, train: Encoded, output: Path) -> None:
    """Stops where memory or disk do not suffice."""
    config = model.config
    tokens = sum(len(ids) for ids in train.input_ids)
    if settings.max_steps is not None:
        tokens = tokens * settings.max_steps * settings.batch_size // len(train.input_ids)
    needs = estimate_sft(
        settings, model.num_parameters(), config.num_hidden_layers, config.hidden_size, config.vocab_size, tokens
    )
    check_resources(needs, output, "fine-tuning")


def build_trainer(
    settings: SftSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    train: Encoded,
    held_out: Encoded,
    folder: Path,
) -> SFTTrainer:
    """TRL's trainer over token ids and labels made here: it neither renders templates nor packs."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    on_cpu = not torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(folder),
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps if settings.max_steps is not None else -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        max_length=settings.max_length,
        # Packed rows would attend to one another without attention of variable length, which a CPU has not.
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        activation_checkpointing=False,
        bf16=False,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps",
        eval_steps=settings.evaluation_interval,
        save_strategy="steps",
        save_steps=settings.evaluation_interval,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=list(settings.report_to) or "none",
    )
    adapters = None
    if settings.lora_rank is not None:
        rank = settings.lora_rank
        adapters = LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    transformers.set_seed(settings.seed)  # before the adapters draw their first weights
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"input_ids": train.input_ids, "labels": train.labels}),
        eval_dataset=datasets.Dataset.from_dict({"input_ids": held_out.input_ids, "labels": held_out.labels}),
        processing_class=tokenizer,
        peft_config=adapters,
        callbacks=[WatchLoss()],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    return trainer


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


def write_metrics(history: list[dict[str, float]], path: Path) -> None:
    """Writes the trainer's log, a line a step, without times and speeds."""
    with path.open("w", encoding="utf-8") as file:
        for entry in history:
            figures = {name: entry[name] for name in LOGGED if name in entry}
            if figures:
                file.write(json.dumps({"step": entry["step"], **figures}) + "\n")
