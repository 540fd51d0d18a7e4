"""Entries of the stages that train a model further: problems by line, the schema, differences, and no library."""

import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from commonweight.workshop.recipe.difference import compare_builds
from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.schema import Recipe, make_schema
from commonweight.workshop.recipe.stage_kind import RecipeError

TUNED = """name: tuned
stages:
  talks: {kind: source, from: talks.jsonl, licence: MIT}
  base: {kind: import, from: starter, model_id: example/base, licence: Apache-2.0}
  chat:
    kind: sft
    data: talks
    model: base
    lora: {r: 8, lora_alpha: 16, target_modules: [q_proj, v_proj], use_rslora: true}
    trl: {lr_scheduler_type: cosine, weight_decay: 0.01, gradient_accumulation_steps: 2}
  better:
    kind: preference
    data: talks
    ordinary: talks
    model: chat
    losses: {ipo: 1.0, sft: 0.2}
  shipped:
    kind: adapter
    model: base
    from: package:example/adapter
    licence: Apache-2.0
"""


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("use_rslora: true", "rslora: true", "tuned.yaml:9: stages.chat.lora.rslora: this key is unknown"),
        ("r: 8", "r: 0", "tuned.yaml:9: stages.chat.lora.r: "),
        (
            "weight_decay: 0.01",
            "output_dir: x",
            "tuned.yaml:10: stages.chat.trl: output_dir is not taken from trl",
        ),
        ("steps: 2", "steps: 3", "tuned.yaml:6: stages.chat: batch_size (8) must be a multiple"),
        ("ipo: 1.0", "kto: 1.0", "tuned.yaml:16: stages.better.losses.kto: "),
        ("    ordinary: talks\n", "", "stages.better.ordinary: this key is missing"),
        ("ordinary: talks", "ordinary: base", "the stage 'base' is of the kind import"),
        ("model: chat", "model: talks", "the stage 'talks' is of the kind source"),
        ("    licence: Apache-2.0\n", "", "stages.shipped.licence: this key is missing"),
    ],
)
def test_problems_are_named_by_line(before: str, after: str, problem: str) -> None:
    assert before in TUNED
    with pytest.raises(RecipeError) as caught:
        parse_recipe(TUNED.replace(before, after).encode(), "tuned.yaml")
    assert problem in str(caught.value)


def test_the_schema_knows_the_fields() -> None:
    validator = jsonschema_rs.Draft202012Validator(make_schema())
    content = yaml.safe_load(TUNED)
    assert validator.is_valid(content)
    assert Recipe.model_validate(content).stages["chat"].kind == "sft"
    content["stages"]["chat"]["lora"]["rank"] = 8
    assert not validator.is_valid(content)


def test_differences_name_the_fields(tmp_path: Path) -> None:
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text(TUNED)
    after.write_text(TUNED.replace("r: 8", "r: 4").replace("weight_decay: 0.01", "weight_decay: 0.1"))
    assert compare_builds(before, after) == [
        "stages.chat.lora.r: 8 -> 4",
        "stages.chat.trl.weight_decay: 0.01 -> 0.1",
    ]


def test_reading_and_comparing_import_no_training_library(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(TUNED)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from commonweight.workshop.recipe.difference import compare_builds\n"
        "from commonweight.workshop.recipe.schema import make_schema\n"
        f"make_schema(), compare_builds(Path({str(recipe)!r}), Path({str(recipe)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'pyarrow') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "[]\n"
