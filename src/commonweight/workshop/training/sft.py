"""Supervised fine-tuning through TRL: loss on answers only, held-out loss, the best checkpoint kept."""

from collections.abc import Callable
from pathlib import Path

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from commonweight.workshop.training.dataset import split_rows
from commonweight.workshop.training.estimate import check_resources, estimate_tuning
from commonweight.workshop.training.loss_mask import Encoded, encode_conversations
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tokenizer import load_tokenizer
from commonweight.workshop.training.trainer import (
    METRICS,
    build_trainer,
    choose_precision,
    get_free_memory,
    load_model,
    make_arguments,
    prepare_libraries,
    train,
    write_metrics,
)
from commonweight.workshop.training.tuned_model import write_tuned_model
from commonweight.workshop.training.tuning_settings import SftSettings


def run_sft(
    settings: SftSettings,
    data: Path,
    model: Path,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
    base_id: str | None = None,
) -> dict[str, float | str]:
    """Fine-tunes a model folder on conversations and writes another; goes on from a killed run's checkpoint.

    Args:
        checkpoints: where the last checkpoints stay, for the caller to remove once the output is safe.
        base_id: the model's name at its publisher.
    """
    prepare_libraries(settings)
    arguments = make_sft_arguments(settings, checkpoints)
    words = load_tokenizer(model)
    conversations, held_out = split_conversations(settings, data, words)
    for reason, count in sorted(conversations.dropped.items()):
        report(f"sft: {count:,} conversations dropped: one {reason}")
    network = load_model(model, settings)
    check_needs(settings, network, conversations, output)
    trainer = build_sft_trainer(settings, arguments, network, words, conversations, held_out)
    count = len(conversations.input_ids)
    seconds = train(
        trainer,
        checkpoints,
        lambda start: report(f"sft: {count:,} conversations, {len(held_out.input_ids):,} held out{start}"),
    )
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    report(f"sft: held-out loss {losses[-1]:.4f}, best {min(losses):.4f}")
    write_metrics(trainer.state.log_history, output / METRICS)
    write_tuned_model(trainer, settings, model, base_id, output)
    tokens = sum(len(ids) for ids in conversations.input_ids) / count
    return {
        "eval_loss": min(losses),
        "conversations": float(count),
        "steps": float(trainer.state.global_step),
        # Each pass counted, as if all conversations were of the mean length.
        "trained_tokens": float(round(tokens * min(settings.batch_size, count) * trainer.state.global_step)),
        "precision": choose_precision(),
        "seconds": seconds,
    }


def split_conversations(
    settings: SftSettings, data: Path, tokenizer: PreTrainedTokenizerFast
) -> tuple[Encoded, Encoded]:
    """Conversations to train on, and held out."""
    if tokenizer.chat_template is None:
        raise TrainingError("the model's tokenizer has no chat template")
    parts = split_rows(data, "messages", settings.eval_share, settings.seed)
    encoded = [encode_conversations(part, tokenizer, settings.max_length) for part in parts]
    if not all(part.input_ids for part in encoded):
        raise TrainingError(
            "the dataset has too few conversations with answers to train on some and hold out others"
        )
    return encoded[0], encoded[1]


def check_needs(settings: SftSettings, model: PreTrainedModel, conversations: Encoded, output: Path) -> None:
    """Stops where memory or disk do not suffice."""
    tokens = sum(len(ids) for ids in conversations.input_ids)
    needs = estimate_tuning(settings, model.config, model.num_parameters(), len(conversations.input_ids), tokens)
    check_resources(needs, output, "fine-tuning", get_free_memory())


def make_sft_arguments(settings: SftSettings, folder: Path) -> SFTConfig:
    """TRL's configuration."""
    return make_arguments(
        SFTConfig,
        settings,
        folder,
        # Packed rows would attend to one another without attention of variable length, which a CPU has not.
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        metric_for_best_model="eval_loss",
        greater_is_better=False,
    )


def build_sft_trainer(
    settings: SftSettings,
    arguments: SFTConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Encoded,
    held_out: Encoded,
) -> SFTTrainer:
    """TRL's trainer over token ids and labels made here: it neither renders templates nor packs."""
    train_dataset, eval_dataset = (
        datasets.Dataset.from_dict({"input_ids": part.input_ids, "labels": part.labels})
        for part in (conversations, held_out)
    )
    return build_trainer(
        SFTTrainer,
        settings,
        tokenizer,
        model=model,
        args=arguments,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
    )
