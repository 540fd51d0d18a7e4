"""Recipes whose training is replaced by adapters that ship: what is built then, and what is not needed."""

from collections.abc import Iterable, Mapping
from typing import Any

from commonweight.workshop.recipe.plan import order_stages
from commonweight.workshop.recipe.schema import Recipe
from commonweight.workshop.recipe.stage_kind import EVALUATION_SETS, GUARDS, MEASUREMENTS, RecipeError, Stage


def replace_training(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Put the adapters of the section ``shipped`` in place of the stages that made them.

    Returns:
        The recipe without stages that nothing needs any more, and the stages that are wanted of it: those that
        nothing but a measurement uses. Measurements, and guards, which are made of texts that do not ship, stay in
        the recipe, to be run by their name.

    Raises:
        RecipeError: nothing ships for this recipe.
    """
    if not recipe.shipped:
        raise RecipeError(
            f"The recipe {recipe.name} has no section `shipped`: there is nothing to use in place of it."
        )
    content: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude={"shipped"})
    for name, adapter in recipe.shipped.items():
        replaced = content["stages"][name]
        content["stages"][name] = {
            "kind": "adapter",
            "model": replaced["model"],
            **adapter.model_dump(mode="json", by_alias=True),
        }
    whole = Recipe.model_validate(content)
    named = [] if recipe.release is None else [recipe.release.export, *recipe.release.evaluations]
    needed = set(order_stages(whole, (*_list_last(recipe.stages), *named)))
    content["stages"] = {name: stage for name, stage in content["stages"].items() if name in needed}
    makers = {name: one for name, one in recipe.stages.items() if one.kind not in (*MEASUREMENTS, *GUARDS)}
    wanted = tuple(name for name in _list_last(makers) if recipe.stages[name].kind not in EVALUATION_SETS)
    return Recipe.model_validate(content), wanted


def _list_last(stages: Mapping[str, Stage]) -> Iterable[str]:
    """Stages that none of the others uses."""
    used = {reference.stage for stage in stages.values() for reference in stage.list_references()}
    return [name for name in stages if name not in used]
