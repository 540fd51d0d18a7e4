"""The stage ``compare`` in a recipe: what it refers to, and what it says of rows that trained a model."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from small_recipe import build, make_recipe, read_built, write_recipe, write_texts

from commonweight.workshop.recipe.schema import Recipe

HELD_OUT = {"kind": "evaluation_set", "from": "held_out.jsonl", "format": "text", "licence": "CC0-1.0"}
TASK = {"task": "bits_per_byte", "dataset": "held_out"}
COMPARE = {"kind": "compare", "before": "before", "after": "after"}


def make(**compare: Any) -> dict[str, Any]:
    return make_recipe(
        held_out=HELD_OUT,
        base={"context": 256, "batch_tokens": 512},
        more={
            **{"kind": "pretrain", "data": "text", "tokenizer": "tokenizer", "layers": 1, "dim": 64},
            **{"heads": 1, "kv_heads": 1, "context": 256, "batch_tokens": 512, "steps": 10},
            **{"evaluation_interval": 10, "checkpoint_interval": 5},
        },
        base_gguf={"kind": "export", "model": "base", "text": "text", "name": "base"},
        more_gguf={"kind": "export", "model": "more", "text": "text", "name": "more"},
        before={"kind": "evaluate", "model": "base_gguf", "tasks": [{**TASK}]},
        after={"kind": "evaluate", "model": "more_gguf", "tasks": [{**TASK}]},
        gain={**COMPARE, **compare},
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"before_model": "base_gguf"}, "before_model and after_model go together"),
        ({"divergence": {"dataset": "held_out"}}, "the divergence needs before_model and after_model"),
        ({"targets": {"chat_ratio": 0}}, "greater than 0"),
        ({"targets": {"chat": 0.4}}, "Extra inputs are not permitted"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Recipe.model_validate(make(**fields))


def test_it_refers_to_evaluations_exports_and_sets() -> None:
    models = {"before_model": "base_gguf", "after_model": "more_gguf"}
    recipe = Recipe.model_validate(make(**models, divergence={"dataset": "held_out", "field": "text"}))
    found = {item.role: item.stage for item in recipe.stages["gain"].list_references()}
    assert found == {"before": "before", "after": "after", **models, "evaluation": "held_out"}
    with pytest.raises(ValidationError) as error:
        Recipe.model_validate(make(after="more_gguf"))
    (problem,) = error.value.errors()
    assert problem["ctx"]["problems"] == [
        (("stages", "gain", "after"), "the stage 'more_gguf' is of the kind export; evaluate is wanted here")
    ]


@pytest.mark.workshop
def test_a_comparison_in_a_build(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, make())
    # Three of the measured rows are among those that train: of 60 pages, the first three.
    rows = (tmp_path / "pages.jsonl").read_text().splitlines()[:3]
    other = write_texts(tmp_path / "held_out.jsonl", count=2, seed=8)
    other.write_text("".join(f"{row}\n" for row in (*rows, *other.read_text().splitlines())))
    lines: list[str] = []
    assert "gain" in build(path, report=lines.append)
    record = read_built(path)["gain"]
    folder = next((tmp_path / "build" / "outputs" / "gain").iterdir())
    found = json.loads((folder / "comparison.json").read_text())
    (change,) = found["changes"]
    assert (change["task"], change["rates"]["n"], change["errors"]) == ("bits_per_byte", 5, 0)
    assert change["rates"]["ratio"]["low"] <= change["rates"]["ratio"]["value"]
    report = found["contamination"]
    assert report["rows"].keys() == {"text"}
    (measured,) = report["sets"]
    assert (measured["name"], measured["trained"], len(measured["row_ids"])) == ("held_out", 3, 3)
    assert measured["compared_by"] == []
    assert {target["verdict"] for target in found["targets"]} == {"n/a"}
    table = (folder / "comparison.txt").read_text()
    assert "held_out: compared by no filter, 0 rows dropped, 3 rows trained on" in table
    assert any("bits_per_byte" in line for line in lines if line.startswith("gain: "))
    assert {"comparison.json", "comparison.txt"} <= record.files.keys()
    assert build(path) == []

    # A filter that knows the set: those rows train no more, and the comparison is made again.
    content = make()
    content["stages"]["clean"] |= {"evaluation_sets": ["held_out"]}
    write_recipe(tmp_path, content)
    assert "gain" in build(path)
    key = next(iter({*(tmp_path / "build" / "outputs" / "gain").iterdir()} - {folder}))
    (measured,) = json.loads((key / "comparison.json").read_text())["contamination"]["sets"]
    assert (measured["compared_by"], measured["dropped"], measured["trained"]) == (["clean"], 3, 0)
