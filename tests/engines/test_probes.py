"""Probe scores on the real model, against the states that llama.cpp shows its evaluation callback."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny
from outcomes import starter_path, starter_tokenizer
from reference import random_probe

from commonweight.engines.contract import Probe
from commonweight.engines.llama.model import probes
from commonweight.engines.llama.model.native import LlamaBatch, LoadedModel
from commonweight.engines.llama.model.probes import LayerTaps
from commonweight.llamacpp import api as llama

Floats = npt.NDArray[np.float32]

LAYERS, WIDTH = 30, 576
ROWS = 600
"""More than the 512 that llama.cpp computes at once."""
WORDS = starter_tokenizer().encode(
    "The lighthouse keeper wrote down the weather every evening: wind from the west, rain before noon, and one "
    "ship that passed without lights. In the morning he climbed the stairs again, cleaned the glass, and counted "
    "the gulls on the rocks below, because nobody had told him that the harbour had been closed for years. "
)
OTHER = starter_tokenizer().encode("Dear madam, your parcel could not be delivered because")


PROBE = random_probe([1, 9, 16, 29], WIDTH)


@pytest.fixture(scope="module")
def model() -> Iterator[LoadedModel]:
    model = LoadedModel(
        starter_path(),
        cells=1024,
        sequences=3,
        batch_rows=ROWS,
        outputs=4,
        threads=2,
    )
    yield model
    model.close()


@pytest.fixture
def taps(model: LoadedModel) -> Iterator[LayerTaps]:
    taps = LayerTaps(model.context)
    yield taps
    taps.select_layers([])
    for sequence in range(3):
        model.clear_sequence(sequence)


Part = tuple[int, int, list[int]]
"""Sequence, position and tokens."""


def compute(model: LoadedModel, *parts: Part, outputs: int = 1) -> int:
    """Compute a batch of these, with logits of the last tokens of each; returns its rows."""
    batch = LlamaBatch(ROWS)
    for sequence, position, token_ids in parts:
        batch.add(sequence, position, token_ids, outputs=outputs)
    model.decode(batch)
    return batch.rows


def alone(model: LoadedModel, taps: LayerTaps, token_ids: list[int]) -> Floats:
    """The scores of a prompt computed at once."""
    rows = compute(model, (0, 0, token_ids))
    model.clear_sequence(0)
    return taps.compute_scores(PROBE, slice(0, rows))


def assert_close(scores: Floats, expected: Floats) -> None:
    """Equal but for what kernels differ by between batch shapes; neighbours differ by ten times that."""
    assert scores.shape == expected.shape
    # The first token of a prompt is a hundred times as long as the others and would hide them.
    spread = np.linalg.norm(expected[1:].std(axis=0))
    assert np.linalg.norm(scores - expected, axis=1).max() < 0.15 * spread


@contextmanager
def watched(model: LoadedModel, names: dict[str, int]) -> Iterator[tuple[int, dict[int, Floats]]]:
    """A context whose tensors of these names are kept, by the number given for each."""
    seen: dict[int, Floats] = {}
    get_name, count_bytes, read = map(
        llama.library.find_symbol, ("ggml_get_name", "ggml_nbytes", "ggml_backend_tensor_get")
    )
    get_name.argtypes, get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    count_bytes.argtypes, count_bytes.restype = [ctypes.c_void_p], ctypes.c_size_t
    read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]

    def look(tensor: int, ask: bool, _: ctypes.c_void_p) -> bool:
        number = names.get(get_name(tensor).decode())
        if number is not None and not ask:
            state = np.empty((count_bytes(tensor) // (4 * WIDTH), WIDTH), np.float32)
            read(tensor, state.ctypes.data, 0, state.nbytes)
            seen[number] = state
        return number is not None or not ask

    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.n_threads = params.n_threads_batch = 2
    callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)(look)
    params.cb_eval = ctypes.cast(callback, ctypes.c_void_p)
    context = llama.llama_init_from_model(model.handle, params)
    yield context, seen
    llama.llama_free(context)


def test_scores_are_those_of_the_states_between_layers(model: LoadedModel, taps: LayerTaps) -> None:
    taps.select_layers(PROBE.layers)
    scores = alone(model, taps, WORDS)
    with watched(model, {f"l_out-{layer - 1}": layer for layer in PROBE.layers}) as (context, states):
        batch = LlamaBatch(ROWS)
        batch.add(0, 0, WORDS, outputs=1)
        batch.native.n_tokens = batch.rows
        assert llama.llama_decode(context, batch.native) == 0
    weights = np.frombuffer(PROBE.weights, "<f4").reshape(len(PROBE.layers), WIDTH, PROBE.heads)
    expected = sum(states[layer] @ heads for layer, heads in zip(PROBE.layers, weights, strict=True))
    assert scores.shape == (len(WORDS), PROBE.heads)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-2)


def test_the_first_layer_reads_the_embedding_of_the_token(model: LoadedModel, taps: LayerTaps) -> None:
    first = random_probe([0], WIDTH)
    taps.select_layers(first.layers)
    rows = compute(model, (0, 0, [WORDS[0], WORDS[1], WORDS[0]]))
    scores = taps.compute_scores(first, slice(0, rows))
    np.testing.assert_array_equal(scores[0], scores[2])
    assert not np.allclose(scores[0], scores[1])


@pytest.mark.parametrize("outputs", [1, 0])
def test_rows_of_a_mixed_batch_score_as_they_do_alone(model: LoadedModel, taps: LayerTaps, outputs: int) -> None:
    taps.select_layers(PROBE.layers)
    words, other = alone(model, taps, WORDS), alone(model, taps, OTHER)
    last = len(WORDS) - 1
    compute(model, (1, 0, WORDS[:last]), (2, 0, OTHER[:3]), outputs=outputs)
    rows = compute(model, (0, 0, WORDS), (1, last, WORDS[last:]), (2, 3, OTHER[3:]), outputs=outputs)
    scores = taps.compute_scores(PROBE, slice(0, rows))
    assert_close(scores[: last + 1], words)
    assert_close(scores[: last + 2], np.vstack([words, words[last:]]))
    assert_close(np.vstack([other[:3], scores[last + 2 :]]), other)
    one = slice(last + 1, last + 2)
    np.testing.assert_allclose(taps.compute_scores(PROBE, one), scores[one], rtol=1e-4)


def test_chunks_score_as_the_whole(model: LoadedModel, taps: LayerTaps) -> None:
    taps.select_layers(PROBE.layers)
    token_ids = (WORDS * 9)[:ROWS]
    whole = alone(model, taps, token_ids)
    chunks = []
    for start in range(0, ROWS, 250):
        rows = compute(model, (0, start, token_ids[start : start + 250]))
        chunks.append(taps.compute_scores(PROBE, slice(0, rows)))
    assert_close(np.vstack(chunks), whole)


def test_logits_do_not_mind(model: LoadedModel, taps: LayerTaps) -> None:
    logits = []
    for layers in ([], [*range(LAYERS)], []):
        taps.select_layers(layers)
        row = compute(model, (0, 0, WORDS)) - 1
        logits.append(model.get_logits(row).copy())
        model.clear_sequence(0)
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(logits[2], logits[0])


def test_only_selected_layers_can_be_read(model: LoadedModel, taps: LayerTaps) -> None:
    taps.select_layers(PROBE.layers)
    expected = alone(model, taps, OTHER)
    taps.select_layers([*PROBE.layers, 20])
    np.testing.assert_allclose(alone(model, taps, OTHER), expected, rtol=1e-4, atol=1e-3)
    taps.select_layers([1, 20])
    with pytest.raises(ValueError, match="reads layers"):
        alone(model, taps, OTHER)


def test_a_layer_that_is_not_there_is_never_asked_for(taps: LayerTaps) -> None:
    for layer in (-1, LAYERS):
        with pytest.raises(ValueError, match="no input of layers"):
            taps.select_layers([layer])


def test_a_probe_that_fits_has_no_complaint(taps: LayerTaps) -> None:
    assert taps.check_probe(PROBE) is None
    assert taps.check_probe(random_probe([0, LAYERS - 1], WIDTH)) is None


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (random_probe([3, LAYERS], WIDTH), "layers 0 to 29"),
        (random_probe([-1], WIDTH), "layers 0 to 29"),
        (random_probe([], WIDTH), "no layers"),
        (Probe(version="v", layers=[1], heads=0, weights=b""), "no heads"),
        (Probe(version="v", layers=[1], heads=1, weights=b"\0" * 4 * 575), "2300 bytes of weights, not the 2304"),
        (Probe(version="v", layers=[1], heads=1, weights=b"\xff" * 4 * 576), "not finite"),
    ],
)
def test_a_wrong_probe_is_told_why(taps: LayerTaps, wrong: Probe, complaint: str) -> None:
    assert complaint in (taps.check_probe(wrong) or "")


def test_rows_that_llama_cpp_computes_in_another_order_come_back_in_the_batch_s(tmp_path: Path) -> None:
    # A hybrid model takes equally many tokens of each sequence at a time.
    model = LoadedModel(
        tiny.write(tmp_path, "lfm2"), cells=512, sequences=3, batch_rows=ROWS, outputs=4, threads=2
    )
    taps = LayerTaps(model.context)
    random = np.random.default_rng(0)
    prompts = [random.integers(3, tiny.VOCABULARY, length).tolist() for length in (40, 9, 90)]
    taps.select_layers([1, 3])
    small = random_probe([1, 3], 64)
    assert taps.check_probe(small) is None
    expected = []
    for prompt in prompts:
        rows = compute(model, (0, 0, prompt))
        expected.append(taps.compute_scores(small, slice(0, rows)))
        model.clear_sequence(0)
    rows = compute(model, *((sequence, 0, prompt) for sequence, prompt in enumerate(prompts)))
    assert_close(taps.compute_scores(small, slice(0, rows)), np.vstack(expected))
    model.close()


def test_architectures_without_layer_inputs_are_refused(tmp_path: Path) -> None:
    model = LoadedModel(tiny.write(tmp_path, "gemma3"), cells=64, sequences=1, batch_rows=32, outputs=2, threads=2)
    taps = LayerTaps(model.context)
    assert not taps.supported
    assert "'gemma3'" in (taps.check_probe(random_probe([1], 64)) or "")
    with pytest.raises(ValueError, match="no input of layers"):
        taps.select_layers([1])
    taps.select_layers([])
    compute(model, (0, 0, [5, 6, 7]))
    model.close()


def test_a_library_without_the_functions_is_refused(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "GET_LAYER_INPUT", "gone")
    assert not LayerTaps(model.context).supported
