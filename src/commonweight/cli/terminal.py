"""Output that the commands share: consoles for people, JSON for programs."""

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


MAX_TABLE_WIDTH = 1000


def make_console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """Make a console that prints text as it is: brackets and :words: in paths and answers are no markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def print_table(table: "Table") -> None:
    """Print a table as wide as it is: a narrow terminal wraps its lines, and nothing is cut."""
    from rich.measure import Measurement

    console = make_console(width=MAX_TABLE_WIDTH)
    make_console(width=Measurement.get(console, console.options, table).maximum).print(table)


def print_json(value: dict[str, Any]) -> None:
    """Print a JSON object for programs: in ASCII, so that it is the same in every locale."""
    typer.echo(json.dumps(value, indent=2))
