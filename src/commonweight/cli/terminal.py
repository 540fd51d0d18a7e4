"""Output that the commands share: consoles for people, JSON for programs."""

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def make_console(*, stderr: bool = False) -> "Console":
    """Make a console that prints text as it is: brackets and :words: in paths and answers are no markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_json(value: dict[str, Any]) -> None:
    """Print a JSON object for programs: in ASCII, so that it is the same in every locale."""
    typer.echo(json.dumps(value, indent=2))
