"""``commonweight models``."""

from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from commonweight.catalog.checksum import sha256_of
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.hub import cached
from commonweight.catalog.locate import locate, starter
from commonweight.catalog.model import ModelCard


def list_models() -> None:
    """Print the models that need no download."""
    table = Table("model", "size", "serve it with", box=None, pad_edge=False)
    first = starter()
    if first is not None:
        _row(table, first, "commonweight serve")
    for path in cached():
        _row(table, path, f"commonweight serve --model {path}")
    console = Console()
    console.print(table)
    console.print("\nAny other GGUF file works by its path, and hf:org/repo/file.gguf pulls one.", style="dim")


def _row(table: Table, path: Path, command: str) -> None:
    table.add_row(path.stem, decimal(path.stat().st_size), command)


def show_model(reference: str | None) -> None:
    """Print what a model's file says about it."""
    gguf = Gguf(locate(reference))
    card = ModelCard.of(gguf)
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
        ("sha256", sha256_of(card.path)),
        ("template", card.chat_template or "none: answers continue a plain transcript"),
    ):
        table.add_row(name, Text(value))  # as it is: templates are full of brackets
    Console().print(table)
