"""``commonweight doctor``."""

import asyncio
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from commonweight.cli import checks
from commonweight.cli.checks import Finding, Status
from commonweight.cli.data import Data
from commonweight.cli.loading import Setup
from commonweight.cli.serve import listener_at
from commonweight.cli.terminal import UserError, plain_console

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(setup: Setup, data: Data, *, host: str, port: int) -> bool:
    """Print what a server would meet with here; whether it would start."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    is_well = True
    for finding in _findings(setup, data, host, port):
        is_well &= finding.status != "fail"
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n-> {finding.advice}", style="bold")
        table.add_row(Text(finding.status, style=_STYLES[finding.status]), finding.subject, text)
    console = plain_console()
    console.print(table)
    console.print("\nA server would start." if is_well else "\nA server would not start.")
    return is_well


def _findings(setup: Setup, data: Data, host: str, port: int) -> Iterator[Finding]:
    yield checks.versions()
    yield checks.processor()
    yield checks.gpu()
    yield checks.free_memory()
    yield from checks.model(setup)
    yield _port(host, port)
    yield checks.data_folder(data)
    yield checks.cache_folder()
    yield asyncio.run(checks.database(data))
    yield checks.tracing()


def _port(host: str, port: int) -> Finding:
    try:
        listener_at(host, port).close()
    except UserError as error:
        return Finding("address", "fail", str(error))
    return Finding("address", "ok", f"{host}:{port} is free")
