"""Runs from elsewhere as they are given on the command line, and the files that are looked for in them."""

from pathlib import Path

import pytest
from tuned_recipe import make_tuned_recipe

from commonweight.workshop.recipe.imported_runs import make_imported_kinds, parse_runs
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import RecipeError

RECIPE = Recipe.model_validate(make_tuned_recipe())


def test_runs_are_read() -> None:
    assert parse_runs(["chat=a/b=c", "x=."]) == {"chat": Path("a/b=c"), "x": Path()}
    assert parse_runs([]) == {}


@pytest.mark.parametrize("option", ["chat", "=folder", "chat=", ""])
def test_a_run_without_its_parts(option: str) -> None:
    with pytest.raises(RecipeError, match=rf"^A run is given as STAGE=DIR, not as '{option}'\.$"):
        parse_runs([option])


def test_two_runs_of_a_stage() -> None:
    with pytest.raises(RecipeError, match=r"^Two runs are given for the stage chat\.$"):
        parse_runs(["chat=a", "chat=b"])


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("x", r"^The recipe has no stage 'x'; it has pages, .*\.$"),
        ("base", r"^The stage 'base' is of the kind pretrain; runs of sft and preference are imported\.$"),
    ],
)
def test_stages_that_take_no_run(stage: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        make_imported_kinds(RECIPE, {stage: Path()})


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"/missing is no folder of a run\.$"):
        make_imported_kinds(RECIPE, {"chat": tmp_path / "missing"})
    assert make_imported_kinds(RECIPE, {"chat": tmp_path})["chat"].origin == f"imported from {tmp_path}"
