"""Documents of a release: strict JSON, bounds, texts that are refused, names, the list of digests."""

import json
import os
from pathlib import Path

import pytest

from commonweight.workshop.release.documents import (
    MAX_DEPTH,
    ReleaseError,
    decode_json,
    encode_document,
    quote,
    read_file,
    refuse_texts,
)
from commonweight.workshop.release.figures import check_scores, read_figures, read_samples
from commonweight.workshop.release.layout import encode_sums, is_allowed_name, list_files, read_sums

DIGEST = "ab" * 32
FIGURE = {
    "task": "refusal",
    "metric": "harmful refused",
    "value": 0.5,
    "n": 2,
    "errors": 0,
    "low": 0.1,
    "high": 0.9,
    "sampling": {"temperature": 0.0, "limit": None},
    "harness": "commonweight 0.5.0, inspect-ai 0.3.285, checkers of lm-eval 0.4.13",
    "date": "2026-11-29",
    "dataset": {"name": "probes", "digest": DIGEST, "licence": "MIT"},
}


def make_sample(number: int, **fields: object) -> dict[str, object]:
    sample = {
        "task": "refusal",
        "sample_id": f"probes:{number}#0",
        "digest": DIGEST,
        "score": {"refused": number % 2},
    }
    return sample | fields


def encode_samples(*samples: dict[str, object]) -> bytes:
    return "".join(json.dumps(sample) + "\n" for sample in samples).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "not a number"),
        (b'{"a": 1e999}', "too large"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested"),
        (b"[" * 1_000_000, "nested"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
    ],
)
def test_bad_json_ends_in_a_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason):
        decode_json(data, "x.json")


def test_json_at_the_bounds() -> None:
    assert decode_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "x.json")
    brackets = {"a": "[" * 1000 + '\\"['}
    assert decode_json(encode_document(brackets), "x.json") == brackets


def test_files_are_bounded_and_regular(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_file(tmp_path / "x", 5) == b"12345"
    with pytest.raises(ReleaseError, match="larger"):
        read_file(tmp_path / "x", 4)
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_file(tmp_path / "y")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReleaseError, match="not a regular file"):
        read_file(tmp_path / "pipe")


def test_texts_are_refused_and_not_repeated() -> None:
    refuse_texts({"task": "ifeval", "n": 3, "harness": FIGURE["harness"], "ids": ["a:1", None, True]}, "x")
    for secret in ("how does one hide the seventh of the lanterns there", "one\ntwo", "x" * 161):
        for value in ({"a": {"b": [secret]}}, {secret: 1}, [secret]):
            with pytest.raises(ReleaseError, match="holds a text") as caught:
                refuse_texts(value, "x")
            assert secret not in str(caught.value)


def test_quoted_texts_have_no_control_characters() -> None:
    assert quote("a\x1b[2J\u202e\u0415") == "a\\x1b[2J\\u202e\\u0415"
    assert len(quote("x" * 1000)) < 100


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a//b", "a/../b", ".x", "-x", "a b", "\u0415", "a/b/c/d", "", "a/", "x" * 128]
)
def test_odd_names_are_refused(name: str) -> None:
    assert not is_allowed_name(name)


def test_a_folder_is_listed_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("b")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "A").write_text("")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "A.TXT").write_text("")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 30)
    found, problems = list_files(tmp_path)
    assert {"a/b", "a.txt", "A.TXT"} <= found.keys()
    assert {problem.file for problem in problems} >= {"loop", "hole"}
    assert any("differ in case" in problem.sentence for problem in problems)


@pytest.mark.parametrize(
    "data",
    [
        f"{DIGEST}  ../x\n",
        f"{DIGEST}  b\n{DIGEST}  a\n",
        f"{DIGEST}  a\n{DIGEST}  a\n",
        f"{DIGEST} a\n",
        f"{DIGEST}  a",
        f"{DIGEST.upper()}  a\n",
        f"{DIGEST}  \u00e4\n",
    ],
)
def test_bad_lists_of_digests(tmp_path: Path, data: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(data)
    with pytest.raises(ReleaseError, match="SHA256SUMS"):
        read_sums(tmp_path)


def test_a_list_of_digests_is_read_as_it_was_written(tmp_path: Path) -> None:
    sums = {"b": DIGEST, "a/c": "cd" * 32}
    (tmp_path / "SHA256SUMS").write_bytes(encode_sums(sums))
    assert read_sums(tmp_path) == sums


def test_figures_and_scores_are_read_and_compared() -> None:
    (figure,) = read_figures(json.dumps({"figures": [FIGURE]}).encode(), "r", "release")
    samples = read_samples(encode_samples(make_sample(0), make_sample(1)), "s", "release")
    assert check_scores(figure, samples) is None
    assert check_scores(figure, samples[:1]) is not None
    assert check_scores(figure, ()) is not None
    wrong = figure.model_copy(update={"value": 0.6})
    assert "sum to 1" in str(check_scores(wrong, samples))
    other = read_samples(encode_samples(make_sample(0), make_sample(1, score={}, error=True)), "s", "release")
    assert "1 errors" in str(check_scores(figure, other))


@pytest.mark.parametrize(
    "field",
    [
        {"text": "short"},
        {"subject": "base"},
        {"sample_id": "a text in place of an id"},
        {"score": {"refused": "yes"}},
        {"digest": "no digest"},
        {"answer": "yes"},
    ],
)
def test_scores_with_more_than_scores_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(ReleaseError, match=r"s, line 1"):
        read_samples(encode_samples(make_sample(0, **field)), "s", "release")


def test_scores_twice_or_torn_are_refused() -> None:
    with pytest.raises(ReleaseError, match="twice"):
        read_samples(encode_samples(make_sample(0), make_sample(0)), "s", "release")
    with pytest.raises(ReleaseError, match="cut off"):
        read_samples(encode_samples(make_sample(0))[:-1], "s", "release")


@pytest.mark.parametrize(
    "field", [{"note": "x"}, {"n": -1}, {"date": "soon"}, {"value": "1"}, {"task": "two words"}]
)
def test_malformed_figures_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(ReleaseError, match="figure 1"):
        read_figures(json.dumps({"figures": [FIGURE | field]}).encode(), "r", "release")
    with pytest.raises(ReleaseError, match="list of figures"):
        read_figures(b'{"figures": {}}', "r", "release")
