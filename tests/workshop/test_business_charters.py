"""Business charters: valid, complete, and as they were committed before any score."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from commonweight.charter import parse
from commonweight.charter.lint import lint
from commonweight.workshop.heads.business import drop_businesses, find_businesses
from commonweight.workshop.heads.sources import find_files

FOLDER = Path(__file__).parents[2] / "benchmarks" / "guard" / "business"
COMMITTED = "23bdbae4718d5ff8f56b4f19452c794e02f5e1f9bcf2182fdc566b6ad7aaf483"
"""SHA-256 of the files' contents in the order of their names. What is measured with them was frozen with them."""


def test_they_are_what_was_committed_before_any_score() -> None:
    sum_ = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        sum_.update(path.name.encode() + b"\0" + path.read_bytes())
    assert sum_.hexdigest() == COMMITTED


def test_six_charters_of_three_principles_with_ten_texts_of_each_kind() -> None:
    businesses = find_businesses([FOLDER])
    assert len(businesses) == 6
    texts = [row.text for business in businesses for row in business.texts.rows]
    assert len(set(texts)) == len(texts) == 360
    for business in businesses:
        content = business.charter.read_bytes()
        assert lint(content) == []
        charter = parse(content)
        assert len(charter.principles) == 3
        assert not any(one.violating for one in charter.principles)
        counts = Counter((row.principle, row.is_harmful) for row in business.texts.rows)
        assert counts == {(one.id, label): 10 for one in charter.principles for label in (True, False)}
        examples = {example.text for one in charter.principles for example in one.complying}
        assert not examples & {row.text for row in business.texts.rows}


def test_their_texts_belong_to_no_other_charter(tmp_path: Path) -> None:
    (tmp_path / "shop.md").write_bytes(b"")
    for name in ("shop", "others"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "Hi", "y": 0}\n')
    businesses = find_businesses([tmp_path])
    assert [one.charter.name for one in businesses] == ["shop.md"]
    assert [one.name for one in drop_businesses(find_files([tmp_path]), businesses)] == ["others.jsonl"]


@pytest.mark.parametrize("paths", [[], ["texts.jsonl.gz"]])
def test_without_a_charter_beside_them_texts_are_no_business(tmp_path: Path, paths: list[str]) -> None:
    assert find_businesses([tmp_path / path for path in paths]) == []
