"""Recipes that ship with the package, and the text that they train on."""

from importlib.resources import files

_FOLDER = files("commonweight.workshop.recipe") / "recipes"


def list_shipped() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def read_shipped(name: str) -> str:
    """The text of a recipe that ships."""
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
