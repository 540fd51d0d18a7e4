"""Direct preference optimisation through TRL, stopped when ordinary answers become less likely."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from commonweight.lineage.digests import digest_json
from commonweight.workshop.training.dataset import read_rows, split_rows
from commonweight.workshop.training.estimate import check_resources, estimate_tuning
from commonweight.workshop.training.loss_mask import IGNORED, Encoded, encode_conversations
from commonweight.workshop.training.pairs import EncodedPairs, encode_pairs
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tokenizer import load_tokenizer
from commonweight.workshop.training.trainer import (
    LOGGED,
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
from commonweight.workshop.training.tuning_settings import PreferenceSettings

ORDINARY = "eval_ordinary_logp"
"""Mean log-probability of a token of ordinary answers, in nats."""
KEPT_STEP = "eval_kept_step"
_FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen")
PREFERENCE_LOGGED = (*LOGGED, *(f"{part}{name}" for part in ("", "eval_") for name in _FIGURES), ORDINARY)


def run_preference(
    settings: PreferenceSettings,
    data: Path,
    ordinary: Path,
    model: Path,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
    base_id: str | None = None,
) -> dict[str, float | str]:
    """Trains a model folder on preferences and writes another; goes on from a killed run's checkpoint.

    Args:
        ordinary: rows of messages whose answers must stay likely.
        checkpoints: where the last checkpoints stay, for the caller to remove once the output is safe.
        base_id: the model's name at its publisher.
    """
    prepare_libraries(settings)
    arguments = make_preference_arguments(settings, checkpoints)
    words = load_tokenizer(model)
    pairs, held_out = split_pairs(settings, data, words)
    for reason, count in sorted(pairs.dropped.items()):
        report(f"preference: {count:,} pairs dropped: one {reason}")
    answers = draw_ordinary(settings, ordinary, words)
    network = load_model(model, settings)
    check_needs(settings, network, pairs, output)
    trainer = build_preference_trainer(settings, arguments, network, words, pairs, held_out, answers, checkpoints)
    before = trainer.measure_ordinary()
    trainer.ordinary_before = before
    count = len(pairs.prompt_ids)
    seconds = train(
        trainer,
        checkpoints,
        lambda start: report(f"preference: {count:,} pairs, {len(held_out.prompt_ids):,} held out{start}"),
    )
    history = [{"step": 0, ORDINARY: before}, *trainer.state.log_history]
    write_metrics(history, output / METRICS, PREFERENCE_LOGGED)
    kept = int(trainer.state.best_global_step or 0)
    if not kept:
        raise TrainingError(
            f"ordinary answers became less likely by more than {settings.ordinary_tolerance} nats a token before"
            " the first checkpoint: lower learning_rate or evaluation_interval"
        )
    figures = [entry for entry in history if entry["step"] == kept]
    loss, after = (next(one[name] for one in figures if name in one) for name in ("eval_loss", ORDINARY))
    report(
        f"preference: step {kept} of {trainer.state.max_steps} is kept, held-out loss {loss:.4f}; log-probability"
        f" of a token of ordinary answers {before:.4f} before, {after:.4f} after"
    )
    write_tuned_model(trainer, settings, model, base_id, output)
    steps = trainer.state.global_step
    return {
        "eval_loss": loss,
        "ordinary_logp_before": before,
        "ordinary_logp_after": after,
        "pairs": float(count),
        "steps": float(steps),
        "kept_step": float(kept),
        # Each pass counted, as if all pairs were of the mean length.
        "trained_tokens": float(round(pairs.count_tokens() / count * min(settings.batch_size, count) * steps)),
        "precision": choose_precision(),
        "seconds": seconds,
    }


def split_pairs(
    settings: PreferenceSettings, data: Path, tokenizer: PreTrainedTokenizerFast
) -> tuple[EncodedPairs, EncodedPairs]:
    """Pairs to train on, and held out."""
    if tokenizer.chat_template is None:
        raise TrainingError("the model's tokenizer has no chat template")
    parts = split_rows(data, "preference", settings.eval_share, settings.seed)
    encoded = [encode_pairs(part, tokenizer, settings.max_length) for part in parts]
    if not all(part.prompt_ids for part in encoded):
        raise TrainingError("the dataset has too few pairs within max_length to train on some and hold out others")
    return encoded[0], encoded[1]


def draw_ordinary(settings: PreferenceSettings, data: Path, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """The conversations whose answers must stay likely."""
    rows = [row for split in ("train", "validation") for row in read_rows(data, split, ("messages",))]
    order = np.random.default_rng(settings.seed).permutation(len(rows))[: settings.ordinary_rows]
    encoded = encode_conversations([rows[i] for i in sorted(order.tolist())], tokenizer, settings.max_length)
    if not encoded.input_ids:
        raise TrainingError("the rows of ordinary hold no conversation with an answer within max_length")
    return encoded


def check_needs(settings: PreferenceSettings, model: PreTrainedModel, pairs: EncodedPairs, output: Path) -> None:
    """Stops where memory or disk do not suffice."""
    count = len(pairs.prompt_ids)
    needs = estimate_tuning(
        settings, model.config, model.num_parameters(), count, pairs.count_tokens(), sequences=2
    )
    check_resources(needs, output, "training on preferences", get_free_memory())


def make_preference_arguments(settings: PreferenceSettings, folder: Path) -> DPOConfig:
    """TRL's configuration. Pairs are within ``max_length``, so that TRL cuts none."""
    return make_arguments(
        DPOConfig,
        settings,
        folder,
        loss_type=list(settings.losses),
        loss_weights=list(settings.losses.values()),
        beta=settings.beta,
        precompute_ref_log_probs=True,
        metric_for_best_model=KEPT_STEP,
        greater_is_better=True,
    )


