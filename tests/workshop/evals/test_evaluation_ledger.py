"""The ledger: what a kill leaves is gone on from, and no line holds a text."""

import contextlib
import json
from pathlib import Path

import pytest

from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.ledger import Ledger, SampleLine, digest_text


def line(sample_id: str, prompt: str = "p", *, error: bool = False) -> SampleLine:
    return SampleLine(
        task="t",
        sample_id=sample_id,
        digest=digest_text(prompt),
        answer=None if error else digest_text("a"),
        score={} if error else {"right": 1},
        error=True if error else None,
    )


def test_finished_samples_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with contextlib.closing(Ledger(path)) as ledger:
        for one in (line("b"), line("a"), line("c", error=True)):
            ledger.add(one)
    path.write_bytes(path.read_bytes() + b'{"task": "t", "sample_')
    with contextlib.closing(Ledger(path)) as ledger:
        assert ledger.find("t", "a", digest_text("p")) == line("a")
        assert ledger.find("t", "a", digest_text("another prompt")) is None
        assert ledger.find("t", "c", digest_text("p")) is None
        ledger.add(line("c"))
        ledger.finish([("t", "a"), ("t", "b"), ("t", "c")])
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert [one["sample_id"] for one in lines] == ["a", "b", "c"]


def test_samples_of_other_settings_are_dropped_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.add(line("a"))
        ledger.add(line("old"))
        ledger.finish([("t", "a")])
    assert len(path.read_text().splitlines()) == 1


def test_lines_hold_digests_only(tmp_path: Path) -> None:
    with contextlib.closing(Ledger(tmp_path / "samples.jsonl")) as ledger:
        ledger.add(line("a", "zebra crossing \ud800"))
        ledger.add(line("b", error=True))
    first, second = map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())
    assert set(first) == {"task", "sample_id", "digest", "answer", "score"}
    assert {len(first["digest"]), len(first["answer"])} == {64}
    assert second["error"] is True


def test_damage_elsewhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.add(line("a"))
        ledger.add(line("b"))
    path.write_text(path.read_text().replace('"score"', '"scare"', 1))
    with pytest.raises(EvaluationError, match=r"line 1 of samples\.jsonl is damaged"):
        Ledger(path)
