"""``commonweight guard``: explain, evaluate and trust what the guard decides by."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commonweight.cli.expand_settings import OnlyFields, expand_settings
from commonweight.cli.options import AsJson, DatabaseUrl, DataPath
from commonweight.cli.terminal import make_console, print_json
from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import GuardSettings

if TYPE_CHECKING:
    from commonweight.runtime.data import DataFolder
    from commonweight.runtime.settings import AssistantSettings
    from commonweight.workshop.heads.evaluate import OwnAnswer, ScoredText
    from commonweight.workshop.heads.sources import LabelledSource

commands = typer.Typer(help="Measure the guard, and explain what it decided.", no_args_is_help=True)


@commands.command()
def explain(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="As the client was told it.")],
    charter: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The charter that was served. Default: the package's.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    data: DataPath = None,
    database: DatabaseUrl = None,
) -> None:
    """Replay what the guard saw in one request, and which principle it rests on."""
    import asyncio

    from commonweight.runtime.charter import read_charter
    from commonweight.runtime.data import DataFolder
    from commonweight.store.usage import UsageRecord

    record: UsageRecord | None = asyncio.run(
        _find(DataFolder.from_options(data, database).database_url, request_id)
    )
    if record is None:
        raise UserError(f"there is no record of a request {request_id!r}")
    if as_json:
        guard = None if record.verdict is None else json.loads(record.verdict)
        outcome = record.stop_reason or record.error or "cancelled"
        print_json({"request_id": record.request_id, "outcome": outcome, "guard": guard})
        return
    console = make_console()
    console.print(f"{record.request_id}: {record.stop_reason or record.error or 'cancelled'}", style="bold")
    if record.verdict is None:
        console.print("The guard was off.")
        return
    found: dict[str, Any] = json.loads(record.verdict)
    console.print(
        f"charter {found['charter'][:16]}, bundle {found['bundle'][:16]}, looked with: "
        + ", ".join(["heads", *["encoder"] * found["encoded"], *["judge"] * found["escalated"]]),
        style="dim",
    )
    for what in ("input", "output"):
        if found[f"{what}_score"] is not None:
            console.print(f"{what}: highest probability of a violation {found[f'{what}_score']:.3f}")
    if not found["verdicts"]:
        console.print("No principle was found violated.")
    known = read_charter(charter)
    is_same = known.sha256 == found["charter"]
    for verdict in found["verdicts"]:
        refused = verdict["action"] == "refuse"
        done = (
            "refused"
            if refused and verdict["mode"] == "enforce"
            else "would have refused"
            if refused
            else "recorded"
        )
        by = (
            "phrase: one of the principle's stands there"
            if verdict["stage"] == "phrase"
            else f"{verdict['stage']}: {verdict['score']:.3f}, and {verdict['threshold']:.3f} is enough"
        )
        if verdict.get("lowered_by"):
            by += f" (lowered by {' and '.join(verdict['lowered_by'])})"
        console.print(
            f"\n{verdict['principle']}: {done}, {_format_where(verdict)}\n  {by}",
            soft_wrap=True,
        )
        principle = next((one for one in known.principles if one.id == verdict["principle"]), None)
        if principle is not None and is_same:
            console.print(f"  Restricts: {principle.restricts}\n  Permits: {principle.permits}", soft_wrap=True)
    if not is_same:
        console.print(
            "\nThis charter is not the one that was served then; name that with --charter.", style="yellow"
        )


def _format_where(verdict: dict[str, Any]) -> str:
    """Format the place of a verdict's evidence: block, tool and characters, as far as they are known."""
    from commonweight.charter.places import ANSWER_PLACES

    parts = [verdict["place"]]
    if verdict.get("block"):
        parts.append(f"{verdict['block']} of the {'answer' if verdict['place'] in ANSWER_PLACES else 'request'}")
    if verdict.get("tool"):
        parts.append(f"tool {verdict['tool']}")
    if verdict["span"] is not None:
        start, end = verdict["span"]
        # Records of before blocks were named have spans of tokens where states were read.
        is_text = "block" in verdict or verdict["stage"] == "text"
        parts.append(f"{'characters' if is_text else 'tokens'} {start} to {end}")
    if verdict.get("digest"):
        parts.append(f"text {verdict['digest']}")
    return ", ".join(parts)


