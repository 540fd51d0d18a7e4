"""Recipes that use what ships in place of training: which stages stay, and which are built."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tuned_recipe import make_tuned_recipe

from commonweight.lineage.provenance import EvaluationSet
from commonweight.workshop.data.rows import DataError
from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.plan import list_evaluation_sets, order_stages
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.shipped_stages import replace_training
from commonweight.workshop.recipe.stage_kind import RecipeError

ADAPTER = {"from": "package:commonweight/adapter", "sha256": "0" * 64, "licence": "Apache-2.0"}


def make_content(**more: Any) -> dict[str, Any]:
    """A recipe whose fine-tuning ships, measured before and after."""
    content = make_tuned_recipe(
        held_out={"kind": "evaluation_set", "from": "held.jsonl", "format": "text", "licence": "CC0-1.0"},
        first={"kind": "export", "model": "base", "text": "text", "name": "first"},
        before={"kind": "evaluate", "model": "first", "tasks": [{"task": "bits_per_byte", "dataset": "held_out"}]},
        after={"kind": "evaluate", "model": "gguf", "tasks": [{"task": "bits_per_byte", "dataset": "held_out"}]},
    )
    return content | {"shipped": {"chat": ADAPTER}} | more


def test_an_adapter_takes_the_place_of_training_and_of_its_rows() -> None:
    recipe, wanted = replace_training(Recipe.model_validate(make_content()))
    stage: Any = recipe.stages["chat"]
    assert (stage.kind, stage.model, stage.location) == ("adapter", "base", ADAPTER["from"])
    assert (stage.sha256, stage.licence) == (ADAPTER["sha256"], "Apache-2.0")
    assert {"asked", "lessons"} & recipe.stages.keys() == set()
    assert {"pages", "base", "gguf", "after", "before"} <= recipe.stages.keys()
    assert recipe.shipped == {}
    assert wanted == ("gguf", "first")
    assert "after" not in order_stages(recipe, wanted)


def test_what_only_the_training_used_is_not_built() -> None:
    content = make_content(shipped={"better": ADAPTER, "chat": ADAPTER})
    pairs = {"kind": "source", "from": "pairs.jsonl", "format": "preference", "licence": "CC0-1.0"}
    better = {"kind": "preference", "data": "pairs", "ordinary": "lessons", "model": "chat"}
    final = {"kind": "export", "model": "better", "text": "text", "name": "final"}
    del content["stages"]["after"], content["stages"]["before"]
    content["stages"] |= {"pairs": pairs, "better": better, "final": final}
    recipe, wanted = replace_training(Recipe.model_validate(content))
    assert set(wanted) == {"gguf", "first", "final"}
    assert [stage.kind for stage in recipe.stages.values()].count("adapter") == 2
    assert not {"pairs", "lessons", "asked"} & recipe.stages.keys()


def test_neither_guards_nor_files_of_measurements_are_needed(tmp_path: Path) -> None:
    content = make_content()
    content["stages"]["guard"] = {"kind": "guard", "model": "gguf", "texts": ["labelled"]}
    content["stages"]["after"]["guard"] = "guard"
    content["stages"]["held_out"]["sha256"] = "1" * 64
    recipe, wanted = replace_training(Recipe.model_validate(content))
    assert wanted == ("gguf", "first")
    assert "guard" in recipe.stages
    assert list_evaluation_sets(recipe, tmp_path, None) == (EvaluationSet("held_out", "1" * 64),)
    path = tmp_path / content["stages"]["held_out"]["from"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"text": "Something else."}\n')
    with pytest.raises(DataError, match="has changed under its name"):
        list_evaluation_sets(recipe, tmp_path, None)
    path.unlink()
    del content["stages"]["held_out"]["sha256"]
    with pytest.raises(DataError, match="there is nothing for"):
        list_evaluation_sets(Recipe.model_validate(content), tmp_path, None)


def test_figures_of_a_release_stay() -> None:
    release = {
        **{"name": "small", "title": "Small", "licence": "Apache-2.0", "description": "d", "limitations": "l"},
        **{"export": "gguf", "evaluations": ["after"]},
    }
    recipe, _ = replace_training(Recipe.model_validate(make_content(release=release)))
    assert recipe.release is not None
    assert "after" in recipe.stages


def test_a_recipe_for_which_nothing_ships() -> None:
    with pytest.raises(RecipeError, match=r"^The recipe small has no section `shipped`: .*\.$"):
        replace_training(Recipe.model_validate(make_tuned_recipe()))


@pytest.mark.parametrize(
    ("shipped", "problem"),
    [
        ({"other": ADAPTER}, "shipped.other: the recipe has no stage 'other'"),
        (
            {"base": ADAPTER},
            "shipped.base: the stage 'base' is of the kind pretrain; sft or preference is wanted here",
        ),
        ({"chat": {**ADAPTER, "sha256": "12"}}, "shipped.chat.sha256: it must match ^[0-9a-f]{64}$"),
        ({"chat": {"from": "a", "licence": "MIT"}}, "shipped.chat.sha256: this key is missing"),
    ],
)
def test_a_section_that_is_wrong_is_named(shipped: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(yaml.safe_dump(make_content(shipped=shipped)).encode(), "R")
    assert str(error.value).partition(": ")[2] == problem
