"""What cannot be seen from outside: the engine's parts, in this process."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from unittest import mock

import numpy as np

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.fairness import UnfairError
from benchmarks.servers import STREAMS, WINDOW
from benchmarks.table import Figure
from commonweight.catalog.gguf import Gguf
from commonweight.engines.contract import Job, Probe, Sampling, Step
from commonweight.engines.llama.kv.prefix_cache import PrefixCache
from commonweight.engines.llama.kv.sequence_state import SequenceState
from commonweight.engines.llama.model.native import EXTRA_OUTPUTS, LlamaBatch, LoadedModel
from commonweight.engines.llama.model.probes import LayerTaps
from commonweight.engines.llama.model.sampler import Sampler
from commonweight.engines.llama.model.sizing import DEFAULT_DRAFTS
from commonweight.engines.llama.scheduler.scheduler import Scheduler
from commonweight.llamacpp import api as llama
from commonweight.prompting import Tokenizer

ROWS = 512
"""Of a batch."""
STREAM_TOKENS = 128
PROBE_LAYERS, PROBE_HEADS = 4, 12
CHUNKS, DECODES = 2, 32
"""Of a round with or without a probe."""


def python_between_decodes(bench: Bench) -> list[Figure]:
    """8 streams: the scheduler's own time a step, without computing and sampling."""
    with _model(bench, STREAMS) as model, contextlib.closing(Gguf(bench.model)) as gguf:
        states = SequenceState(model.context, model.handle, model.scratch)
        prefixes = PrefixCache(capacity=1 << 30, needs_snapshots=states.reuse == "snapshots", disk=None)
        scheduler = Scheduler(model, states, prefixes, sequences=STREAMS, batch_rows=ROWS, drafts=DEFAULT_DRAFTS)
        tokenizer = Tokenizer(gguf)
        medians = []
        for turn in range(bench.rounds):
            for i, hero in enumerate(prompts.HEROES):
                number = turn * STREAMS + i
                text = prompts.story(number, hero).messages[0].content
                scheduler.submit(
                    number, Job(tokenizer.encode(text), STREAM_TOKENS, sampling=Sampling(seed=number))
                )
            medians.append(median(_own_seconds(scheduler)) * 1000)
    return [
        Figure(f"Python between decodes, {STREAMS} streams, sampling excluded", "ms a step", medians, target=0.5)
    ]


def probes(bench: Bench) -> list[Figure]:
    """A probe of 4 layers and 12 heads: prompts in chunks of 512 rows, and decoding, with and without."""
    with _model(bench, 1) as model:
        taps = LayerTaps(model.context)
        probe = _random_probe(model)
        if reason := taps.check_probe(probe):
            raise UnfairError(reason)
        chunks: dict[bool, list[float]] = {True: [], False: []}
        decodes: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(bench.rounds):
            for is_probed in (turn % 2 == 0, turn % 2 == 1):
                taps.select_layers(probe.layers if is_probed else ())
                score = partial(taps.compute_scores, probe) if is_probed else None
                _read_and_decode(model, 1, 2, score)  # what changed reserves memory anew
                chunk, decode = _read_and_decode(model, CHUNKS, DECODES, score)
                chunks[is_probed].append(ROWS / chunk)
                decodes[is_probed].append(1 / decode)
    what = f"probe of {PROBE_LAYERS} layers and {PROBE_HEADS} heads"
    return [
        Figure(f"{what}: {name}", "tok/s", rates[True], rates[False], "without", more_is_better=True)
        for name, rates in ((f"prompts in chunks of {ROWS}", chunks), ("decode, one stream", decodes))
    ]


@contextlib.contextmanager
def _model(bench: Bench, sequences: int) -> Iterator[LoadedModel]:
    model = LoadedModel(
        bench.model,
        cells=sequences * WINDOW,
        sequences=sequences,
        batch_rows=ROWS,
        outputs=sequences + EXTRA_OUTPUTS,
        threads=bench.threads,
    )
    try:
        yield model
    finally:
        model.close()


def _own_seconds(scheduler: Scheduler) -> list[float]:
    """Seconds of each step with a token for every stream, less what computing and sampling took of it."""
    found = []
    with _timed(LoadedModel, "decode") as computing, _timed(Sampler, "sample") as drawing:
        while scheduler.has_work:
            computing.clear()
            drawing.clear()
            start = time.perf_counter()
            events = scheduler.admit() + scheduler.step()
            seconds = time.perf_counter() - start
            # A step that reads prompts, or ends streams, is of another kind.
            if len(events) >= STREAMS and all(isinstance(event, Step) for _, event in events):
                found.append(seconds - sum(computing) - sum(drawing))
    return found


@contextlib.contextmanager
def _timed(owner: type, name: str) -> Iterator[list[float]]:
    """The seconds of every call of a method, until the block ends."""
    method = getattr(owner, name)
    calls: list[float] = []

    def timed(*arguments: object) -> object:
        start = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            calls.append(time.perf_counter() - start)

    with mock.patch.object(owner, name, timed):
        yield calls


def _random_probe(model: LoadedModel) -> Probe:
    layers: int = llama.llama_model_n_layer(model.handle)
    width: int = llama.llama_model_n_embd(model.handle)
    read = [layers * (i + 1) // (PROBE_LAYERS + 1) for i in range(PROBE_LAYERS)]
    weights = np.random.default_rng(0).normal(0, 0.02, (len(read), width, PROBE_HEADS))
    return Probe("random", read, PROBE_HEADS, weights.astype("<f4").tobytes())


def _read_and_decode(
    model: LoadedModel, chunks: int, decodes: int, score: Callable[[slice], object] | None
) -> tuple[float, float]:
    """Median seconds of a chunk of a prompt, and of a decode behind it."""
    batch = LlamaBatch(ROWS)
    random = np.random.default_rng(0)
    seconds: dict[int, list[float]] = {ROWS: [], 1: []}
    position = 0
    for rows in [ROWS] * chunks + [1] * decodes:
        batch.clear()
        batch.add(0, position, random.integers(0, model.vocabulary_size, rows).tolist(), outputs=1)
        start = time.perf_counter()
        model.decode(batch)
        if score:
            score(slice(0, rows))
        seconds[rows].append(time.perf_counter() - start)
        position += rows
    model.clear_sequence(0)
    return median(seconds[ROWS]), median(seconds[1])
