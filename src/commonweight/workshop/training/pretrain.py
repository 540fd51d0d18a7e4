"""Pretraining: one loop, resumable to the byte, measured in bits per byte of held-out text."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from commonweight.workshop.training.estimate import MICRO_TOKENS, check_resources, estimate
from commonweight.workshop.training.model import build_model, save_model
from commonweight.workshop.training.optimizer import build_optimizers, set_learning_rate
from commonweight.workshop.training.packing import PackedRows, count_token_bytes, digest_rows
from commonweight.workshop.training.settings import DOCUMENT_END, TURN_END, PretrainSettings, TrainingError
from commonweight.workshop.training.tokenizer import copy_tokenizer, load_tokenizer

METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.pt"


def run_pretrain(
    settings: PretrainSettings,
    data: Path,
    tokenizer: Path,
    output: Path,
    checkpoints: Path,
    report: Callable[[str], None],
) -> dict[str, float | str]:
    """Trains a decoder from random weights and writes the model folder; goes on from a killed run's checkpoint.

    Args:
        checkpoints: where the last checkpoint stays, for the caller to remove once the output is safe.
    """
    words = load_tokenizer(tokenizer)
    needs = estimate(settings, len(words))
    check_resources(needs, output, "pretraining")
    train = PackedRows(data, "train", words, settings.seed)
    held_out = PackedRows(data, "validation", words, settings.seed)
    document_end, turn_end = words.convert_tokens_to_ids([DOCUMENT_END, TURN_END])
    model = build_model(settings, len(words), document_end, turn_end)
    optimizers = build_optimizers(model, settings)
    sizes = torch.from_numpy(count_token_bytes(words, len(words)))
    identity = digest_inputs(settings, tokenizer, train)
    checkpoints.mkdir(exist_ok=True)
    first = load_checkpoint(checkpoints, output / METRICS, identity, model, optimizers)
    report(
        f"pretrain: {needs.parameters:,} parameters, {needs.tokens:,} tokens in {settings.total_steps:,} steps"
        f" ({needs.tokens / len(train):.1f} passes over {len(train):,} tokens)"
        + (f", from step {first:,}" if first else "")
    )
    started, muon_seconds, bits = time.perf_counter(), 0.0, math.nan
    model.train()
    with (output / METRICS).open("a", encoding="utf-8") as log:
        for step in range(first, settings.total_steps):
            scale = set_learning_rate(optimizers, settings, step)
            tokens, row_ids = train.read(step * settings.batch_tokens, settings.batch_tokens + 1)
            loss = compute_gradients(model, torch.from_numpy(tokens.astype("int64")), settings)
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise make_divergence_error(step + 1)
            before = time.perf_counter()
            optimizers[0].step()
            muon_seconds += time.perf_counter() - before
            optimizers[1].step()
            model.zero_grad(set_to_none=True)
            done = step + 1
            line: dict[str, float | str] = {
                "step": done,
                "loss": round(loss, 6),
                "lr": settings.muon_lr * scale,
                "tokens": done * settings.batch_tokens,
                "rows": digest_rows(row_ids),
            }
            if done % settings.evaluation_interval == 0 or done == settings.total_steps:
                bits = measure_bits_per_byte(model, held_out, sizes, settings.context)
                line["bits_per_byte"] = round(bits, 6)
                report(f"pretrain: step {done:,}, loss {loss:.3f}, {bits:.4f} bits per byte held out")
            log.write(json.dumps(line) + "\n")
            if done % settings.checkpoint_interval == 0 or done == settings.total_steps:
                log.flush()
                if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
                    raise make_divergence_error(done)
                log_bytes = (output / METRICS).stat().st_size
                save_checkpoint(checkpoints, log_bytes, identity, done, model, optimizers)
    seconds = time.perf_counter() - started
    if math.isnan(bits):  # killed after the last step, before the model was written
        bits = measure_bits_per_byte(model, held_out, sizes, settings.context)
    copy_tokenizer(tokenizer, output)
    save_model(model, output)
    trained = (settings.total_steps - first) * settings.batch_tokens
    return {
        "bits_per_byte": bits,
        "parameters": float(needs.parameters),
        "seconds": seconds,
        "tokens_per_second": trained / seconds,
        "muon_share": muon_seconds / seconds,
    }


def make_divergence_error(step: int) -> TrainingError:
    return TrainingError(
        f"the loss at step {step} is not finite: lower muon_lr or adamw_lr (the last checkpoint before it is kept)"
    )


def compute_gradients(model: PreTrainedModel, stream: torch.Tensor, settings: PretrainSettings) -> float:
    """Adds a batch's gradients, a part of it at a time; returns its mean loss."""
    inputs, targets = stream[:-1].view(-1, settings.context), stream[1:].view(-1, settings.context)
    at_once = max(1, MICRO_TOKENS // settings.context)
    total = 0.0
    for x, y in zip(inputs.split(at_once), targets.split(at_once), strict=True):
        logits = model(input_ids=x, use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / targets.numel()
        loss.backward()
        total += float(loss.detach())
    return total


@torch.no_grad()
def measure_bits_per_byte(model: PreTrainedModel, rows: PackedRows, sizes: torch.Tensor, context: int) -> float:
    """Bits that the model needs for each byte of the rows: their order is fixed, each token is predicted once."""
    model.eval()
    stream = torch.from_numpy(rows.tokens.astype("int64"))
    inputs, targets = stream[:-1], stream[1:]
    nats = torch.zeros((), dtype=torch.float64)
    stride = context * max(1, MICRO_TOKENS // context)
    for start in range(0, len(inputs), stride):
        part = slice(start, start + stride)
        whole = len(inputs[part]) // context * context
        for x, y in (
            (inputs[part][:whole].view(-1, context), targets[part][:whole]),
            (inputs[part][whole:].view(1, -1), targets[part][whole:]),
        ):
            if x.numel():
                logits = model(input_ids=x, use_cache=False).logits.flatten(0, 1)
                losses = functional.cross_entropy(logits, y, reduction="none")
                nats += (losses * (sizes[y] > 0)).double().sum()
    model.train()
    return float(nats) / math.log(2) / int(sizes[targets].sum())


def digest_inputs(settings: PretrainSettings, tokenizer: Path, train: PackedRows) -> str:
    """Identity of a run: a checkpoint of another one is not gone on from."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update((tokenizer / "tokenizer.json").read_bytes())
    digest.update(train.tokens.tobytes())
    return digest.hexdigest()


def save_checkpoint(
    folder: Path,
    log_bytes: int,
    identity: str,
    step: int,
    model: PreTrainedModel,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    """Writes weights, optimizers, random state and position aside, and renames them into place."""
    state = {
        "identity": identity,
        "step": step,
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random": torch.get_rng_state(),
        "log_bytes": log_bytes,
    }
    aside = folder / (CHECKPOINT + ".tmp")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(folder / CHECKPOINT)


def load_checkpoint(
    folder: Path, log: Path, identity: str, model: PreTrainedModel, optimizers: list[torch.optim.Optimizer]
) -> int:
    """Restores what a killed run left, its log cut to the checkpoint; returns the steps done, 0 for a new run."""
    path = folder / CHECKPOINT
    state = torch.load(path, weights_only=True) if path.exists() else None
    if state is None or state["identity"] != identity:
        log.write_bytes(b"")
        return 0
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    torch.set_rng_state(state["random"])
    os.truncate(log, state["log_bytes"])
    return int(state["step"])
