"""One training run of the comparison: ours, transformers' ``Trainer``, or one of the two for speed alone."""

import tempfile
import time
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import torch
import transformers
from pydantic import BaseModel, ConfigDict

from commonweight.workshop.training import pretrain
from commonweight.workshop.training.estimate import MICRO_TOKENS
from commonweight.workshop.training.model import build_model
from commonweight.workshop.training.optimizer import build_optimizers
from commonweight.workshop.training.packing import PackedRows, count_token_bytes
from commonweight.workshop.training.settings import PretrainSettings
from commonweight.workshop.training.tokenizer import load_tokenizer

Arm = Literal["ours", "trainer", "ours-adamw-speed", "trainer-adamw-speed"]
Curve = list[tuple[int, float]]


class Run(BaseModel):
    """What identifies a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: Arm
    lr: float
    """Of Muon's matrices in our arm, of all weights in the Trainer's."""
    seed: int
    tokens: int


class Outcome(BaseModel):
    """What a run gave."""

    run: Run
    parameters: int
    curve: Curve
    """Tokens seen and bits per byte of held-out text."""
    seconds: float
    """Wall time of training, without measurements."""
    cpu_seconds: float
    muon_share: float | None = None


def shape_settings(run: Run, context: int, batch_tokens: int, points: int) -> PretrainSettings:
    """A million parameters with a vocabulary of 1,024; the schedule is the same in all arms."""
    steps = max(1, run.tokens // batch_tokens)
    shape = PretrainSettings(
        layers=4, dim=128, heads=4, kv_heads=2, ffn_multiple=3.5, context=context, batch_tokens=batch_tokens,
        steps=steps, seed=run.seed, evaluation_interval=max(1, steps // points), checkpoint_interval=10**9,
    )  # fmt: skip
    if run.arm == "ours":
        return shape.model_copy(update={"muon_lr": run.lr, "adamw_lr": run.lr * shape.adamw_lr / shape.muon_lr})
    return shape.model_copy(update={"muon_lr": run.lr, "adamw_lr": run.lr})


def execute(run: Run, settings: PretrainSettings, data: Path, words: Path) -> Outcome:
    """Trains one model."""
    with tempfile.TemporaryDirectory() as folder:
        if run.arm.startswith("ours"):
            return train_ours(run, settings, data, words, Path(folder))
        return train_with_trainer(run, settings, data, words, Path(folder))


def train_ours(run: Run, settings: PretrainSettings, data: Path, words: Path, folder: Path) -> Outcome:
    """Our loop, as recipes run it; for its speed with AdamW in Muon's place."""
    curve: Curve = []
    clock = Clock()
    measure = pretrain.measure_bits_per_byte

    def measure_apart(*arguments: object) -> float:
        with clock:
            bits = float(measure(*arguments))
        curve.append((0, bits))
        return bits

    optimizers = build_adamw if run.arm == "ours-adamw-speed" else build_optimizers
    with (
        mock.patch.object(pretrain, "measure_bits_per_byte", measure_apart),
        mock.patch.object(pretrain, "build_optimizers", optimizers),
    ):
        before = time.process_time()
        observed = pretrain.run_pretrain(settings, data, words, folder, folder, lambda line: None)
        cpu = time.process_time() - before - clock.cpu
    steps = [*range(settings.evaluation_interval, settings.total_steps + 1, settings.evaluation_interval)]
    if settings.total_steps not in steps:
        steps.append(settings.total_steps)
    return Outcome(
        run=run,
        parameters=int(observed["parameters"]),
        curve=[(s * settings.batch_tokens, bits) for s, (_, bits) in zip(steps, curve, strict=True)],
        seconds=float(observed["seconds"]) - clock.wall,
        cpu_seconds=cpu,
        muon_share=float(observed["muon_share"])
        * float(observed["seconds"])
        / (float(observed["seconds"]) - clock.wall),
    )


