"""``commonweight models``: list and describe local models."""

import shlex
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from commonweight.catalog.checksum import compute_sha256
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.hub import list_cached
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.catalog.starter import find_starter
from commonweight.cli.terminal import make_console
from commonweight.engines.llama.model.load_check import check_loads


def list_models() -> None:
    """Print the models that need no download, each with the command that serves it."""
    console = make_console()
    first = find_starter()
    if first is not None:
        _list(console, first, "commonweight serve")
    for path in list_cached():
        _list(console, path, f"commonweight serve --model {shlex.quote(str(path))}")
    console.print("Others: a GGUF file by its path, hf:org/repo:QUANT or hf:org/repo/file.gguf.", style="dim")


def _list(console: Console, path: Path, command: str) -> None:
    console.print(f"{path.stem}  {decimal(path.stat().st_size)}", soft_wrap=True)
    console.print(f"    {command}\n", soft_wrap=True)  # in one line, to be copied


def show_model(reference: str | None) -> None:
    """Print what a model's file says about it."""
    path = resolve(reference)
    check_loads(path)
    gguf = Gguf(path)
    card = ModelCard.from_gguf(gguf)
    gguf.close()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in (
        ("id", card.id),
        ("name", card.name),
        ("architecture", card.architecture),
        ("parameters", f"{card.parameters / 1e6:,.0f} million"),
        ("size", decimal(card.path.stat().st_size)),
        ("window", f"{card.trained_window:,} tokens"),
        ("licence", card.licence or "not stated in the file"),
        ("file", str(card.path)),
        ("sha256", compute_sha256(card.path)),
        ("template", card.chat_template or "none: answers continue a plain transcript"),
    ):
        table.add_row(name, value)
    make_console().print(table)
