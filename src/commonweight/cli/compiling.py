"""``commonweight charter compile``."""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.charter import Charter
from commonweight.cli.data import Data
from commonweight.cli.guarding import model_named, read_bundle, the_encoder
from commonweight.cli.loading import Setup, open_assistant
from commonweight.cli.measuring import answered, drawn, read_again
from commonweight.cli.terminal import UserError
from commonweight.engines.llama.model.hidden_states import HiddenStateReader, count_shared_tokens
from commonweight.guard import Bundle, Guard
from commonweight.guard.bundle import ModelIdentity
from commonweight.guard.compiling import CompileError, assemble_bundle, raise_thresholds, recompile
from commonweight.guard.gathering import build_training_data
from commonweight.guard.sources import SourceError, find_files, read_source
from commonweight.guard.training import train_heads
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.turn.signature import load_key

DEPTHS = (0.27, 0.5, 0.7, 0.9)
"""Of the layers that are read: the middle ones tell intent, the late ones wrappers."""
MOST_TOKENS = 64
"""Of a text that is trained on: the first and the last half. Serving reads long texts in windows of as many."""
ANSWER_TOKENS = 48
WINDOW = 2048
ORDINARY_ANSWERS = 400
"""Of the model itself, to harmless prompts, which the thresholds on answers have to let pass."""


def compiled(
    charter: Charter,
    base: Path | None,
    texts: Sequence[Path],
    model: str | None,
    most: int,
    data: Data,
    console: Console,
) -> Bundle:
    """The bundle of a charter.

    Raises:
        UserError: it cannot be made of what is there.
    """
    encoder = the_encoder(console.print)
    try:
        if not texts:
            return recompile(charter, read_bundle(base, load_key(data.folder)), encoder, {})
        sources = [read_source(path) for path in find_files(list(texts))]
        console.print(f"{len(sources)} sources of labelled texts")
        with contextlib.closing(Gguf(resolve(model))) as gguf, Reading(gguf, console) as reading:
            gathering = build_training_data(charter, sources, encoder, reading.states, most)
            if gathering.examples.is_harmful.all() or not gathering.examples.is_harmful.any():
                raise UserError("heads are trained on both: texts that violate principles, and harmless ones")
            console.print(f"training on {len(gathering.examples.texts)} texts")
            harmless = ~gathering.examples.is_harmful
            vectors = gathering.examples.vectors
            bundle = assemble_bundle(
                charter,
                train_heads(charter, gathering.examples, gathering.answers, gathering.orders),
                model=reading.model,
                layers=reading.layers,
                encoder=encoder,
                calibration_vectors=None if vectors is None else vectors[harmless],
                sources=gathering.lineage,
            )
        prompts = drawn([one for one in sources if one.role in ("harmless", "mixed")], ORDINARY_ANSWERS)
        if not (prompts and bundle.manifest.output):
            return bundle
        return raise_thresholds(bundle, asyncio.run(_own_answers(charter, bundle, model, prompts, data, console)))
    except (CompileError, SourceError) as error:
        raise UserError(str(error)) from error
    except ImportError as error:
        raise UserError(f"training needs scikit-learn: pip install 'commonweight[compile]' ({error})") from error


async def _own_answers(
    charter: Charter, bundle: Bundle, model: str | None, prompts: Sequence[str], data: Data, console: Console
) -> dict[str, npt.NDArray[np.float64]]:
    """How high the model's own answers come, by what is looked at; those too short for that are left out."""
    setup = Setup(model, 4096, cache_ram=0, cache_disk=0)
    async with open_assistant(setup, console, data=data) as assistant:
        assistant.guard = Guard(charter, bundle, None, mode="shadow")
        answers = await answered(assistant, prompts, console, setup.parallel)
    peaks = {"states": [one.peak for one in answers]} if "states" in bundle.manifest.output else {}
    if "grams" in bundle.manifest.output:
        peaks["grams"] = await read_again(Guard(charter, bundle, None, reads_states=False), answers)
    return {part: np.array([peak for peak in found if np.isfinite(peak)]) for part, found in peaks.items()}


def table(bundle: Bundle) -> Table:
    """How often harmless texts reach the thresholds."""
    shown = Table("", "head", "harmless texts", "refused", "95 % interval", box=box.SIMPLE_HEAD, pad_edge=False)
    manifest = bundle.manifest
    for name, one in manifest.calibration.items():
        kind = "words" if name in manifest.prose else "data" if name in manifest.principles else "ensemble"
        shown.add_row(
            name,
            kind,
            str(one.texts),
            f"{one.refused / max(1, one.texts):.2%}",
            f"{one.lower:.2%} to {one.upper:.2%}",
        )
    return shown


class Reading:
    """Reads the states of a model, if it shows them, of prompts as they are served."""

    def __init__(self, gguf: Gguf, console: Console) -> None:
        self._console = console
        card = ModelCard.of(gguf)
        self._tokenizer = Tokenizer(gguf)
        self._renderer = Renderer(self._tokenizer, card.chat_template)
        self._reader = HiddenStateReader(card.path, WINDOW, threads=os.cpu_count() or 1)
        self.model: ModelIdentity = model_named(gguf)
        self.layers = sorted({round(depth * self._reader.layers) for depth in DEPTHS})

    def __enter__(self) -> "Reading":
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self._reader.close()
        return False

    def states(self, pairs: Sequence[tuple[str, str | None]]) -> npt.NDArray[np.float32]:
        """As :data:`commonweight.guard.gathering.ReadStates` has it."""
        prompts, spans = [], []
        for text, answer in pairs:
            body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": _readable(text)}]}
            prompt = self._renderer.render(MessageRequest.model_validate(body))
            token_ids, (start, end) = prompt.token_ids, prompt.user_span
            if end - start > MOST_TOKENS:
                half = MOST_TOKENS // 2
                token_ids = token_ids[: start + half] + token_ids[end - half :]
                end = start + 2 * half
            if answer is not None:
                start = len(token_ids)
                token_ids = token_ids + self._tokenizer.encode(_readable(answer))[:ANSWER_TOKENS]
                end = len(token_ids)
            prompts.append(token_ids)
            spans.append((start, max(end, start + 1)))
        begun = count_shared_tokens(prompts)
        found = np.zeros((len(pairs), 2, len(self.layers), self._reader.width), np.float32)
        reading = self._reader.read(prompts, self.layers)
        for number, states in track(
            reading, f"Reading {len(pairs)} texts", total=len(pairs), console=self._console, transient=True
        ):
            start, end = spans[number]
            found[number, 0] = states[max(0, start - begun) : end - begun].mean(0)
            found[number, 1] = states[-1]
        return found


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode() or " "
