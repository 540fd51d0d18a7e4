"""Compiling a charter: from its words, an earlier bundle and labelled texts to heads and thresholds."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from commonweight.catalog.checksum import compute_sha256
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.resolve import resolve
from commonweight.charter import Charter
from commonweight.engines.settings import EngineSettings
from commonweight.guard import Bundle, Guard
from commonweight.guard.encoders.encoder import Embedder
from commonweight.guard.heads.reader import MULTILINGUAL, PROSE_ENCODER
from commonweight.guard.heads.recompile import CompileError, recompile
from commonweight.guard.heads.scorer import ANSWERED, OUTPUT
from commonweight.runtime.assistant import OnProgress, open_assistant
from commonweight.runtime.data import DataFolder
from commonweight.runtime.errors import UserError
from commonweight.runtime.guard import find_encoder, find_multilingual, read_bundle
from commonweight.runtime.settings import AssistantSettings
from commonweight.turn.record import TurnRecorder
from commonweight.workshop.heads.array_cache import ArrayCache
from commonweight.workshop.heads.assemble import assemble_bundle, raise_thresholds
from commonweight.workshop.heads.dataset import Embed, ReadStates, build_training_data
from commonweight.workshop.heads.evaluate import (
    CONTEXT_TOKENS,
    answer_prompts,
    draw_prompts,
    rescore_text,
)
from commonweight.workshop.heads.prose_checks import check_prose
from commonweight.workshop.heads.sources import LabelledSource, SourceError, find_files, read_source
from commonweight.workshop.heads.states import ANSWER_WINDOW_TOKENS, MAX_TEXT_TOKENS, PromptStateReader
from commonweight.workshop.heads.training import train_heads

log = logging.getLogger(__name__)

ORDINARY_ANSWERS = 400
"""Of the model itself, to harmless prompts, which the thresholds on answers have to let pass."""


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """Inputs of compilation."""

    base: Path | None = None
    """An earlier bundle; None: the package's."""
    texts: Sequence[Path] = ()
    """Labelled texts, files or folders. Without any, heads are made of the charter's words."""
    model: str | None = None
    """Whose states to read; None: the starter."""
    most: int = 400
    """Prompts of each source, at most."""
    cache: Path | None = None
    """Private folder that vectors, states and the scores of the model's own answers are kept in, by digests; None:
    they are computed again."""


def compile_charter(
    charter: Charter,
    settings: CompileSettings,
    data: DataFolder,
    *,
    report: Callable[[str], None] = log.info,
    on_progress: OnProgress = lambda _name, _fraction: None,
) -> Bundle:
    """Compile a charter to a bundle.

    Raises:
        UserError: it cannot be made of what is there.
    """
    encoder, multilingual = find_encoder(report), find_multilingual(report)
    encoders: dict[str, Embedder] = {
        name: one for name, one in ((PROSE_ENCODER, encoder), (MULTILINGUAL, multilingual)) if one is not None
    }
    embed = {name: _keep_vectors(name, one, settings.cache, on_progress) for name, one in encoders.items()}
    try:
        if not settings.texts:
            base = read_bundle(settings.base, data.load_key())
            checks = check_prose(charter, base, encoder) if encoder else []
            for check in checks:
                for text in check.hindering:
                    report(f'{check.principle}: left out, as without it more is caught: "{text}"')
            return recompile(charter, base, encoder, {}, {one.principle: one.hindering for one in checks})
        sources = [read_source(path) for path in find_files(list(settings.texts))]
        if not sources:
            raise UserError("there are no files of labelled texts: NAME.jsonl or NAME.jsonl.gz")
        report(f"{len(sources)} sources of labelled texts")
        with (
            contextlib.closing(Gguf(resolve(settings.model))) as gguf,
            PromptStateReader(gguf, on_progress) as reader,
        ):
            read_states = _keep_states(reader, settings)
            training = build_training_data(charter, sources, embed, read_states, settings.most)
            examples = training.examples
            if examples.is_harmful.all() or not examples.is_harmful.any():
                raise UserError("heads are trained on both: texts that violate principles, and harmless ones")
            report(f"training on {len(examples.texts)} texts")
            vectors = examples.vectors.get(PROSE_ENCODER)
            is_sampled = examples.is_plain & ~examples.is_harmful
            bundle = assemble_bundle(
                charter,
                train_heads(charter, examples, training.answers, embed),
                model=reader.model,
                layers=reader.layers,
                encoder=encoder,
                calibration_vectors=None if vectors is None else vectors[is_sampled],
                looks_harmful=None if vectors is None else examples.is_hard[is_sampled],
                sources=training.lineage,
            )
        return _calibrate_answers(charter, bundle, settings, sources, data, on_progress)
    except (CompileError, SourceError) as error:
        raise UserError(str(error)) from error
    except ImportError as error:
        raise UserError(f"training needs scikit-learn: pip install 'commonweight[compile]' ({error})") from error


