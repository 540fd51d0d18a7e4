"""SECURITY.md says where each threat is tested; those tests exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_threat_has_tests_that_exist() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row.split(" | ")[-1])
        assert named, row
        assert [path for path in named if not (ROOT / path).is_file()] == []
