"""Recipes with recovery rows, tool loops and pairs: what is wrong with one, and a whole build."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lesson_rows import ASKED, COMPLIED, REFUSED, list_rows

from commonweight.lineage.build_folder import BuildFolder
from commonweight.workshop.recipe.build import Builder
from commonweight.workshop.recipe.parse import read_recipe
from commonweight.workshop.recipe.stage_kind import RecipeError

pytestmark = pytest.mark.workshop

STAGES: dict[str, dict[str, Any]] = {
    "pages": {"kind": "source", "from": "pages.jsonl", "format": "text", "licence": "CC0-1.0"},
    "first": {"kind": "source", "from": "first.jsonl", "format": "messages", "licence": "Apache-2.0"},
    "revised": {"kind": "source", "from": "revised.jsonl", "format": "messages", "licence": "CC0-1.0"},
    "tokenizer": {"kind": "tokenizer", "data": "pages", "vocab_size": 600},
    "base": {
        **{"kind": "pretrain", "data": "pages", "tokenizer": "tokenizer", "layers": 1, "dim": 64, "heads": 1},
        **{"kv_heads": 1, "context": 64, "batch_tokens": 128, "steps": 4},
    },
    "gguf": {
        **{"kind": "export", "model": "base", "text": "pages", "name": "tiny", "quantisations": ["Q8_0"]},
        "parity": {"tokens": 64, "q8_0": {"mean": 1.0, "p99": 9.0}},
    },
    "recovery": {"kind": "recover", "data": "first", "revised": "revised", "model": "gguf"},
    "loops": {"kind": "tool_loop", "data": "revised", "model": "gguf", "max_tokens": 8000},
    "pairs": {"kind": "pair", "data": "revised", "first": "first", "against": "first"},
    "lesson": {"kind": "mix", "weights": {"revised": 1, "recovery": 1, "loops": 1}, "validation": 0.0},
}


def write_recipe(folder: Path, **changes: dict[str, Any]) -> Path:
    stages = {name: fields | changes.get(name, {}) for name, fields in STAGES.items()}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "lessons", "stages": stages}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Output folders and records of a build, by stage."""
    folder = tmp_path_factory.mktemp("lessons")
    pages = [{"text": f"{asked} {COMPLIED} {REFUSED} Page {number}."} for number, asked in enumerate(ASKED * 9)]
    (folder / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    for name, answer in (("first", COMPLIED), ("revised", REFUSED)):
        lines = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
            for asked in ASKED
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = read_recipe(write_recipe(folder))
    Builder(recipe, BuildFolder(folder / "build"), folder, None, "2026-11-30").build(print, None)
    build = BuildFolder(folder / "build")
    stages: Any = (build.read_status() or {})["stages"]
    return {
        name: (build.get_output(name, stage["key"]), build.find_record(name, stage["key"]))
        for name, stage in stages.items()
    }


def test_a_build_makes_all_rows_with_their_records(built: dict[str, tuple[Path, Any]]) -> None:
    counts = {name: len(list_rows(built[name][0])) for name in ("recovery", "loops", "pairs", "lesson")}
    assert counts["recovery"] == counts["pairs"] == len(ASKED)
    assert counts["loops"] == 2 * len(ASKED)
    assert counts["lesson"] >= counts["loops"]
    licences = {row.licence for row in list_rows(built["recovery"][0])}
    assert licences == {"Apache-2.0 AND CC0-1.0"}
    facts = {name: built[name][1].facts for name in ("recovery", "loops", "pairs")}
    assert facts["recovery"]["opening_share"] <= 0.34
    assert facts["loops"]["harmless"] == len(ASKED)
    assert facts["pairs"]["pairs"] == len(ASKED)
    assert "Apache-2.0" in built["pairs"][1].licences


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": {"against": "samples"}}, "against: first needs a stage of first answers as first"),
        ({"pairs": {"model": "gguf"}}, "rules need no model"),
        ({"pairs": {"ranking": "critic"}}, "name the model that answers"),
        ({"recovery": {"min_tokens": 70}}, "min_tokens is above max_tokens"),
        ({"loops": {"harmless_share": 1.0}}, "less than or equal to 0.9"),
        ({"loops": {"model": "base"}}, "base"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(write_recipe(tmp_path, **changes))
