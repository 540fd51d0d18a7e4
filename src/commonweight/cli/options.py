"""Options that several commands have. Light, because every command's help needs them."""

from pathlib import Path
from typing import Annotated

import typer

DATA_PANEL = "Data"

DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Folder for what the server keeps. Default: this user's data folder.",
        file_okay=False,
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="COMMONWEIGHT_DATABASE",
        help="Such as `postgresql+asyncpg://user@host/name`. Default: a SQLite file in the data folder.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