async def _find(url: str, request_id: str) -> Any:  # noqa: ANN401 - a record, whose class loads the database
    from commonweight.store import Database
    from commonweight.store.usage import find_usage

    async with Database.open(url) as database:
        return await find_usage(database, request_id)


@commands.command("eval")
@expand_settings
def evaluate(
    paths: Annotated[list[Path], typer.Argument(metavar="DATA...", help="Files of labelled texts, or folders.")],
    guard: Annotated[
        GuardSettings,
        OnlyFields(("charter", "bundle", "judge_url", "judge_model", "judge_key", "judge_timeout")),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Default: the starter.", show_default=False),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="At most so many texts of each source.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Which ones.")] = 0,
    ordinary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Sources of plain harmless prompts, which recall is measured against; may repeat.",
            show_default=False,
        ),
    ] = None,
    answers: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Also let the model answer so many of those, and count what is refused.",
        ),
    ] = 0,
    place: Annotated[
        str,
        typer.Option(metavar="PLACE", help="Where in a request the texts stand: input, tool_result and others."),
    ] = "input",
    all_rows: Annotated[
        bool,
        typer.Option(
            "--all", help="Print every row of the table of figures that can be computed of DATA, resumably."
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="With --all: rows of this group; may repeat.", show_default=False),
    ] = None,
    marks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --all: where the first violating sentence of answers ends, for the rows on streams.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    sessions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --all: agents' sessions, for the rows on those.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A document to write the table into.", show_default=False)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads.", show_default=False)
    ] = None,
    data: DataPath = None,
) -> None:
    """Measure the guard on labelled texts: rates at its own thresholds, and figures that need none.

    Each text is a request to an assistant as a server has it, and all of it is read; one that is longer than the
    model's window counts as not read, and is in no rate. The thresholds are the bundle's, made before any of these
    texts was opened. No text is printed or kept; --all keeps scores, under codes of this installation, so that one
    that was stopped goes on.
    """
    from commonweight.runtime.preflight import check_assistant, check_output, check_readable
    from commonweight.runtime.settings import SELF, AssistantSettings

    if (only or as_json or marks or sessions) and not all_rows:
        raise UserError("--only, --marks, --sessions and --json go with --all")
    if all_rows and (answers or ordinary or place != "input"):
        raise UserError(
            "--all has its own ordinary prompts and places: --answers, --ordinary and --place do not go with it"
        )
    check_assistant(AssistantSettings(model=model, guard=guard))
    check_readable([*paths, marks, sessions])
    if report is not None:
        check_output(report)

    import asyncio

    from commonweight.engines.settings import EngineSettings
    from commonweight.runtime.data import DataFolder
    from commonweight.workshop.heads.evaluate import draw_prompts
    from commonweight.workshop.heads.report import format_report, write_report
    from commonweight.workshop.heads.sources import SourceError, find_files, read_source

    # Texts are each read once. Questions to the served model begin with the same principles, and the requests of
    # a session with what was said before.
    cache_ram = None if guard.judge_url == SELF or sessions else 0
    settings = AssistantSettings(
        model=model, engine=EngineSettings(threads=threads, cache_ram=cache_ram, cache_disk=0), guard=guard
    )
    if all_rows:
        from commonweight.cli.guard_figures import FiguresRequest, measure_figures
        from commonweight.workshop.heads import figure_table

        request = FiguresRequest(paths, only or (), most, seed, marks, sessions)
        subject, figures = asyncio.run(measure_figures(settings, DataFolder.from_options(data), request))
        table = figure_table.format_table(subject, figures)
        if as_json:
            print_json(figure_table.describe_figures(subject, figures))
        else:
            typer.echo(table)
        if report is not None:
            write_report(report, table, (figure_table.BEGIN, figure_table.END))
        return
    try:
        sources = [read_source(path) for path in find_files(paths)]
    except SourceError as error:
        raise UserError(str(error)) from error
    if not sources:
        raise UserError("there are no files of labelled texts: NAME.jsonl or NAME.jsonl.gz")
    names = {one.name for one in sources}
    if unknown := [name for name in ordinary or () if name not in names]:
        raise UserError(f"--ordinary {unknown[0]}: there is no such source; these are {', '.join(sorted(names))}")
    ordinary = ordinary or ORDINARY_SOURCES
    if answers and not names.intersection(ordinary):
        raise UserError("--answers needs ordinary prompts among the texts: name their source with --ordinary")
    prompts = draw_prompts([one for one in sources if one.name in ordinary], answers, seed)
    found = asyncio.run(
        score_sources(settings, DataFolder.from_options(data), sources, most, seed, prompts, place=place)
    )
    text = f"{found.heading}\n\n{format_report(found.scored, ordinary, found.answers)}"
    typer.echo(text)
    if report is not None:
        write_report(report, text)