def build_preference_trainer(
    settings: PreferenceSettings,
    arguments: DPOConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pairs: EncodedPairs,
    held_out: EncodedPairs,
    ordinary: Encoded,
    folder: Path,
) -> "PreferenceTrainer":
    """The trainer. The reference's log-probabilities are computed here, and stay in the folder for another try."""
    trainer: PreferenceTrainer = build_trainer(
        PreferenceTrainer,
        settings,
        tokenizer,
        model=model,
        args=arguments,
        train_dataset=store_pairs(pairs, folder),
        eval_dataset=store_pairs(held_out, folder),
        ordinary=ordinary,
        tolerance=settings.ordinary_tolerance,
    )
    return trainer


def store_pairs(pairs: EncodedPairs, folder: Path) -> datasets.Dataset:
    """Pairs as a dataset on disk: TRL puts the reference's log-probabilities beside it, by its fingerprint."""
    columns = {name: getattr(pairs, name) for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    path = folder / f"pairs-{digest_json(columns)[:16]}"
    if not path.exists():
        draft = folder / f"{path.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        datasets.Dataset.from_dict(columns).save_to_disk(draft)
        draft.rename(path)
    return datasets.Dataset.load_from_disk(path)


class PreferenceTrainer(DPOTrainer):
    """TRL's trainer over pairs that are encoded, with a measurement of ordinary answers at every evaluation."""

    def __init__(self, *, ordinary: Encoded, tolerance: float, **others: Any) -> None:  # noqa: ANN401
        super().__init__(**others)
        self.ordinary = ordinary
        self.tolerance = tolerance
        self.ordinary_before = math.nan
        """Its value before the first step."""

    def _prepare_dataset(self, dataset: datasets.Dataset, *others: object) -> datasets.Dataset:
        """Leaves it as it is: TRL would render templates and encode."""
        del others
        return dataset

    def evaluate(self, *arguments: Any, **others: Any) -> dict[str, float]:  # noqa: ANN401
        """Measures held-out pairs and ordinary answers, and ends training where those have become less likely.

        The step is not saved then: a killed run goes on from the last step within the tolerance, and ends as here.
        """
        metrics: dict[str, float] = super().evaluate(*arguments, **others)
        value = self.measure_ordinary()
        self.log({ORDINARY: value})
        is_within = self.ordinary_before - value <= self.tolerance
        if not is_within:
            self.control.should_training_stop = True
            self.control.should_save = False
        return metrics | {ORDINARY: value, KEPT_STEP: float(self.state.global_step) if is_within else -math.inf}

    def measure_ordinary(self) -> float:
        """Mean log-probability of a token of ordinary answers."""
        was_training = self.model.training
        self.model.eval()
        total, tokens = 0.0, 0
        for ids, labels in zip(self.ordinary.input_ids, self.ordinary.labels, strict=True):
            inputs = torch.tensor([ids], device=self.args.device)
            targets = torch.tensor(labels[1:], device=self.args.device)
            with torch.no_grad(), self.accelerator.autocast():
                logits = self.model(input_ids=inputs, use_cache=False).logits[0, :-1]
            learned = targets != IGNORED
            loss = torch.nn.functional.cross_entropy(logits[learned].float(), targets[learned], reduction="sum")
            total -= float(loss)
            tokens += int(learned.sum())
        self.model.train(was_training)
        return total / tokens
