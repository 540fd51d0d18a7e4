"""``commonweight charter test``: what a charter asks of its guard, tried on labelled texts."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from commonweight.charter import Charter
from commonweight.charter.principle import Requirement
from commonweight.cli.data import Data
from commonweight.cli.guarding import Guarding
from commonweight.cli.loading import Setup, open_assistant
from commonweight.cli.measuring import Scored, measured
from commonweight.cli.terminal import UserError, plain_console
from commonweight.guard.measures import estimate_share
from commonweight.guard.sources import SourceError, TextSource, find_files, read_source


def tried(
    charter: Charter,
    file: Path | None,
    bundle: Path | None,
    texts: Sequence[Path],
    model: str | None,
    most: int | None,
    data: Path | None,
    console: Console,
) -> bool:
    """Whether every test that there is data for holds; a table of all of them goes to the console."""
    asked: list[tuple[str | None, Requirement]] = [(None, one) for one in charter.tests]
    asked += [(principle.id, one) for principle in charter.principles for one in principle.tests]
    try:
        sources = {one.name: one for one in map(read_source, find_files(list(texts)))}
    except SourceError as error:
        raise UserError(str(error)) from error
    wanted = [sources[name] for name in dict.fromkeys(one.data for _, one in asked) if name in sources]
    setup = Setup(model, 4096, cache_disk=0, guarding=Guarding("enforce", file, bundle))
    scored = asyncio.run(_measured(setup, wanted, most, Data.at(data, None)))
    table = Table("principle", "data", "asked", "found", "", box=box.SIMPLE_HEAD, pad_edge=False)
    passed = True
    for principle, one in asked:
        for wants_harmful, limit in ((False, one.most_refused), (True, one.least_refused)):
            if limit is None:
                continue
            name = principle or "all"
            what = f"{'at least' if wants_harmful else 'at most'} {limit:.1%} refused"
            if one.data not in scored:
                table.add_row(name, one.data, what, "no data", "", style="dim")
                continue
            rows = [row for row in scored[one.data] if row.row.is_harmful == wants_harmful]
            hits = sum(row.is_refused and principle in (None, row.principle) for row in rows)
            seen = estimate_share(hits, len(rows))
            holds = seen.value >= limit if wants_harmful else seen.value <= limit
            passed &= holds
            interval = f"{seen.value:.1%} of {len(rows)} [{seen.lower:.1%}, {seen.upper:.1%}]"
            table.add_row(name, one.data, what, interval, "holds" if holds else "fails")
    console.print(table)
    return passed


async def _measured(
    setup: Setup, sources: Sequence[TextSource], most: int | None, data: Data
) -> dict[str, list[Scored]]:
    console = plain_console(stderr=True)
    async with open_assistant(setup, console, data=data) as assistant:
        return await measured(assistant, sources, console, most)