ORDINARY_SOURCES = ["ifeval", "humaneval", "gsm8k_test"]


@dataclass(frozen=True)
class Evaluation:
    """A guard's scores of labelled texts and of the model's own answers."""

    scored: "dict[str, list[ScoredText]]"
    """By the names of their sources."""
    answers: "list[OwnAnswer]"
    heading: str
    """Charter, bundle and model that were evaluated."""


async def score_sources(
    settings: "AssistantSettings",
    data: "DataFolder",
    sources: "Sequence[LabelledSource]",
    most: int | None,
    seed: int = 0,
    prompts: Sequence[str] = (),
    *,
    place: str = "input",
) -> Evaluation:
    """Score sources with the guard of an assistant, and the model's own answers to prompts, with progress."""
    from commonweight.cli.progress import LoadingBar, ProgressBar
    from commonweight.runtime.assistant import open_assistant
    from commonweight.turn.record import TurnRecorder
    from commonweight.workshop.heads.evaluate import Evaluator, answer_prompts, draw_rows
    from commonweight.workshop.heads.request_places import require_place

    console = make_console(stderr=True)
    recorder = TurnRecorder()
    with LoadingBar(console) as loading, ProgressBar(console) as bar:
        async with open_assistant(
            settings, data=data, listeners=[recorder], on_progress=loading.update
        ) as assistant:
            guard = assistant.guard
            assert guard is not None
            require_place(guard, place)
            seen = "states" if guard.reads_states else "text"
            by = "screen and judge" if guard.judge else "screen only"
            heading = (
                f"Charter {guard.charter.id} {guard.charter.version} (`{guard.charter.sha256[:16]}`), bundle "
                f"`{guard.digest[:16]}`, on {seen} of {assistant.card.id}; {by}"
            ) + ("." if place == "input" else f"; texts stand in {place}.")
            answers = await answer_prompts(assistant, recorder, prompts, on_progress=bar.update)
            if answers:
                refused = sum(one.is_refused for one in answers)
                console.print(f"own answers: {refused} of {len(answers)} refused", style="dim")
            scored = {}
            evaluator = Evaluator(assistant, recorder)
            for source in sources:
                rows = draw_rows(source.rows, most, seed)
                found = await evaluator.score(rows, place, name=source.name, on_progress=bar.update)
                scored[source.name] = found
                refused = sum(one.outcome.is_refused for one in found)
                console.print(f"{source.name}: {refused} of {len(found)} texts refused", style="dim")
            return Evaluation(scored, answers, heading)


@commands.command()
def trust(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle that was compiled elsewhere.")],
    data: DataPath = None,
) -> None:
    """Sign a bundle that was brought from elsewhere, so that `serve` takes it. Look at where it is from first."""
    from commonweight.runtime.preflight import check_readable

    check_readable([file])

    from commonweight.guard import Bundle, BundleError
    from commonweight.runtime.data import DataFolder

    try:
        bundle = Bundle.load(file, None)
    except BundleError as error:
        raise UserError(str(error)) from error
    manifest = bundle.manifest
    console = make_console()
    model = manifest.model.name if manifest.model else "any model (text only)"
    console.print(f"charter {manifest.charter_id} {manifest.charter_version} {manifest.charter[:16]}, for {model}")
    for source in manifest.sources:
        console.print(
            f"  {source.name}: {source.rows} rows, {source.licence}, sha256 {source.sha256[:16]}", style="dim"
        )
    try:
        bundle.save(file, DataFolder.from_options(data).load_key())
    except BundleError as error:
        raise UserError(str(error)) from error
    console.print(f"{file} is signed; its digest is {bundle.digest}", soft_wrap=True)
