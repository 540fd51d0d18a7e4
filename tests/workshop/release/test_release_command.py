"""`commonweight release` on folders that cannot be released: one sentence each."""

import json
from pathlib import Path
from typing import Any

import pytest

from command import one_line_error, run
from commonweight.lineage.build_folder import BuildFolder
from lineage_builds import write_build

pytestmark = pytest.mark.workshop

RECIPE: dict[str, Any] = {
    "name": "small",
    "stages": {
        "pages": {"kind": "source", "from": "pages.jsonl", "format": "text", "licence": "CC0-1.0"},
        "text": {"kind": "mix", "weights": {"pages": 1}},
        "words": {"kind": "tokenizer", "data": "text", "vocab_size": 512},
        "base": {"kind": "pretrain", "data": "text", "tokenizer": "words", "tokens": 100_000},
        "gguf": {"kind": "export", "model": "base", "text": "text", "name": "x"},
    },
}


def test_a_folder_without_a_build_is_not_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert one_line_error(run("release", ".")) == ". is no build folder: it has no recipe.json."


def test_a_build_that_is_not_finished_is_not_released(tmp_path: Path) -> None:
    folder = BuildFolder(tmp_path / "build")
    write_build(folder.path)
    recipe = folder.path / "recipe.json"
    recipe.write_text("{")
    assert "is not what a build wrote" in one_line_error(run("release", folder.path))
    recipe.write_text(json.dumps(RECIPE))
    assert one_line_error(run("release", folder.path)) == "The recipe small has no section `release`."
    section = dict.fromkeys(("title", "description", "limitations"), "x")
    section |= {"name": "x", "export": "gguf", "licence": "CC0-1.0"}
    recipe.write_text(json.dumps(RECIPE | {"release": section}))
    said = one_line_error(run("release", folder.path))
    assert said == "The stage text is not done; run `commonweight build` first."
