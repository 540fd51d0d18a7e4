"""``commonweight conformance``: checks of a server against the contract of the Messages API."""

import asyncio
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from commonweight.cli.terminal import make_console
from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from commonweight.conformance import Outcome

EXTRA = ("anthropic", "httpx", "jsonschema_rs")
"""What the suite needs and a server does not."""


@dataclass
class ConformanceReport:
    """Outcomes of all checks."""

    url: str
    model: str
    sdk: str
    outcomes: list["Outcome"] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(outcome.status != "failed" for outcome in self.outcomes)

    def group_by_section(self) -> dict[str, list["Outcome"]]:
        """Outcomes by section, in the order they came."""
        sections: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            sections.setdefault(outcome.check.section, []).append(outcome)
        return sections


def conformance(
    url: str, *, api_key: str | None, model: str | None, sections: Sequence[str], as_json: bool
) -> bool:
    """Run the suite, or some of its sections, and print the outcomes. Returns whether no check failed."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the conformance suite needs {' and '.join(missing)}; install with: "
            "pip install 'commonweight[conformance]'"
        )
    report = asyncio.run(_run(url, api_key, model, sections))
    if as_json:
        print_json(report)
    else:
        print_table(report)
    return report.passed


async def _run(url: str, api_key: str | None, model: str | None, wanted: Sequence[str]) -> ConformanceReport:
    import anthropic
    import httpx

    from commonweight.conformance import SECTIONS, WrongKeyError, open_target, run

    if unknown := [name for name in wanted if name not in SECTIONS]:
        raise UserError(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    checks = [check for name in wanted or SECTIONS for check in SECTIONS[name]]
    try:
        async with open_target(url, api_key, model) as target:
            report = ConformanceReport(url, target.model, anthropic.__version__)
            with make_console(stderr=True).status("") as status:
                async for outcome in run(target, checks):
                    report.outcomes.append(outcome)
                    status.update(f"{len(report.outcomes)} of {len(checks)}: {outcome.check.section}")
            return report
    except WrongKeyError as error:
        raise UserError(f"{error}; say which with --api-key") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise UserError(f"cannot reach {url}: {error}") from error


def print_table(report: ConformanceReport) -> None:
    """Print a row for each section, and the failures beneath."""
    table = Table("passed", "of", "n/a", "section", title=f"{report.model} at {report.url}")
    for column in table.columns[:3]:
        column.justify = "right"
    for name, outcomes in report.group_by_section().items():
        table.add_row(*_count_outcomes(outcomes), _list_failures(name, outcomes))
    table.add_section()
    table.add_row(*_count_outcomes(report.outcomes), "all", style="bold")
    make_console().print(table)


def _list_failures(name: str, outcomes: Sequence["Outcome"]) -> Text:
    lines = Text(name, style="bold")
    for outcome in outcomes:
        if outcome.status == "failed":
            lines.append(f"\n{outcome.check.name}", style="red not bold")
            lines.append(f": {outcome.why}", style="dim not bold")
    return lines


def _count_outcomes(outcomes: Sequence["Outcome"]) -> tuple[str, str, str]:
    statuses = [outcome.status for outcome in outcomes]
    without = statuses.count("not applicable")
    return str(statuses.count("passed")), str(len(statuses) - without), str(without or "")


def print_json(report: ConformanceReport) -> None:
    """Print the outcomes as JSON."""
    make_console().print(
        json.dumps(
            {
                "url": report.url,
                "model": report.model,
                "sdk": report.sdk,
                "passed": report.passed,
                "sections": {
                    name: [_to_json(outcome) for outcome in outcomes]
                    for name, outcomes in report.group_by_section().items()
                },
            },
            indent=2,
        ),
        soft_wrap=True,
    )


def _to_json(outcome: "Outcome") -> dict[str, Any]:
    check = outcome.check
    return {
        "name": check.name,
        "rule": check.rule,
        "status": outcome.status,
        "why": outcome.why,
        "seconds": round(outcome.seconds, 3),
    }
