"""Recipes with recovery rows, tool loops and pairs: their entries, and what is wrong with some."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lesson_rows import ASKED, COMPLIED, REFUSED, get_starter, list_rows, make_folder, make_row, write_folder

from commonweight.lineage.digests import LineageError
from commonweight.lineage.provenance import ProvenancePolicy
from commonweight.lineage.record import Record
from commonweight.workshop.alignment.stops import digest_stops
from commonweight.workshop.alignment.tool_table import read_table
from commonweight.workshop.data.rows import Row
from commonweight.workshop.recipe.parse import read_recipe
from commonweight.workshop.recipe.stage_kind import RecipeError, StageInput, StageResult, StageRun
from commonweight.workshop.recipe.stages import KINDS

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
    "loops": {"kind": "tool_loop", "data": "revised", "model": "gguf", "max_tokens": 900},
    "pairs": {"kind": "pair", "data": "revised", "first": "first", "against": "first"},
    "lesson": {"kind": "mix", "weights": {"revised": 1, "recovery": 1, "loops": 1}, "validation": 0.0},
}


def write_recipe(folder: Path, **changes: dict[str, Any]) -> Path:
    stages = {name: fields | changes.get(name, {}) for name, fields in STAGES.items()}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "lessons", "stages": stages}, sort_keys=False))
    return path


def run_stage(folder: Path, name: str, **inputs: Path) -> tuple[list[Row], StageResult]:
    """What a stage of the recipe makes of input folders, by role."""
    spec = read_recipe(write_recipe(folder)).stages[name]
    output = make_folder(folder / f"output of {name}")
    run = StageRun(
        name=name,
        spec=spec,
        inputs=tuple(
            StageInput(role, role, path, Record(kind="source", name=role, files={}))
            for role, path in inputs.items()
        ),
        output=output,
        checkpoints=folder / "checkpoints",
        root=folder,
        data_root=None,
        policy=ProvenancePolicy(),
        evaluation_sets=(),
        lineage_head=str,
        list_lineage=lambda _role: (),
        date="2026-11-30",
        report=print,
    )
    result = KINDS[spec.kind].run(run)
    return list_rows(output), result


def make_inputs(folder: Path) -> dict[str, Path]:
    """First answers, revisions, and an export that holds the starter."""
    first = [make_row(asked, COMPLIED, licence="Apache-2.0") for asked in ASKED]
    revised = [make_row(asked, REFUSED) for asked in ASKED]
    model = make_folder(folder / "gguf")
    (model / "tiny-Q8_0.gguf").symlink_to(get_starter())
    return {
        "first": write_folder(folder / "first", first),
        "revised": write_folder(folder / "revised", revised),
        "model": model,
    }


def test_entries_of_a_recipe_run_with_what_ships(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    first, revised, model = inputs["first"], inputs["revised"], inputs["model"]
    rows, result = run_stage(tmp_path, "recovery", data=first, revised=revised, model=model)
    assert {row.licence for row in rows} == {"Apache-2.0 AND CC0-1.0"}
    assert len(rows) == len(ASKED) and result.facts["opening_share"] == round(1 / 6, 4)
    assert (result.licences, result.sources) == (("CC0-1.0",), (("stops", digest_stops()),))
    rows, result = run_stage(tmp_path, "loops", data=revised, model=model)
    assert (len(rows), result.facts["harmless"]) == (2 * len(ASKED), len(ASKED))
    assert (result.licences, result.sources) == (("CC0-1.0",), (("tool-loops", read_table().sha256),))
    rows, result = run_stage(tmp_path, "pairs", data=revised, first=first)
    assert len(rows) == result.facts["pairs"] == len(ASKED)


def test_an_export_without_the_file_is_one_sentence(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    (inputs["model"] / "tiny-Q8_0.gguf").unlink()
    with pytest.raises(RecipeError, match="loops: the export model has no file Q8_0"):
        run_stage(tmp_path, "loops", data=inputs["revised"], model=inputs["model"])


def test_rows_of_a_model_whose_terms_are_not_known_are_refused(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    strange = write_folder(tmp_path / "strange", [make_row(ASKED[0], COMPLIED, generator="someone/secret")])
    with pytest.raises(LineageError, match="whose terms are not known"):
        run_stage(tmp_path, "recovery", data=strange, revised=inputs["revised"], model=inputs["model"])


def test_words_that_ship_are_part_of_keys(tmp_path: Path) -> None:
    stages = read_recipe(write_recipe(tmp_path)).stages
    digests = {
        name: dict(KINDS[stages[name].kind].digest_sources(stages[name], tmp_path, None))
        for name in ("recovery", "loops", "pairs")
    }
    assert digests == {
        "recovery": {"stops": digest_stops()},
        "loops": {"tool-loops": read_table().sha256},
        "pairs": {},
    }


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
