"""What the guard's costs are measured with: an agent's session, medians, and both sides of one engine."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks.guard.agent_session import TURNS, write_session
from benchmarks.guard.estimates import estimate_median

from commonweight.guard import extract_segments


def test_each_request_of_a_session_holds_the_ones_before() -> None:
    requests = list(write_session(3))
    assert len(requests) == TURNS
    for before, after in pairwise(requests):
        assert after.messages[: len(before.messages)] == before.messages
        assert len(after.messages) == len(before.messages) + 2
    places = {segment.place for one in requests for segment in extract_segments(one)}
    assert {"input", "history", "system", "tools", "tool_result"} <= places
    assert next(write_session(4)).system != requests[0].system, "no session finds the prefixes of another"


def test_medians_have_an_interval() -> None:
    found = estimate_median([1.0, 1.1, 0.9, 1.0, 1.4])
    assert found.value == 1.0
    assert 0.9 <= found.lower < found.value < found.upper <= 1.4
    assert str(estimate_median([1.25])) == "1.250 [1.250, 1.250]"
    assert estimate_median([20.0, 20.0]).format("ms") == "20 ms [20, 20]"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_costs_are_measured_by_turns() -> None:
    command = [sys.executable, "-m", "benchmarks.guard.cost", "--rounds", "1", "--threads", "1"]
    done = subprocess.run(
        [*command, "--rows", "one-stream", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert "one stream, 160 tokens" in done.stdout
    assert "CPU on over off" in done.stdout
    assert "CPU for 1000 tokens, without states" in done.stdout
    assert "does not count" not in done.stdout


def test_a_bundle_that_is_none_is_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(b"nothing")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.guard.cost", "--bundle", path],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("benchmarks.guard.cost: ")
    assert "Traceback" not in done.stderr
