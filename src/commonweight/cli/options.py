"""Options that several commands share. Imports nothing heavy, as every command's help needs them."""

import re
from pathlib import Path
from typing import Annotated

import typer

DATA_PANEL = "Data"

DataPath = Annotated[
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
        help="Such as `postgresql://user@host/name`. Default: a SQLite file in the data folder.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for programs.")]

_POWERS = {unit: power for power, unit in enumerate(("", "K", "M", "G", "T"))}


def parse_size(text: str | int) -> int:
    """Parse a size, such as "4GiB", "1.5 gb" or "1048576", to bytes. Typer parses defaults, too."""
    if isinstance(text, int):
        return text
    if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(I?)B|B?)", text.strip().upper(), re.ASCII):
        number, unit, binary = match.groups(default="")
        return int(float(number) * (1024 if binary else 1000) ** _POWERS[unit])
    raise typer.BadParameter(f"{text!r} is no size; write for example 4GiB, 500MB or plain bytes.")


WHICH_MODEL = "`starter` (default), a GGUF file or its folder, `hf:org/repo[:QUANT]` or `hf:org/repo/file.gguf`."
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=WHICH_MODEL,
        show_default=False,
    ),
]
