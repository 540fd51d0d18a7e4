"""The benchmark of generation: where prompts part, how they are padded, and what is made of the runs."""

import pytest
from benchmarks.alignment.generation import count_common, make_prompts, pad_batch, summarise


def test_prompts_differ_and_are_as_many_as_asked() -> None:
    assert len(set(make_prompts(48))) == 48
    with pytest.raises(SystemExit, match="there are 48 prompts"):
        make_prompts(49)


def test_pads_stand_behind_what_is_common() -> None:
    rows = [[1, 2, 3, 4], [1, 2, 5]]
    assert count_common(rows) == 2
    assert count_common([[1, 2], [1, 2, 3]]) == 2
    ids, mask = pad_batch(rows, 2, 0)
    assert ids == [[1, 2, 3, 4], [1, 2, 0, 5]]
    assert mask == [[1, 1, 1, 1], [1, 1, 0, 1]]
    assert pad_batch(rows, 0, 9)[0][1] == [9, 1, 2, 5]


def test_ratios_are_those_of_rounds() -> None:
    found = summarise({"ours": [2.0, 6.0], "plain": [1.0, 2.0], "reused": [2.0, 2.0]})
    assert found["ours"] == {"median": 4.0, "low": 2.0, "high": 6.0}
    assert found["ours over plain"] == {"median": 2.5, "low": 2.0, "high": 3.0}
    assert found["ours over reused"] == {"median": 2.0, "low": 1.0, "high": 3.0}
