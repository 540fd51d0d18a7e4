"""The recipes of the starter, and what an export takes over from the release that it is for."""

from typing import Any

import pytest
import yaml

from commonweight.workshop.recipe.parse import parse_recipe
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.shipped import list_shipped, read_shipped
from commonweight.workshop.recipe.stage_kind import RecipeError
from commonweight.workshop.recipe.stages.export import ExportStage

STARTER = "HuggingFaceTB/SmolLM2-135M-Instruct"


def read_export(content: dict[str, Any]) -> ExportStage:
    stage = Recipe.model_validate(content).stages["gguf"]
    assert isinstance(stage, ExportStage)
    return stage


@pytest.fixture
def content() -> dict[str, Any]:
    loaded = yaml.safe_load(read_shipped("starter"))
    assert isinstance(loaded, dict)
    return loaded


def test_every_recipe_that_ships_is_read() -> None:
    assert list_shipped() == ["align-starter", "align-tiny", "finetune", "starter", "starter-evals", "tiny"]
    for name in list_shipped():
        assert parse_recipe(read_shipped(name).encode(), name).name == name


def test_the_starter_needs_nothing_from_a_network(content: dict[str, Any]) -> None:
    locations = [stage["from"] for stage in content["stages"].values() if "from" in stage]
    assert all(location == "starter" or location.startswith("package:commonweight/") for location in locations)


def test_an_export_states_licence_and_base_of_its_release(content: dict[str, Any]) -> None:
    assert read_export(content).make_metadata() == {
        "general.license": "Apache-2.0",
        "general.base_model.0.name": "SmolLM2-135M-Instruct",
        "general.base_model.0.organization": "HuggingFaceTB",
        "general.base_model.0.repo_url": f"https://huggingface.co/{STARTER}",
    }


def test_a_recipe_that_was_written_out_is_the_same(content: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(content)
    assert Recipe.model_validate(recipe.model_dump(mode="json", by_alias=True)) == recipe


def test_the_base_is_that_of_the_import_behind_what_was_trained(content: dict[str, Any]) -> None:
    del content["release"]["base_model"]
    content["stages"]["chat"] = {"kind": "sft", "data": "text", "model": "base"}
    content["stages"]["gguf"]["model"] = "chat"
    recipe = Recipe.model_validate(content)
    assert recipe.release is not None
    assert (read_export(content).base_model, recipe.release.base_model) == (STARTER, STARTER)


def test_what_an_export_states_itself_stays(content: dict[str, Any]) -> None:
    content["stages"]["gguf"] |= {"licence": "MIT", "base_model": "lone"}
    metadata = read_export(content).make_metadata()
    assert metadata == {"general.license": "MIT", "general.base_model.0.name": "lone"}


def test_without_a_release_nothing_is_stated(content: dict[str, Any]) -> None:
    del content["release"]
    assert read_export(content).make_metadata() == {}


def test_models_from_random_weights_have_no_base() -> None:
    content = yaml.safe_load(read_shipped("tiny"))
    assert read_export(content).base_model is None


@pytest.mark.parametrize("model", [None, 3, "gguf", "nobody", ["base"]])
def test_an_odd_reference_is_a_problem_of_the_recipe(content: dict[str, Any], model: object) -> None:
    del content["release"]["base_model"]
    content["stages"]["gguf"]["model"] = model
    with pytest.raises(RecipeError, match="gguf"):
        parse_recipe(yaml.safe_dump(content).encode(), "starter")


@pytest.mark.parametrize("export", [None, 3, ["gguf"], "nobody", "base"])
def test_an_odd_export_is_a_problem_of_the_recipe(content: dict[str, Any], export: object) -> None:
    content["release"]["export"] = export
    with pytest.raises(RecipeError, match="release"):
        parse_recipe(yaml.safe_dump(content).encode(), "starter")
