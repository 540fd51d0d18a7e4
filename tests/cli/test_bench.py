"""``commonweight bench``, with as little work as it can be asked for."""

import re

import pytest

from command import run

LEAST = ("--rounds", "1", "--context", "512", "--parallel", "2", "--threads", "1")
UNITS = {
    "reading a new prompt of 256 tokens": "tok/s",
    "writing, one stream": "tok/s",
    "writing, 2 streams together": "tok/s",
    "first token of a second turn, 128 new tokens": "s",
    "first token of 2 sessions that share a new prompt": "s",
}


@pytest.mark.slow
def test_every_row_is_measured_and_printed() -> None:
    # Wide enough that no row is broken into two lines, in an encoding that has the lines between cells.
    done = run("bench", *LEAST, COLUMNS="120", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    assert "SmolLM2-135M-Instruct.Q4_1" in done.stdout
    rows = re.findall(r"^│ (.+?) +│ ([\d.]+) (\S+) +│ ([\d.]+) to ([\d.]+) +│$", done.stdout, re.MULTILINE)
    assert {name: unit for name, _, unit, _, _ in rows} == UNITS
    for name, median, _, low, high in rows:
        assert float(median) > 0, name
        assert low == median == high, f"{name}: one round has one value"
    assert re.findall("^Measuring: (.+)$", done.stderr, re.MULTILINE) == list(UNITS)


def test_no_rounds_are_a_mistake_in_usage() -> None:
    done = run("bench", "--rounds", "0")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "--rounds" in done.stderr


def test_a_context_too_small_to_measure_in() -> None:
    done = run("bench", *LEAST, "--context", "400")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: a context of 400 tokens is too small to measure anything"
