"""``commonweight models``: list and describe local models."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from commonweight.catalog.checksum import compute_sha256
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.gguf_names import list_parts
from commonweight.catalog.header import UnreadableModelError
from commonweight.catalog.hub_cache import list_cached, make_cached_reference
from commonweight.catalog.model import ModelCard
from commonweight.catalog.reference import STARTER
from commonweight.catalog.resolve import resolve
from commonweight.catalog.starter import find_starter
from commonweight.cli.terminal import make_console, print_json
from commonweight.engines.llama.model.load_check import check_loads


def list_models(*, as_json: bool) -> None:
    """Print the models that need no download, each with the command that serves it.

    Files in the hub's cache that cannot be opened are named on standard error.
    """
    found: list[tuple[str, ModelCard]] = []
    for reference, path in _find_local_models():
        try:
            found.append((reference, _read_card(path)))
        except OSError as error:
            make_console(stderr=True).print(f"left out: {error}", style="dim", soft_wrap=True)
    if as_json:
        print_json({"models": [_describe(reference, card) for reference, card in found]})
        return
    console = make_console()
    for reference, card in found:
        command = "commonweight serve"
        if reference != STARTER:
            command += f" --model {shlex.quote(reference)}"
        console.print(f"{reference}  {decimal(_measure(card.path))}  {card.id}", soft_wrap=True)
        console.print(f"    {command}\n", soft_wrap=True)  # in one line, to be copied
    console.print("Others: a GGUF file by its path, hf:org/repo:QUANT or hf:org/repo/file.gguf.", style="dim")


def show_model(reference: str | None, *, as_json: bool) -> None:
    """Print what a model's file says about it."""
    path = resolve(reference)
    check_loads(path)
    card = _read_card(path)
    if as_json:
        more = {"sha256": compute_sha256(path), "chat_template": card.chat_template}
        print_json(_describe(reference or STARTER, card) | more)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in (
        ("id", card.id),
        ("name", card.name),
        ("architecture", card.architecture),
        ("parameters", f"{card.parameters / 1e6:,.0f} million"),
        ("size", decimal(_measure(card.path))),
        ("window", f"{card.trained_window:,} tokens"),
        ("licence", card.licence or "not stated in the file"),
        ("file", str(card.path)),
        ("sha256", compute_sha256(card.path)),
        ("template", card.chat_template or "none: answers continue a plain transcript"),
    ):
        table.add_row(name, value)
    make_console().print(table)


def _find_local_models() -> Iterator[tuple[str, Path]]:
    """Models on this machine, each with the reference that ``--model`` takes."""
    if starter := find_starter():
        yield STARTER, starter
    for path in list_cached():
        yield make_cached_reference(path), path


def _read_card(path: Path) -> ModelCard:
    missing = [part for part in list_parts(path.name) if not path.with_name(part).exists()]
    if missing:
        raise UnreadableModelError(f"{path} has no {missing[0]} beside it")
    with contextlib.closing(Gguf(path)) as gguf:
        return ModelCard.from_gguf(gguf)


def _measure(path: Path) -> int:
    """Bytes of a model's file; of a split one, of all parts."""
    return sum(path.with_name(part).stat().st_size for part in list_parts(path.name))


def _describe(reference: str, card: ModelCard) -> dict[str, Any]:
    return {
        "model": reference,
        "id": card.id,
        "name": card.name,
        "architecture": card.architecture,
        "parameters": card.parameters,
        "size_bytes": _measure(card.path),
        "window": card.trained_window,
        "licence": card.licence,
        "path": str(card.path),
    }
