"""A local mirror in place of the hub and of addresses: the command builds the stages of data from it, offline."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from small_recipe import write_texts

from command import one_line_error, run
from commonweight.workshop.data.manifest import read_manifest

pytestmark = pytest.mark.workshop

COMMIT = "0123456789abcdef" * 2 + "01234567"
OFFLINE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_ENDPOINT"), "http://127.0.0.1:9"),
    "NO_PROXY": "",
    "HF_HUB_OFFLINE": "0",
}
"""Nothing listens there: whatever asks a server fails."""


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror of two addresses and two repositories of the hub."""
    folder = tmp_path / "mirror"
    for name in ("org/set/data", "org/exam"):
        (folder / name).mkdir(parents=True)
    write_texts(folder / "tales.jsonl", seed=1)
    write_texts(folder / "letters.jsonl", seed=2)
    (folder / digest(folder / "letters.jsonl")).write_bytes((folder / "letters.jsonl").read_bytes())
    (folder / "letters.jsonl").unlink()
    for number in range(2):
        write_texts(folder / "org" / "set" / "data" / f"{number}.jsonl", seed=3 + number)
    (folder / "org" / "set" / "README.md").write_text("A card of the hub, which is no row.\n")
    write_texts(folder / "org" / "exam" / "test.jsonl", count=20, seed=5)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, mirror: Path) -> Path:
    """A recipe none of whose sources is beside it."""
    (letters,) = (path.name for path in mirror.iterdir() if len(path.name) == 64)
    common = {"format": "text", "licence": "CC0-1.0"}
    stages = {
        "tales": {
            **{"kind": "source", "from": "https://texts.invalid/old/tales.jsonl"},
            **{"sha256": digest(mirror / "tales.jsonl"), **common},
        },
        "letters": {
            **{"kind": "source", "from": "https://texts.invalid/letters.jsonl"},
            **{"sha256": letters, **common},
        },
        "set": {"kind": "source", "from": f"hf:org/set@{COMMIT}/data", **common},
        "exam": {"kind": "evaluation_set", "from": "hf:org/exam@v1.0/test.jsonl", **common},
        "clean": {"kind": "filter", "inputs": ["tales", "letters", "set"], "evaluation_sets": ["exam"]},
        "text": {"kind": "mix", "weights": {"clean": 1}, "validation": 0.1},
    }
    path = tmp_path / "recipe" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"name": "away", "stages": stages}, sort_keys=False))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(recipe: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return run("build", recipe, *arguments, stdin=b"", python=(), **OFFLINE)


def test_a_mirror_stands_for_the_hub_and_for_addresses(recipe: Path, mirror: Path) -> None:
    planned = build(recipe, "--data-root", mirror, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    assert {stage["name"] for stage in json.loads(planned.stdout)["stages"] if stage["state"] == "to do"} == {
        *("tales", "letters", "set", "exam")
    }
    done = build(recipe, "--data-root", mirror, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ran"] == ["tales", "letters", "set", "exam", "clean", "text"]
    (text,) = (recipe.parent / "build" / "outputs" / "text").iterdir()
    manifest = read_manifest(text)
    # Where it is from is what the recipe says, not where the mirror lies.
    assert {source.name: (source.location, source.revision) for source in manifest.sources} == {
        "tales": ("https://texts.invalid/old/tales.jsonl", None),
        "letters": ("https://texts.invalid/letters.jsonl", None),
        "set": (f"hf:org/set@{COMMIT}/data", COMMIT),
    }
    assert {count.source for count in manifest.counts} == {"tales", "letters", "set"}
    assert manifest.rows > 200
    for path in (recipe.parent / "build").rglob("*.json*"):
        assert str(mirror) not in path.read_text(), path.name
    again = build(recipe, "--data-root", mirror, "--json")
    assert json.loads(again.stdout)["ran"] == []


def test_without_the_mirror_the_same_build_asks_the_network(recipe: Path) -> None:
    message = one_line_error(build(recipe))
    assert message.startswith("Cannot download https://texts.invalid/old/tales.jsonl: ")


def test_what_a_mirror_gave_is_not_asked_for_again(recipe: Path, mirror: Path) -> None:
    """Outputs of sources with a digest are the same with and without the mirror."""
    assert build(recipe, "--stage", "tales", "--data-root", mirror).returncode == 0
    content = yaml.safe_load(recipe.read_text())
    del content["stages"]["exam"]
    content["stages"]["clean"] = {"kind": "filter", "inputs": ["tales"]}
    recipe.write_text(yaml.safe_dump(content))
    done = build(recipe, "--stage", "text", "--json")
    assert json.loads(done.stdout)["ran"] == ["clean", "text"], done.stderr


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("address", "The source tales has changed under its name: the recipe states the digest "),
        ("no address", "The source letters: the data root has neither "),
        ("no repository", "The source set: there is nothing for hf:org/set@"),
        ("no exam", "The source exam: there is nothing for hf:org/exam@v1.0/test.jsonl in the data root."),
    ],
)
def test_what_a_mirror_lacks_or_has_otherwise_is_named(recipe: Path, mirror: Path, damage: str, says: str) -> None:
    match damage:
        case "address":
            write_texts(mirror / "tales.jsonl", seed=9)
        case "no address":
            next(path for path in mirror.iterdir() if len(path.name) == 64).unlink()
        case "no repository":
            shutil.rmtree(mirror / "org" / "set")
        case _:
            (mirror / "org" / "exam" / "test.jsonl").unlink()
    done = build(recipe, "--data-root", mirror)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"Error: {says}")  # after what was built before it
