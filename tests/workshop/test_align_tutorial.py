"""The page that aligns a model, run as it is written: every stage of alignment, on a model made on the way."""

import json
from pathlib import Path

import pytest
from pages import run_page

pytestmark = pytest.mark.workshop


def read_values(outputs: Path, stage: str, name: str) -> list[float]:
    """A figure of a stage's training, as it was logged."""
    lines = next(outputs.glob(f"{stage}/*/metrics.jsonl")).read_text().splitlines()
    return [entry[name] for entry in map(json.loads, lines) if name in entry]


@pytest.mark.timeout(900)
def test_the_page_runs_as_written(tmp_path: Path) -> None:
    plan, build, shown, released = run_page("align.md", tmp_path)
    assert "preference" in plan
    assert "33 of 33 stages ran" in build
    assert "contamination, 13 words in a row" in shown
    from commonweight.workshop.data.dataset import read_rows  # needs the extra

    outputs = tmp_path / "aligned" / "build" / "outputs"
    comparison = json.loads(next(outputs.glob("gain/*/comparison.json")).read_text())
    assert comparison["targets"]
    # What was learned moved the model: answers became likelier, and the better ones of pairs more than the others.
    losses, margins = read_values(outputs, "chat", "eval_loss"), read_values(outputs, "better", "rewards/margins")
    assert losses[-1] < losses[0]
    assert margins[-1] > margins[0]
    # Neither first answers nor rejected ones leave the build folder.
    assert "release: passed" in released
    files = [path.read_bytes() for path in (tmp_path / "aligned" / "release").rglob("*") if path.is_file()]
    rows = [*read_rows(next(outputs.glob("first/*"))), *read_rows(next(outputs.glob("pairs/*")))]
    private = {(row.content.rejected or row.content.messages or ())[-1].content for row in rows}
    long = [text.encode() for text in private if len(text) > 30]
    assert long
    assert not [text for text in long for content in files if text in content]
    # No text stands beside the rows in what says why they were kept.
    first_rows = next(outputs.glob("first/*"))
    ledger = (first_rows / "ledger.jsonl").read_text()
    assert len(ledger.splitlines()) == 12
    assert "flatmate" not in ledger
