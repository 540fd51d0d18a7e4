"""The page that aligns a model, run as it is written: every stage of alignment, on a model made on the way."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.workshop

PAGE = Path(__file__).parents[2] / "docs" / "learn" / "align.md"


@pytest.mark.timeout(900)
def test_the_page_runs_as_written(tmp_path: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    script = "set -eu\n" + "\n".join(f"echo; echo '== {number}'\n{block}" for number, block in enumerate(blocks))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plan, build, shown = re.split(r"^== \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert "preference" in plan
    assert "33 of 33 stages ran" in build
    assert "contamination, 13 words in a row" in shown
    outputs = tmp_path / "aligned" / "build" / "outputs"
    comparison = json.loads(next(outputs.glob("gain/*/comparison.json")).read_text())
    assert comparison["targets"]
    # What was learned moved the model: the loss of answers fell, and the better answers of pairs became likelier.
    for stage, name in (("chat", "loss"), ("better", "rewards/margins")):
        lines = next(outputs.glob(f"{stage}/*/metrics.jsonl")).read_text().splitlines()
        values = [entry[name] for entry in map(json.loads, lines) if name in entry]
        first, last = values[0], values[-1]
        assert last < first if name == "loss" else last > first
    # No text stands beside the rows in what says why they were kept.
    first_rows = next(outputs.glob("first/*"))
    ledger = (first_rows / "ledger.jsonl").read_text()
    assert len(ledger.splitlines()) == 12
    assert "flatmate" not in ledger
