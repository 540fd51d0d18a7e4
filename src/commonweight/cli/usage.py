"""``commonweight usage``: requests and tokens, by day and key."""

import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

from commonweight.cli.durations import parse_moment
from commonweight.cli.options import AsJson, DatabaseUrl, DataPath
from commonweight.cli.terminal import make_console, print_json
from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from commonweight.store.usage import By, Total

_GROUPS = ("day", "key", "tenant", "model")
_FIGURES = ("requests", "errors", "input_tokens", "cache_write_tokens", "cache_read_tokens", "output_tokens")


def _parse_group(name: str) -> str:
    if name not in _GROUPS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(_GROUPS)}.")
    return name


def usage(
    since: Annotated[
        float | None,
        typer.Option(
            parser=parse_moment,
            metavar="DAY",
            help="From this day on (of UTC), such as 2026-01-31, or for a time, such as 7d.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="ID_OR_NAME", help="Of this key only.", show_default=False)
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this tenant only.", show_default=False)
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            parser=_parse_group,
            metavar="[day|key|tenant|model]",
            help="Totals for each of these; may repeat. Default: day and key.",
            show_default=False,
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", metavar="", help="Print CSV, not a table.")] = False,
    as_json: AsJson = False,
    data: DataPath = None,
    database: DatabaseUrl = None,
) -> None:
    """Show what was used: requests and tokens, by day and key."""
    import asyncio

    from commonweight.runtime.data import DataFolder

    if as_csv and as_json:
        raise UserError("--csv or --json: choose one")
    groups = cast("list[By]", list(dict.fromkeys(by or ("day", "key"))))
    found = asyncio.run(
        _read_totals(DataFolder.from_options(data, database).database_url, groups, since, key, tenant)
    )
    if as_json:
        print_json(
            {
                "usage": [
                    {**total.group, **dict(zip(_FIGURES, _list_figures(total), strict=True))} for total in found
                ]
            }
        )
    elif as_csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow([*groups, *_FIGURES])
        rows.writerows([*total.group.values(), *_list_figures(total)] for total in found)
    else:
        _print(groups, found)


async def _read_totals(
    url: str, by: "Sequence[By]", since: float | None, key: str | None, tenant: str | None
) -> "list[Total]":
    from commonweight.store import Database
    from commonweight.store.usage import compute_totals

    async with Database.open(url) as database:
        return await compute_totals(database, by, since, key, tenant)


def _print(groups: "Sequence[By]", found: "Sequence[Total]") -> None:
    from rich.table import Table

    table = Table(*groups, "requests", "errors", "input", "cache write", "cache read", "output")
    for name, column in zip(groups, table.columns, strict=False):
        column.no_wrap = name == "day"
    for column in table.columns[len(groups) :]:
        column.justify = "right"
    for total in found:
        table.add_row(*total.group.values(), *(f"{figure:,}" for figure in _list_figures(total)))
    if len(found) > 1:
        table.add_section()
        sums = [sum(column) for column in zip(*map(_list_figures, found), strict=True)]
        table.add_row("all", *[""] * (len(groups) - 1), *(f"{figure:,}" for figure in sums), style="bold")
    make_console().print(table)


def _list_figures(total: "Total") -> list[int]:
    return [getattr(total, name) for name in _FIGURES]