def build_adamw(model: torch.nn.Module, settings: PretrainSettings) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, in two groups as our loop has them."""
    parameters = list(model.parameters())
    return [
        torch.optim.AdamW(part, lr=settings.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        for part in (parameters[1:], parameters[:1])
    ]


class Clock:
    """Time that measurements take, to be left out."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter() - self._started[0]
        self.cpu += time.process_time() - self._started[1]


class Packed(torch.utils.data.Dataset):
    """The same sequences in the same order, as Trainer takes them."""

    def __init__(self, rows: PackedRows, settings: PretrainSettings) -> None:
        count = settings.total_steps * settings.batch_tokens
        tokens = rows.read(0, count)[0].astype(np.int64)
        self.sequences = torch.from_numpy(tokens).view(-1, settings.context)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.sequences[index], "labels": self.sequences[index]}


class InOrderTrainer(transformers.Trainer):
    """Takes the sequences as they come: their order is already shuffled."""

    def _get_train_sampler(self, *arguments: object) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Measure(transformers.TrainerCallback):
    """Measures bits per byte at our loop's steps, off the clock."""

    def __init__(self, settings: PretrainSettings, held_out: PackedRows, sizes: torch.Tensor) -> None:
        self.settings, self.held_out, self.sizes = settings, held_out, sizes
        self.curve: Curve = []
        self.clock = Clock()

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        model: transformers.PreTrainedModel,
        **others: object,
    ) -> None:
        step = state.global_step
        if step % self.settings.evaluation_interval == 0 or step == self.settings.total_steps:
            with self.clock:
                bits = pretrain.measure_bits_per_byte(model, self.held_out, self.sizes, self.settings.context)
            self.curve.append((step * self.settings.batch_tokens, bits))


def train_with_trainer(run: Run, settings: PretrainSettings, data: Path, words: Path, folder: Path) -> Outcome:
    """transformers' Trainer with AdamW on a Llama of the same shape; for speed alone on our model."""
    tokenizer = load_tokenizer(words)
    ids = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    if run.arm == "trainer-adamw-speed":
        model = build_model(settings, len(tokenizer), *ids)
    else:
        torch.manual_seed(settings.seed)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=settings.dim, intermediate_size=settings.ffn_dim,
                num_hidden_layers=settings.layers, num_attention_heads=settings.heads,
                num_key_value_heads=settings.kv_heads, max_position_embeddings=settings.context,
                tie_word_embeddings=True, bos_token_id=None, eos_token_id=ids[1], pad_token_id=ids[0],
            )
        )  # fmt: skip
    sequences = settings.batch_tokens // settings.context
    at_once = min(sequences, max(1, MICRO_TOKENS // settings.context))
    steps = settings.total_steps
    decay = round(settings.decay_share * steps)
    warmup = round(settings.warmup_share * steps)
    sizes = torch.from_numpy(count_token_bytes(tokenizer, len(tokenizer)))
    measure = Measure(settings, PackedRows(data, "validation", tokenizer, settings.seed), sizes)
    trainer = InOrderTrainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=at_once,
            gradient_accumulation_steps=sequences // at_once, learning_rate=run.lr, weight_decay=0.01,
            adam_beta2=0.95, max_grad_norm=settings.gradient_clip, warmup_steps=warmup,
            lr_scheduler_type="warmup_stable_decay",
            lr_scheduler_kwargs={"num_decay_steps": decay, "decay_type": "linear", "min_lr_ratio": 0.0},
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
            logging_steps=max(1, steps // 10), dataloader_pin_memory=False, seed=settings.seed, bf16=False,
        ),
        train_dataset=Packed(PackedRows(data, "train", tokenizer, settings.seed), settings),
        callbacks=[measure],
    )  # fmt: skip
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    before, started = time.process_time(), time.perf_counter()
    trainer.train()
    return Outcome(
        run=run,
        parameters=model.num_parameters(),
        curve=measure.curve,
        seconds=time.perf_counter() - started - measure.clock.wall,
        cpu_seconds=time.process_time() - before - measure.clock.cpu,
    )
