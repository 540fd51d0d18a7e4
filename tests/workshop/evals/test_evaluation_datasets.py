"""Data sets: plain and gzipped lines, the rows that a limit draws, and files that are refused."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from commonweight.workshop.evals.datasets import Dataset, DatasetFile, choose_rows, read_dataset
from commonweight.workshop.evals.errors import EvaluationError
from commonweight.workshop.evals.hellaswag import clean_text, read_questions, split_tokens
from commonweight.workshop.evals.refusal import make_samples
from commonweight.workshop.evals.settings import (
    GroupSettings,
    HellaSwagSettings,
    RefusalSettings,
)

LINES = b'{"a": 1}\n\n{"a": 2}\n'


def open_dataset(path: Path) -> Dataset:
    return read_dataset("rows", {"rows": DatasetFile(path, "CC0-1.0")})


def read(folder: Path, content: bytes) -> list[dict[str, object]]:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    found = open_dataset(path)
    assert found.identity.digest == hashlib.sha256(content).hexdigest()
    return list(found.rows)


def test_gzipped_or_not(tmp_path: Path) -> None:
    assert read(tmp_path, LINES) == read(tmp_path, gzip.compress(LINES)) == [{"a": 1}, {"a": 2}]
    assert len(read(tmp_path, gzip.compress(LINES) + gzip.compress(LINES))) == 4


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the data set rows has no rows"),
        (b'{"a": 1}\nsecret text\n', "line 2 of the data set rows is not a JSON object"),
        (b"[1]\n", "line 1 of the data set rows is not a JSON object"),
        (b"\xff\n", "line 1 of the data set rows is not a JSON object"),
        (gzip.compress(LINES)[:-9], "the data set rows is a damaged gzip file"),
        (gzip.compress(LINES) + b"tail", "the data set rows is a damaged gzip file"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(EvaluationError, match=sentence) as caught:
        read(tmp_path, content)
    assert "secret" not in str(caught.value)


def test_a_data_set_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commonweight.workshop.evals.datasets.MAX_BYTES", 1000)
    with pytest.raises(EvaluationError, match="larger than 1000 bytes"):
        read(tmp_path, gzip.compress(b" " * 1001))
    with pytest.raises(EvaluationError, match="larger than 1000 bytes"):
        read(tmp_path, gzip.compress(LINES) + gzip.compress(b" " * 1001))
    with pytest.raises(EvaluationError, match="larger than 1000 bytes"):
        read(tmp_path, b" " * 1001)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="rows has no file"):
        read_dataset("rows", {})
    with pytest.raises(EvaluationError, match="rows has no file"):
        open_dataset(tmp_path / "rows.jsonl")


def test_a_limit_draws_and_a_larger_one_adds() -> None:
    rows = [str(number) for number in range(100)]
    few, more = choose_rows(rows, 10, seed=1), choose_rows(rows, 30, seed=1)
    assert set(few) < set(more)
    assert few == sorted(few)
    assert few != choose_rows(rows, 10, seed=2)
    assert choose_rows(rows, None, 1) == choose_rows(rows, 100, 1) == list(enumerate(rows))


def test_both_forms_of_hellaswag(tmp_path: Path) -> None:
    settings = HellaSwagSettings(task="hellaswag", dataset="rows")
    endings = ["walks [step] out.", "sleeps.", "sings.", "swims."]
    rows = [
        {
            "activity_label": "Going out",
            "ctx_a": "A man gets up.",
            "ctx_b": "he",
            "endings": endings,
            "label": "1",
        },
        {"context": "Going out: A man gets up. He", "endings": endings, "label": 1},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_questions(settings, open_dataset(path))
    assert first.context == second.context == "Going out: A man gets up. He"
    assert first.endings[0] == "walks out."
    assert first.label == 1
    assert first.digest == second.digest


def test_cleaning_is_that_of_the_published_harness() -> None:
    assert clean_text("  How to sing [title] Breathe in.[step]  Sing. ") == "How to sing. Breathe in. Sing."


def test_endings_are_tokenized_with_their_context() -> None:
    def encode(text: str) -> list[int]:
        return [len(word) for word in text.split(" ")]

    assert split_tokens(encode, "a man", "gets up") == ([1, 3, 4, 2], 2)


@pytest.mark.parametrize(
    "row",
    [
        {"context": "A", "endings": ["b", "c"], "label": 2},
        {"context": "A", "endings": ["b", "c"], "label": -1},
        {"context": "A", "endings": ["b"], "label": 0},
        {"context": "A", "endings": ["b", "[c]"], "label": 0},
        {"endings": ["b", "c"], "label": 0},
        {"context": "A", "endings": ["b", "c"]},
    ],
)
def test_rows_that_are_no_question(tmp_path: Path, row: dict[str, object]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(EvaluationError, match="row 0 of rows"):
        read_questions(HellaSwagSettings(task="hellaswag", dataset="rows"), open_dataset(path))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "x", "y": 2}, "row 0 of rows needs a text and y"),
        ({"text": " ", "y": 1}, "row 0 of rows needs a text and y"),
        ({"y": 1}, "row 0 of rows needs a text and y"),
        ({"text": "x", "y": 0}, "rows has no harmful prompts"),
    ],
)
def test_prompts_that_are_refused(tmp_path: Path, row: dict[str, object], sentence: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    group = GroupSettings(dataset="rows", group="harmful")
    with pytest.raises(EvaluationError, match=sentence):
        make_samples(RefusalSettings(task="refusal", datasets=(group,)), group, open_dataset(path))
