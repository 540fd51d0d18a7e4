"""``commonweight charter``: show, lint, compare, compile and test a charter."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commonweight.cli.charter_view import format_principle, print_changes, print_overview
from commonweight.cli.options import AsJson, DataPath
from commonweight.cli.terminal import make_console, print_json
from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from commonweight.guard import Bundle
    from commonweight.workshop.heads.charter_tests import CharterTest

commands = typer.Typer(help="Read, check and compare the principles that a server keeps to.", no_args_is_help=True)

CharterArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", help="A charter. Default: the one that ships with Commonweight.", show_default=False
    ),
]

STARTER_LICENCE = "Apache-2.0"


@commands.command()
def show(
    file: CharterArgument = None,
    principle: Annotated[
        str | None,
        typer.Option("--principle", "-p", metavar="ID", help="One principle, whole.", show_default=False),
    ] = None,
    source: Annotated[bool, typer.Option("--source", metavar="", help="Print the file as it is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a charter: what it restricts, what it permits, and where."""
    from commonweight.runtime.charter import read_charter

    charter = read_charter(file)
    console = make_console()
    if source:
        typer.echo(_read_content(file).decode(), nl=False)
        return
    found = next((one for one in charter.principles if one.id == principle), None)
    if principle is not None and found is None:
        raise UserError(f"{principle}: there is no such principle; `commonweight charter show` lists them")
    if as_json:
        print_json((found or charter).model_dump(mode="json", by_alias=True))
    elif found is None:
        print_overview(charter)
    else:
        console.print(format_principle(found))


@commands.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; `-` prints it.")] = Path("charter.md"),
) -> None:
    """Write the smallest valid charter, with a comment on every field that may be set."""
    from commonweight.charter import NEW

    content = NEW.read_bytes()
    if file == Path("-"):
        typer.echo(content.decode(), nl=False)
        return
    try:
        with file.open("xb") as written:
            written.write(content)
    except FileExistsError as error:
        raise UserError(f"{file} is there already; name another file") from error
    console = make_console()
    console.print(f"{file} is a valid charter of one principle. Change it, then:", soft_wrap=True)
    for command in ("charter lint", "serve --charter"):
        console.print(f"    commonweight {command} {shlex.quote(str(file))}", soft_wrap=True)


@commands.command()
def lint(file: CharterArgument = None, as_json: AsJson = False) -> None:
    """Check a charter; every line that is wrong is named."""
    from commonweight.charter import CharterError
    from commonweight.charter import lint as check
    from commonweight.runtime.charter import read_charter

    name = file or "default.md"
    try:
        problems = check(_read_content(file))
    except CharterError as error:
        problems = error.problems
    if as_json:
        print_json({"file": str(name), "problems": [problem._asdict() for problem in problems]})
        if problems:
            raise typer.Exit(1)
        return
    console = make_console()
    for problem in problems:
        console.print(f"{name}:{problem.line}: {problem.text}", soft_wrap=True)
    if problems:
        console.print(f"{len(problems)} to put right", style="red")
        raise typer.Exit(1)
    charter = read_charter(file)
    console.print(f"{name}: {len(charter.principles)} principles, nothing to put right", style="green")
    console.print(f"sha256 {charter.sha256}")


@commands.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A charter.")],
    new: CharterArgument = None,
    as_json: AsJson = False,
) -> None:
    """Show what changed in meaning between two charters, principle by principle."""
    from commonweight.charter import compare_charters
    from commonweight.runtime.charter import read_charter

    changes = compare_charters(read_charter(old), read_charter(new))
    if as_json:
        print_json({"changes": [change._asdict() for change in changes]})
    else:
        print_changes(changes)
    if any(change.warning for change in changes):
        raise typer.Exit(1)


@commands.command("compile")
def compile_(
    file: CharterArgument = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Default: beside the charter.", show_default=False),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="FILE",
            help="An earlier bundle, whose heads are kept where the words are. Default: the package's.",
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--texts",
            metavar="DATA",
            help="Labelled texts, files or folders, to train heads on; may repeat. Default: words alone.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="With --texts: whose states to read, too. Default: the starter.",
            show_default=False,
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=50, metavar="N", help="Prompts of each source, at most.")] = 400,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FOLDER",
            help="Keep vectors and states there, as numbers by digests, for the next time.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    data: DataPath = None,
) -> None:
    """Turn a charter into heads and thresholds that a server keeps exchanges to it with."""
    from commonweight.runtime.charter import read_charter
    from commonweight.runtime.preflight import check_assistant, check_output, check_readable
    from commonweight.runtime.settings import AssistantSettings

    charter = read_charter(file)
    target = out or Path(f"{file.stem if file else 'default'}.guard.safetensors")
    check_readable([base, *(texts or ())])
    check_assistant(AssistantSettings(model=model))
    check_output(target)

    from commonweight.cli.progress import ProgressBar
    from commonweight.runtime.data import DataFolder
    from commonweight.workshop.heads.compile import CompileSettings, compile_charter

    folder = DataFolder.from_options(data)
    console, errors = make_console(), make_console(stderr=True)
    settings = CompileSettings(base=base, texts=texts or (), model=model, most=most, cache=cache)
    with ProgressBar(errors) as bar:
        bundle = compile_charter(charter, settings, folder, report=errors.print, on_progress=bar.update)
    bundle.save(target, folder.load_key())
    console.print(_make_calibration_table(bundle))
    console.print(f"{target}: digest {bundle.digest}", soft_wrap=True)


