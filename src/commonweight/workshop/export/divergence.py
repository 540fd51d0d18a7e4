"""Comparing next-token distributions: of the model, computed by transformers, and of its exports by our engine."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from pydantic import BaseModel, ConfigDict

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.header import UnreadableModelError
from commonweight.catalog.model import ModelCard
from commonweight.engines.contract import ALL_TOKENS, Engine, EngineError, Job, Sampling, Step
from commonweight.engines.llama import LlamaEngine, plan_worker
from commonweight.engines.settings import EngineSettings
from commonweight.prompting import Renderer, Tokenizer
from commonweight.workshop.export.gguf_file import Array
from commonweight.workshop.export.prompt_parity import make_request
from commonweight.workshop.export.settings import ExportError

WINDOW = 256
"""Most tokens of a text that are computed together."""

_CONTEXT, _ANSWER = 1024, 8
_ENGINE = EngineSettings(context=_CONTEXT, parallel=1, cache_ram=0, cache_disk=0, speculation=False)
_QUESTION = [{"role": "user", "content": "Hello! Who are you?"}]
_ROWS_AT_ONCE = 32


class Divergence(BaseModel):
    """How far an exported file is from the model."""

    model_config = ConfigDict(frozen=True)

    kl_mean: float
    """Kullback-Leibler divergence of the file's distributions from the model's, in nats, over positions."""
    kl_p99: float
    top1_agreement: float
    """Share of positions with the same likeliest token."""
    perplexity: float
    perplexity_ratio: float
    """To the model's."""
    greedy_tokens: int
    """Tokens that the file answers a greeting with, of the 8 that it may."""


class _Tally:
    """Figures of one exported file, collected window by window."""

    def __init__(self) -> None:
        self.kl: list[float] = []
        self.agreeing = 0
        self.logprobs: list[float] = []

    def add(self, expected: Array, rows: Array, tokens: Sequence[int]) -> None:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            p = expected[start : start + _ROWS_AT_ONCE].astype(np.float64)
            q = rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
            self.kl += (np.exp(p) * (p - q)).sum(1).tolist()
            self.agreeing += int((p.argmax(1) == q.argmax(1)).sum())
        self.logprobs += rows[np.arange(len(rows)), tokens].tolist()


def measure_divergence(
    folder: Path,
    files: Mapping[str, Path],
    windows: Sequence[Sequence[int]],
    report: Callable[[str], None],
) -> tuple[float, dict[str, Divergence]]:
    """The model's perplexity, and figures of each of its exported files.

    Args:
        windows: token ids, at least two each and at most :data:`WINDOW`.

    Raises:
        ExportError: a file does not load, or gives no distributions over the model's vocabulary.
    """
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ExportError("The model folder cannot be loaded by transformers.") from error
    try:
        return asyncio.run(_measure(model, files, windows, report))
    except (EngineError, UnreadableModelError) as error:
        reason = str(error).rstrip(".")
        for path in files.values():
            reason = reason.replace(str(path), path.name)
        raise ExportError(f"The engine cannot run an exported file: {reason}.") from error


async def _measure(
    model: Any,  # noqa: ANN401 - transformers' classes are made at run time
    files: Mapping[str, Path],
    windows: Sequence[Sequence[int]],
    report: Callable[[str], None],
) -> tuple[float, dict[str, Divergence]]:
    reference: list[float] = []
    tallies = {kind: _Tally() for kind in files}
    async with AsyncExitStack() as stack:
        engines: dict[str, LlamaEngine] = {}
        greedy: dict[str, int] = {}
        for kind, path in files.items():
            gguf = stack.enter_context(closing(Gguf(path)))
            card = ModelCard.from_gguf(gguf)
            engines[kind] = engine = LlamaEngine(
                plan_worker(path, card.trained_window, _ENGINE, lambda _line: None)
            )
            stack.push_async_callback(engine.aclose)
            await engine.start()
            greedy[kind] = await answer_greeting(engine, gguf, card.chat_template)
        for number, window in enumerate(windows, 1):
            expected = _compute_rows(model, window)
            tokens = window[1:]
            reference += expected[np.arange(len(tokens)), tokens].tolist()
            for kind, engine in engines.items():
                rows = await _score(engine, window, expected.shape)
                tallies[kind].add(expected, rows, tokens)
            report(f"parity: {number} of {len(windows)} windows of text")
    perplexity = _compute_perplexity(reference)
    return perplexity, {kind: _sum_up(tally, perplexity, greedy[kind]) for kind, tally in tallies.items()}


def _compute_rows(model: Any, window: Sequence[int]) -> Array:  # noqa: ANN401
    """Log-probabilities by the model, of every token at every position but the first."""
    with torch.inference_mode():
        logits = model(torch.tensor([window])).logits[0, :-1]
        rows: Array = torch.log_softmax(logits.float(), -1).numpy()
    return rows


async def _score(engine: Engine, window: Sequence[int], shape: tuple[int, ...]) -> Array:
    parts = [chunk.rows or b"" async for chunk in engine.score(window, top=ALL_TOKENS)]
    rows = np.frombuffer(b"".join(parts), "<f4")
    if rows.size != shape[0] * shape[1]:
        raise ExportError(f"The exported file's vocabulary is not the model's, which has {shape[1]} tokens.")
    return rows.reshape(shape)


async def answer_greeting(engine: Engine, gguf: Gguf, template: str | None) -> int:
    """Tokens that the engine answers a greeting with, taking the likeliest each time."""
    tokenizer = Tokenizer(gguf)
    prompt = Renderer(tokenizer, template).render(make_request(_QUESTION))
    room = engine.window - len(prompt.token_ids)
    if room < 1:
        raise ExportError(
            f"A greeting takes {len(prompt.token_ids)} tokens, and the model's window is {engine.window}."
        )
    stop_ids = sorted(tokenizer.end_ids)
    job = Job(prompt.token_ids, min(room, _ANSWER), stop_ids=stop_ids, sampling=Sampling(temperature=0))
    async with engine.run(job) as events:
        count = sum([isinstance(event, Step) async for event in events])
    if not count:
        raise ExportError("The exported file answers a greeting with no token.")
    return count


def _sum_up(tally: _Tally, reference: float, greedy: int) -> Divergence:
    kl = np.array(tally.kl)
    perplexity = _compute_perplexity(tally.logprobs)
    return Divergence(
        kl_mean=_round(kl.mean()),
        kl_p99=_round(np.percentile(kl, 99)),
        top1_agreement=_round(tally.agreeing / len(kl)),
        perplexity=_round(perplexity),
        perplexity_ratio=_round(perplexity / reference),
        greedy_tokens=greedy,
    )


def _compute_perplexity(logprobs: Sequence[float]) -> float:
    return float(np.exp(-np.mean(logprobs)))


def _round(value: float) -> float:
    """Four digits: those that follow depend on the machine."""
    return float(f"{value:.4g}")
