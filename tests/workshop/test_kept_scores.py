"""Scores that are kept: found again, private, and without a text."""

import json
from pathlib import Path

from commonweight.workshop.heads.kept_scores import KeptScores, Outcome

KEY = b"k" * 32
FOUND = Outcome(0.75, True, "no-umbrellas", ("no-umbrellas", "other"), is_encoded=True)


def open_kept(path: Path, key: bytes = KEY) -> KeptScores:
    return KeptScores(path, key)


def test_an_outcome_is_found_after_a_restart(tmp_path: Path) -> None:
    kept = open_kept(tmp_path / "new" / "scores.jsonl")
    kept.add(FOUND, "bundle", "input", "Which umbrella?", None)
    kept.add(Outcome(is_read=False), "bundle", "input", "a long one", None)
    assert kept.find("bundle", "input", "Which umbrella?", None) == FOUND
    kept.close()
    again = open_kept(tmp_path / "new" / "scores.jsonl")
    assert again.find("bundle", "input", "Which umbrella?", None) == FOUND
    assert again.find("bundle", "input", "a long one", None) == Outcome(is_read=False)
    assert again.find("other bundle", "input", "Which umbrella?", None) is None
    assert again.find("bundle", "input", "Which umbrella?", "") is None
    assert again.find("bundle", "inputWhich umbrella?", "", None) is None


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    open_kept(tmp_path / "scores.jsonl").add(FOUND, "Which umbrella?")
    assert open_kept(tmp_path / "scores.jsonl", b"l" * 32).find("Which umbrella?") is None


def test_the_file_is_its_owners_and_holds_no_text(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    open_kept(path).add(FOUND, "bundle", "Which umbrella?")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "umbrella?" not in path.read_text()
    assert set(json.loads(path.read_text())) == {"code", *vars(FOUND)}


def test_lines_that_are_torn_or_of_another_version_are_scored_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    kept = open_kept(path)
    kept.add(FOUND, "one")
    kept.add(FOUND, "two")
    kept.close()
    first, second = path.read_text().splitlines()
    path.write_text(f'3\n{{"code": "ab", "older": 1}}\n{first}\n{second[:50]}')
    again = open_kept(path)
    assert again.find("one") == FOUND
    assert again.find("two") is None
    again.add(FOUND, "two")
    again.close()
    assert open_kept(path).find("two") == FOUND
