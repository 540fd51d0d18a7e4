"""``commonweight doctor``: checks of this machine as a table."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from commonweight.cli.terminal import make_console, print_json
from commonweight.runtime.checks import run_checks
from commonweight.runtime.data import DataFolder
from commonweight.runtime.findings import Finding, Status
from commonweight.runtime.settings import AssistantSettings

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(settings: AssistantSettings, data: DataFolder, *, host: str, port: int, as_json: bool) -> bool:
    """Print what the checks find; whether a server would start."""
    if as_json:
        return _print_findings(list(run_checks(settings, data, host, port)))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    is_well = True
    for finding in run_checks(settings, data, host, port):
        is_well &= finding.status != "fail"
        text = Text(finding.text)
        if finding.advice:
            text.append(f"\n-> {finding.advice}", style="bold")
        table.add_row(Text(finding.status, style=_STYLES[finding.status]), finding.subject, text)
    console = make_console()
    console.print(table)
    console.print("\nA server would start." if is_well else "\nA server would not start.")
    return is_well


def _print_findings(findings: Sequence[Finding]) -> bool:
    is_well = all(finding.status != "fail" for finding in findings)
    print_json({"would_start": is_well, "checks": [asdict(finding) for finding in findings]})
    return is_well