@commands.command()
def answers(
    prompts: Annotated[
        list[Path], typer.Argument(metavar="PROMPTS...", help="Labelled prompts, files or folders.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; goes on with a begun one.")
    ],
    charter: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: the package's.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Answers.")] = 2400,
    seed: Annotated[int, typer.Option(metavar="N", help="Which prompts and beginnings.")] = 0,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Default: the starter.", show_default=False),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="SPDX", help="With --model: its licence, which has to allow this.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads.", show_default=False)
    ] = None,
    data: DataPath = None,
) -> None:
    """Let a model write labelled answers, harmful and harmless, to train heads on with `compile --texts`.

    The texts are harmful by design: keep the file to yourself.
    """
    from commonweight.runtime.charter import read_charter
    from commonweight.runtime.preflight import check_assistant, check_output, check_readable
    from commonweight.runtime.settings import AssistantSettings

    if model is not None and licence is None:
        raise UserError("--model needs --licence: the terms that the model's answers are trained on under")
    principles = read_charter(charter)
    check_readable(prompts)
    check_assistant(AssistantSettings(model=model))
    check_output(output)

    from commonweight.cli.progress import ProgressBar
    from commonweight.runtime.data import DataFolder
    from commonweight.workshop.heads.answer_plan import plan_answers
    from commonweight.workshop.heads.answers import generate_answers
    from commonweight.workshop.heads.sources import SourceError, find_files, read_source

    try:
        sources = [read_source(path) for path in find_files(prompts)]
        plan = plan_answers(principles, sources, count, seed)
        if not plan:
            raise UserError("there are no labelled prompts to answer")
        with ProgressBar(make_console(stderr=True)) as bar:
            rows = generate_answers(
                plan,
                output,
                model=model,
                licence=licence or STARTER_LICENCE,
                data=DataFolder.from_options(data),
                threads=threads,
                on_progress=bar.update,
            )
    except SourceError as error:
        raise UserError(str(error)) from error
    make_console().print(f"{output}: {rows} labelled answers of {len(plan)} planned", soft_wrap=True)


@commands.command()
def test(
    texts: Annotated[
        list[Path], typer.Option("--texts", metavar="DATA", help="Labelled texts, files or folders; may repeat.")
    ],
    file: CharterArgument = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--guard-bundle", metavar="FILE", help="Default: the package's.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Default: the starter.", show_default=False),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="At most so many texts of each source.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    data: DataPath = None,
) -> None:
    """Hold a charter to its own tests: how much it may refuse, and how much it has to."""
    from commonweight.runtime.charter import read_charter
    from commonweight.runtime.preflight import check_assistant, check_readable
    from commonweight.runtime.settings import AssistantSettings, GuardSettings

    charter = read_charter(file)
    guard = GuardSettings(charter=file, bundle=bundle)
    check_assistant(AssistantSettings(model=model, guard=guard))
    check_readable(texts)

    import asyncio

    from commonweight.cli.guard import score_sources
    from commonweight.engines.settings import EngineSettings
    from commonweight.runtime.data import DataFolder
    from commonweight.workshop.heads.charter_tests import judge_requirements, list_requirements
    from commonweight.workshop.heads.evaluate import CONTEXT_TOKENS
    from commonweight.workshop.heads.sources import SourceError, find_files, read_source

    try:
        sources = {one.name: one for one in map(read_source, find_files(texts))}
    except SourceError as error:
        raise UserError(str(error)) from error
    names = dict.fromkeys(requirement.data for _, requirement in list_requirements(charter))
    settings = AssistantSettings(
        model=model, engine=EngineSettings(context=CONTEXT_TOKENS, cache_disk=0), guard=guard
    )
    evaluation = asyncio.run(
        score_sources(
            settings, DataFolder.from_options(data), [sources[name] for name in names if name in sources], most
        )
    )
    results = judge_requirements(charter, evaluation.scored)
    if as_json:
        print_json({"tests": [_describe(result) for result in results]})
    else:
        make_console().print(_make_test_table(results))
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _read_content(file: Path | None) -> bytes:
    """Read a charter's file; without one, the default."""
    from commonweight.charter import DEFAULT

    return DEFAULT.read_bytes() if file is None else file.read_bytes()


def _make_calibration_table(bundle: "Bundle") -> "Table":
    """Make the table of how often harmless texts reach the thresholds."""
    from rich import box
    from rich.table import Table

    table = Table("", "head", "harmless texts", "refused", "95 % interval", box=box.SIMPLE_HEAD, pad_edge=False)
    manifest = bundle.manifest
    for name, one in manifest.calibration.items():
        kind = "words" if name in manifest.prose else "data" if name in manifest.principles else "ensemble"
        table.add_row(
            name,
            kind,
            str(one.texts),
            f"{one.refused / max(1, one.texts):.2%}",
            f"{one.lower:.2%} to {one.upper:.2%}",
        )
    return table


def _describe(result: "CharterTest") -> dict[str, Any]:
    return {
        "principle": result.principle,
        "data": result.data,
        "at_least" if result.is_lower_limit else "at_most": result.limit,
        "refused": None if result.share is None else result.share.value,
        "texts": result.texts,
        "passed": None if result.share is None else result.passed,
    }


def _make_test_table(results: "Sequence[CharterTest]") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table("principle", "data", "asked", "found", "", box=box.SIMPLE_HEAD, pad_edge=False)
    for result in results:
        limit = f"{'at least' if result.is_lower_limit else 'at most'} {result.limit:.1%} refused"
        name, share = result.principle or "all", result.share
        if share is None:
            table.add_row(name, result.data, limit, "no data", "", style="dim")
            continue
        found = f"{share.value:.1%} of {result.texts} [{share.lower:.1%}, {share.upper:.1%}]"
        table.add_row(name, result.data, limit, found, "holds" if result.passed else "fails")
    return table