def _keep_vectors(name: str, encoder: Embedder, folder: Path | None, on_progress: OnProgress) -> Embed:
    """Make a function that embeds texts, and keeps their vectors."""
    cache = ArrayCache(folder, name)

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        def compute(which: list[int]) -> npt.NDArray[np.float32]:
            on_progress(f"Embedding {len(which)} texts ({name})", 0.0)
            return encoder.embed([texts[i] for i in which])

        return cache.fetch(texts, compute)

    return embed


def _keep_states(reader: PromptStateReader, settings: CompileSettings) -> ReadStates:
    """Make a function that reads states, and keeps them."""
    if settings.cache is None:
        return reader.read_states
    digest = compute_sha256(resolve(settings.model))
    cache = ArrayCache(settings.cache, f"states {digest} {reader.layers} {MAX_TEXT_TOKENS} {ANSWER_WINDOW_TOKENS}")

    def read(pairs: Sequence[tuple[str, str | None]]) -> npt.NDArray[np.float32]:
        keys = [f"{text}\0{answer}" if answer is not None else text for text, answer in pairs]
        return cache.fetch(keys, lambda which: reader.read_states([pairs[i] for i in which]))

    return read


def _calibrate_answers(
    charter: Charter,
    bundle: Bundle,
    settings: CompileSettings,
    sources: Sequence[LabelledSource],
    data: DataFolder,
    on_progress: OnProgress,
) -> Bundle:
    """Raise the thresholds on answers above the model's own answers to ordinary prompts.

    Prompts with a labelled answer are left out: heads know those, and would score them too low.
    """
    answered = {row.text for one in sources if one.role != "unused" for row in one.rows if row.answer is not None}
    harmless = [one for one in sources if one.role in ("harmless", "mixed")]
    prompts = draw_prompts(harmless, ORDINARY_ANSWERS, without=answered)
    if not (prompts and bundle.manifest.output):
        return bundle
    kept = None
    if settings.cache is not None:
        kept = settings.cache / f"answers-{_digest_answers(bundle, settings.model, prompts)}.npz"
    if kept is not None and kept.exists():
        with np.load(kept, allow_pickle=False) as stored:
            peaks = {name: stored[name] for name in stored.files}
    else:
        peaks = asyncio.run(_find_answer_peaks(charter, bundle, settings.model, prompts, data, on_progress))
        if kept is not None:
            np.savez(kept, allow_pickle=False, **peaks)
    return raise_thresholds(bundle, peaks)


def _digest_answers(bundle: Bundle, model: str | None, prompts: Sequence[str]) -> str:
    """Digest what the scores of a model's own answers depend on: heads on answers, model and prompts."""
    heads = [bundle.tensors["grams.weights"][:, ANSWERED], bundle.tensors["grams.bias"][ANSWERED]]
    if "probe.weights" in bundle.tensors:
        heads += [bundle.tensors["probe.weights"][:, :, OUTPUT], bundle.tensors["states.bias"][OUTPUT]]
    sum_ = hashlib.sha256(compute_sha256(resolve(model)).encode())
    for part in (
        *(np.ascontiguousarray(head).tobytes() for head in heads),
        *(one.encode("utf-8", "surrogatepass") for one in prompts),
    ):
        sum_.update(hashlib.sha256(part).digest())
    return sum_.hexdigest()[:16]


async def _find_answer_peaks(
    charter: Charter,
    bundle: Bundle,
    model: str | None,
    prompts: Sequence[str],
    data: DataFolder,
    on_progress: OnProgress,
) -> dict[str, npt.NDArray[np.float64]]:
    """Find the highest logits of the model's own answers, by representation; too short answers are left out."""
    engine = EngineSettings(context=CONTEXT_TOKENS, cache_ram=0, cache_disk=0)
    settings = AssistantSettings(model=model, engine=engine)
    recorder = TurnRecorder()
    async with open_assistant(
        settings,
        data=data,
        guard=Guard(charter, bundle, None, mode="shadow"),
        listeners=[recorder],
        on_progress=on_progress,
    ) as assistant:
        answers = await answer_prompts(
            assistant, recorder, prompts, together=engine.parallel, on_progress=on_progress
        )
    peaks = {"states": [one.peak for one in answers]} if "states" in bundle.manifest.output else {}
    if "grams" in bundle.manifest.output:
        peaks["grams"] = await rescore_text(Guard(charter, bundle, None, reads_states=False), answers)
    return {part: np.array([peak for peak in found if np.isfinite(peak)]) for part, found in peaks.items()}
