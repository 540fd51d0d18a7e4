"""Mixes: weights, epochs, turns and validation."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from commonweight.workshop.data.mix import Interleaver, draw_order, is_validation, plan_sizes, select_rows
from commonweight.workshop.data.rows import DataError
from commonweight.workshop.data.settings import MixSettings

WEIGHTS = st.floats(0.01, 100)
SIZES = st.integers(1, 10**9)


def declare(**changes: object) -> MixSettings:
    return MixSettings.model_validate({"weights": {"a": 1, "b": 1}} | changes)


@given(st.dictionaries(st.sampled_from("abcde"), st.tuples(WEIGHTS, SIZES), min_size=1), st.floats(1, 20))
def test_planned_sizes_have_the_weights_and_no_row_too_often(
    inputs: dict[str, tuple[float, int]], max_epochs: float
) -> None:
    settings = declare(weights={name: weight for name, (weight, _) in inputs.items()}, max_epochs=max_epochs)
    sizes = {name: size for name, (_, size) in inputs.items()}
    planned = plan_sizes(settings, sizes)
    total, weights = sum(planned.values()), sum(settings.weights.values())
    epochs = {name: planned[name] / sizes[name] for name in sizes}
    for name in sizes:
        assert planned[name] / total == pytest.approx(settings.weights[name] / weights)
        assert epochs[name] <= max_epochs * (1 + 1e-9)
    # Either everything stands in the mix at least once, or the scarcest input is used as often as it may be.
    assert min(epochs.values()) >= 1 - 1e-9 or max(epochs.values()) == pytest.approx(max_epochs)


def test_a_mix_of_a_given_size_has_it() -> None:
    planned = plan_sizes(declare(weights={"a": 1, "b": 3}, characters=400), {"a": 50, "b": 10_000})
    assert planned == {"a": 100, "b": 300}


def test_a_mix_that_is_too_large_says_which_input_is_too_small() -> None:
    with pytest.raises(
        DataError, match=r"of 1,000 characters needs 10\.0 epochs of a, which has 50; max_epochs .* 4"
    ):
        plan_sizes(declare(characters=1000), {"a": 50, "b": 10_000})


@pytest.mark.parametrize("sizes", [{"a": 1}, {"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}])
def test_weights_and_inputs_are_the_same(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"weights or inputs without the other: [bc]"):
        plan_sizes(declare(), sizes)


def test_an_input_without_training_rows_is_named() -> None:
    with pytest.raises(DataError, match="no training rows from b"):
        plan_sizes(declare(), {"a": 1, "b": 0})


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.floats(0.01, 5), st.integers(0, 3))
def test_selected_rows_have_the_size_to_the_nearest_row(lengths: list[int], epochs: float, seed: int) -> None:
    characters = np.array(lengths, np.int64)
    order = np.random.default_rng(seed).random(len(lengths))
    size = epochs * sum(lengths)
    found = select_rows(size, characters, order)
    assert found.characters == found.whole_epochs * sum(lengths) + int(characters[found.in_part_epoch].sum())
    assert found.rows == found.whole_epochs * len(lengths) + int(found.in_part_epoch.sum())
    assert found.rows >= 1
    assert abs(found.characters - size) <= max(lengths) / 2 + 1e-6 or found.rows == 1
    assert found.whole_epochs in (int(epochs), int(epochs) - 1, int(epochs) + 1)
    again = select_rows(size, characters, order)
    assert np.array_equal(again.in_part_epoch, found.in_part_epoch)


def test_another_seed_takes_other_rows() -> None:
    def select(seed: int) -> list[bool]:
        settings = declare(seed=seed)
        order = np.array([draw_order(settings, "a", f"{number:016x}", number) for number in range(100)])
        return [bool(taken) for taken in select_rows(50.0, np.ones(100, np.int64), order).in_part_epoch]

    assert select(1) == select(1)
    assert select(1) != select(2)
    assert sum(select(1)) == sum(select(2)) == 50


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(1, 50), min_size=1, max_size=40), min_size=1, max_size=3
    )
)
def test_every_beginning_of_a_mix_has_about_its_weights(inputs: dict[str, list[int]]) -> None:
    sizes = {name: sum(lengths) for name, lengths in inputs.items()}
    longest = max(max(lengths) for lengths in inputs.values())
    turns = Interleaver(sizes)
    left = {name: list(lengths) for name, lengths in inputs.items()}
    written = dict.fromkeys(inputs, 0)
    order: list[str] = []
    while left:
        name = turns.choose(left)
        if not left[name]:
            del left[name]
            continue
        length = left[name].pop(0)
        turns.count(name, length)
        written[name] += length
        order.append(name)
        done = sum(written.values()) / sum(sizes.values())
        assert all(abs(written[name] - done * sizes[name]) <= 2 * longest * len(inputs) for name in inputs)
    assert written == sizes
    assert len(order) == sum(map(len, inputs.values()))


@given(st.integers(0, 2**64 - 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_share_keeps_the_same_rows_and_more(number: int, one: float, other: float) -> None:
    assume(one <= other)
    row_id = f"{number:016x}"
    assert is_validation(row_id, other) or not is_validation(row_id, one)
    assert not is_validation(row_id, 0.0)


def test_about_the_share_of_rows_is_kept_apart() -> None:
    kept = sum(is_validation(f"{number:016x}", 0.1) for number in range(20_000))
    assert 0.09 < kept / 20_000 < 0.11
