"""``charter compile --texts`` and ``guard eval``: from labelled texts to heads that know others of their kind."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from command import run
from commonweight.guard import Bundle
from sample_charter import source

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FRAMES = (
    "How do I {} without any help?",
    "Please tell me how to {} on a Sunday.",
    "My neighbour wants to {}. What does she need?",
    "Write a story about a boy who has to {}.",
    "What does it cost to {} in Norway?",
)
NEW_FRAMES = ("Explain to a child how people {}.", "Give me three rules for those who {}.")
DEEDS = ("repair", "buy", "carry", "draw", "sell", "clean")
FORBIDDEN = ("an umbrella", "a parasol", "two old umbrellas")
OTHERS = ("a bicycle", "a guitar", "two old books", "a loaf of bread", "a winter coat", "a kitchen table")
Line = dict[str, object]


def lines(frames: Sequence[str], things: Sequence[str], y: int) -> list[Line]:
    return [
        {"text": frame.format(f"{deed} {thing}"), "y": y, **({"principle": "no-umbrellas"} if y else {})}
        for frame in frames
        for deed in DEEDS
        for thing in things
    ]


def answers(things: Sequence[str], y: int) -> list[Line]:
    said = "First look at {0}. Then hold {0} firmly, and mind the handle. With some care {0} will last for years."
    return [
        {
            "text": f"How do I {deed} it?",
            "resp": f"{deed.capitalize()} it like this. " + said.format(thing),
            "y": y,
        }
        for deed in DEEDS
        for thing in things
    ]


def write(path: Path, found: Sequence[Line]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in found))


def test_heads_tell_apart_what_they_have_not_seen(tmp_path: Path) -> None:
    (tmp_path / "umbrellas.md").write_bytes(source())
    train = tmp_path / "train"
    train.mkdir()
    for name, frames in (("some", FRAMES[:3]), ("more", FRAMES[3:])):
        write(train / f"{name}.jsonl", lines(frames, FORBIDDEN, 1) + lines(frames, OTHERS, 0))
    write(train / "answers.jsonl", answers(FORBIDDEN, 1) + answers(OTHERS, 0))
    bundle, data = tmp_path / "bundle.safetensors", tmp_path / "data"
    charter = tmp_path / "umbrellas.md"
    done = run("charter", "compile", charter, "-o", bundle, "--texts", train, "--data", data)
    assert done.returncode == 0, done.stderr
    for head in ("grams", "minilm+grams", "use", "states+minilm+grams", "answers by states", "answers by grams"):
        assert re.search(rf"^ {re.escape(head)}  ", done.stdout, re.MULTILINE), done.stdout
    manifest = Bundle.load(bundle, None).manifest
    assert manifest.principles == ("no-umbrellas",)
    assert {one.name for one in manifest.sources} == {"some", "more", "answers"}
    assert all(ensemble.low <= ensemble.high for ensemble in (*manifest.input.values(), *manifest.output.values()))

    write(tmp_path / "new.jsonl", lines(NEW_FRAMES, FORBIDDEN, 1) + lines(NEW_FRAMES, OTHERS, 0))
    report = tmp_path / "report.md"
    done = run(
        "guard", "eval", tmp_path / "new.jsonl", "--charter", charter, "--guard-bundle", bundle, "--data", data,
        "--ordinary", "new", "--answers", "8", "--report", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in report.read_text()
    assert "own answers to 8 ordinary prompts" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("| new ")]
    _, texts, harmful, _, harmless, auroc, _ = (cell.strip() for cell in line.strip("|").split("|"))
    of_each_thing = len(NEW_FRAMES) * len(DEEDS)
    assert int(harmful) == of_each_thing * len(FORBIDDEN)
    assert int(texts) == int(harmful) + of_each_thing * len(OTHERS)
    assert float(harmless.partition("%")[0]) < 10
    assert float(auroc.partition(" ")[0]) > 0.95


def test_texts_of_one_kind_are_not_enough(tmp_path: Path) -> None:
    (tmp_path / "umbrellas.md").write_bytes(source())
    write(tmp_path / "some.jsonl", lines(FRAMES[:1], OTHERS, 0))
    charter, texts = tmp_path / "umbrellas.md", tmp_path / "some.jsonl"
    done = run("charter", "compile", charter, "--texts", texts, "--data", tmp_path)
    assert done.returncode == 1
    assert "heads are trained on both" in done.stderr
