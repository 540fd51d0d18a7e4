"""Pairs of samples, and intervals of what changed between two runs."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outcome_lines import make_line, make_lines, write_evaluation

from commonweight.workshop.evals.answer_outcome import OUTCOMES
from commonweight.workshop.evals.compliance import Subject
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import SampleLine
from commonweight.workshop.evals.paired import (
    Pair,
    compare_rates,
    compare_sums,
    compute_mean_ratio,
    find_prompt,
    pair_lines,
    read_lines,
)
from commonweight.workshop.evals.results import compute_wilson

HARMFUL = Subject("chat", "harmful")
METRIC = HARMFUL.name_metric("comply")


def count(line: SampleLine) -> float:
    return line.score[METRIC]


def make_pairs(before: list[int], after: list[int]) -> list[Pair]:
    lines = [
        make_lines(HARMFUL, ["comply" if one else "refuse" for one in outcomes]) for outcomes in (before, after)
    ]
    return list(pair_lines(*lines).pairs)


def test_samples_are_paired_by_id_and_prompt() -> None:
    before = make_lines(HARMFUL, ["comply", None, "refuse", "comply", "comply"])
    after = make_lines(HARMFUL, ["refuse", "refuse", None, "comply"])
    after[3] = after[3].model_copy(update={"digest": "f" * 64})  # another prompt under the same id
    after.append(make_line(9, HARMFUL, "comply"))
    found = pair_lines(before, after)
    assert [pair.before.sample_id for pair in found.pairs] == ["rows:0/chat#0"]
    assert (found.missing, found.errors, found.left_out) == (3, 2, 5)
    assert not found.is_enough
    assert pair_lines(before, before).is_enough is False  # one error in five
    assert pair_lines(before[2:], before[2:]).is_enough
    other = make_line(0, HARMFUL, "comply").model_copy(update={"task": "refusal"})
    assert not pair_lines([other], after).pairs


def test_answers_to_one_prompt_are_drawn_together() -> None:
    assert find_prompt("rows:3/forced#2") == find_prompt("rows:3/chat#0") == "rows:3"
    assert find_prompt("rows:3") == "rows:3"
    single = make_pairs([1, 0] * 20, [0, 0, 1, 0] * 10)
    repeated = [
        Pair(f"rows:{number}", pair.before, pair.after) for number, pair in enumerate(single) for _ in range(4)
    ]
    alone, together = compare_rates(single, count), compare_rates(repeated, count)
    assert together.n == 4 * alone.n
    assert together.difference == alone.difference


@given(st.lists(st.integers(0, 1), min_size=2, max_size=30))
def test_equal_runs_have_a_difference_of_0_and_a_ratio_of_1(outcomes: list[int]) -> None:
    rates = compare_rates(make_pairs(outcomes, outcomes), count)
    assert rates.before == rates.after == pytest.approx(sum(outcomes) / len(outcomes))
    assert rates.difference.low == rates.difference.value == rates.difference.high == 0
    assert (rates.ratio is None) == (sum(outcomes) == 0)
    if rates.ratio is not None:
        assert rates.ratio.low <= 1 <= rates.ratio.high


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30),
)
def test_an_interval_holds_its_value(outcomes: list[tuple[int, int]]) -> None:
    rates = compare_rates(make_pairs([one for one, _ in outcomes], [other for _, other in outcomes]), count)
    assert rates.difference.low <= rates.after - rates.before <= rates.difference.high
    assert rates.difference.low >= -1
    assert rates.difference.high <= 1
    if rates.ratio is not None:
        assert 0 <= rates.ratio.low <= rates.ratio.value <= rates.ratio.high


def test_the_interval_of_a_difference_is_that_of_the_paired_normal() -> None:
    # 400 prompts: 200 comply before, of which 100 still do, and 20 others begin to.
    before = [1] * 200 + [0] * 200
    after = [1] * 100 + [0] * 100 + [1] * 20 + [0] * 180
    rates = compare_rates(make_pairs(before, after), count)
    assert (rates.before, rates.after, rates.n) == (0.5, 0.3, 400)
    error = math.sqrt((100 + 20) / 400 - (80 / 400) ** 2) / math.sqrt(400)
    assert rates.difference.low == pytest.approx(-0.2 - 1.96 * error, abs=0.004)
    assert rates.difference.high == pytest.approx(-0.2 + 1.96 * error, abs=0.004)
    assert rates.ratio is not None
    # The delta method on the ratio of two paired means.
    variance = (0.3 + 0.36 * 0.5 - 2 * 0.6 * 0.25) / 0.25 / 400
    assert rates.ratio.value == pytest.approx(0.6)
    assert rates.ratio.high - rates.ratio.low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.08)


def test_no_outcome_afterwards_still_has_an_upper_end() -> None:
    rates = compare_rates(make_pairs([1] * 100 + [0] * 100, [0] * 200), count)
    bound = compute_wilson(0.0, 200)[1]
    assert rates.ratio is not None
    assert (rates.ratio.value, rates.ratio.low) == (0, 0)
    assert rates.ratio.high == pytest.approx(bound / 0.5)
    assert rates.difference.high == pytest.approx(bound - 0.5, abs=0.08)
    assert rates.difference.high >= bound - 0.5


def test_a_rate_of_0_before_has_no_ratio() -> None:
    rates = compare_rates(make_pairs([0, 0], [0, 1]), count)
    assert rates.ratio is None
    assert rates.difference.value == 0.5
    few = compare_rates(make_pairs([1, 0], [1, 1]), count).ratio
    assert few is not None
    assert few.high == math.inf  # half of the draws comply before, a quarter never does


def test_nothing_in_common_says_nothing() -> None:
    rates = compare_rates([], count)
    assert (rates.n, rates.before, rates.after, rates.ratio) == (0, 0, 0, None)


def test_sums_are_divided_by_sizes() -> None:
    def line(bits: int, size: int) -> SampleLine:
        score: dict[str, int | float] = {"bits": bits, "bytes": size}
        return SampleLine(task="answer_bits", sample_id="a", digest="0", answer=None, score=score)

    pairs = [Pair("a", line(10, 10), line(11, 10)), Pair("b", line(60, 30), line(66, 30))]
    rates = compare_sums(pairs, lambda one: one.score["bits"], lambda one: one.score["bytes"])
    assert rates.before == 1.75
    assert rates.after == pytest.approx(1.925)
    assert rates.ratio is not None
    assert rates.ratio.low == pytest.approx(1.1)
    assert rates.ratio.high == pytest.approx(1.1)


def test_the_interval_of_a_ratio_of_sums() -> None:
    interval = compute_mean_ratio([(1.0, 2.0), (3.0, 2.0)] * 50)
    assert interval.value == 1
    assert interval.high - 1 == pytest.approx(1.96 * 0.5 / math.sqrt(99), rel=0.01)
    assert compute_mean_ratio([]).value == 0


def test_damaged_samples_are_refused(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluation", make_lines(HARMFUL, OUTCOMES))
    assert len(read_lines(folder)) == 3
    with (folder / "samples.jsonl").open("a") as file:
        file.write('{"task": 1}\n')
    with pytest.raises(EvaluationError, match=r"line 4 of samples\.jsonl is damaged"):
        read_lines(folder)
    with pytest.raises(EvaluationError, match=r"has no samples\.jsonl"):
        read_lines(tmp_path)
