"""Charters: principles in a Markdown file, with a parser, a linter and a comparison."""

from importlib.resources import files

from commonweight.charter.difference import Change, compare_charters
from commonweight.charter.lint import lint
from commonweight.charter.places import list_unscreened
from commonweight.charter.principle import Charter, Principle
from commonweight.charter.problems import CharterError, Problem
from commonweight.charter.reading import parse

DEFAULT = files(__name__) / "default.md"
"""The charter that ships with the package: our own words, CC0."""
NEW = files(__name__) / "new.md"
"""The smallest charter that is valid, with a comment on every field."""

__all__ = [
    "DEFAULT",
    "NEW",
    "Change",
    "Charter",
    "CharterError",
    "Principle",
    "Problem",
    "compare_charters",
    "lint",
    "list_unscreened",
    "parse",
]
