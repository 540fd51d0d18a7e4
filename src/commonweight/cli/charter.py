"""``commonweight charter``: show, lint, compare, compile and test a charter."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commonweight.cli.charter_view import (
    format_principle,
    format_unscreened,
    print_changes,
    print_checks,
    print_overview,
)
from commonweight.cli.options import AsJson, DataPath
from commonweight.cli.terminal import make_console, print_json, print_table
from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from commonweight.charter import Charter
    from commonweight.guard import Bundle
    from commonweight.runtime.data import DataFolder
    from commonweight.workshop.heads.charter_tests import CharterTest
    from commonweight.workshop.heads.prose_checks import ProseCheck

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
        console.print(format_principle(charter, found))


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
    from commonweight.charter import CharterError, list_unscreened
    from commonweight.charter import lint as check
    from commonweight.runtime.charter import read_charter

    name = file or "default.md"
    try:
        problems = check(_read_content(file))
    except CharterError as error:
        problems = error.problems
    charter = None if problems else read_charter(file)
    if as_json:
        unscreened = {one.id: list_unscreened(charter, one) for one in charter.principles} if charter else {}
        listed = [problem._asdict() for problem in problems]
        print_json({"file": str(name), "problems": listed, "unscreened": unscreened})
        if problems:
            raise typer.Exit(1)
        return
    console = make_console()
    for problem in problems:
        console.print(f"{name}:{problem.line}: {problem.text}", soft_wrap=True)
    if charter is None:
        console.print(f"{len(problems)} to put right", style="red")
        raise typer.Exit(1)
    for principle in charter.principles:
        if unscreened_places := format_unscreened(charter, principle):
            console.print(f"{principle.id}: {unscreened_places}", style="dim", soft_wrap=True)
    console.print(f"{name}: {len(charter.principles)} principles, nothing to put right", style="green")
    console.print(f"sha256 {charter.sha256}")


@commands.command()
def diff(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[OLD] NEW", help="Charters. Default of OLD: the one that ships with Commonweight."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what changed in meaning between two charters, principle by principle."""
    from commonweight.charter import compare_charters
    from commonweight.runtime.charter import read_charter

    if len(files) > 2:
        raise UserError(f"two charters are compared, and these are {len(files)}")
    old, new = (None, *files)[-2:]
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
    from commonweight.guard import BundleError
    from commonweight.runtime.data import DataFolder
    from commonweight.workshop.heads.compile import CompileSettings, compile_charter

    folder = DataFolder.from_options(data)
    console, errors = make_console(), make_console(stderr=True)
    settings = CompileSettings(base=base, texts=texts or (), model=model, most=most, cache=cache)
    with ProgressBar(errors) as bar:
        bundle = compile_charter(charter, settings, folder, report=errors.print, on_progress=bar.update)
    try:
        bundle.save(target, folder.load_key())
    except BundleError as error:
        raise UserError(str(error)) from error
    print_table(_make_calibration_table(bundle))
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
    file: CharterArgument = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--texts",
            metavar="DATA",
            help="Labelled texts, files or folders, for the tests that name them; may repeat.",
            show_default=False,
        ),
    ] = None,
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
    """Hold a charter to its own examples and tests: what is caught, what is not, and what to write next.

    Examples are judged by heads that were made without them. Tests name labelled texts, which `--texts` has.
    """
    from commonweight.runtime.charter import read_charter
    from commonweight.runtime.preflight import check_assistant, check_readable
    from commonweight.runtime.settings import AssistantSettings, GuardSettings

    charter = read_charter(file)
    guard = GuardSettings(charter=file, bundle=bundle)
    check_assistant(AssistantSettings(model=model, guard=guard))
    check_readable(texts or ())

    import asyncio

    from commonweight.cli.guard import score_sources
    from commonweight.engines.settings import EngineSettings
    from commonweight.runtime.data import DataFolder
    from commonweight.workshop.heads.charter_tests import judge_requirements, list_requirements
    from commonweight.workshop.heads.evaluate import CONTEXT_TOKENS
    from commonweight.workshop.heads.sources import SourceError, find_files, read_source

    folder = DataFolder.from_options(data)
    checks = _check_prose(charter, bundle, folder)
    if not (checks or list_requirements(charter)):
        raise UserError(
            "the charter has nothing to test: neither `tests`, nor principles that have only words; "
            "`commonweight charter new -` explains both"
        )
    try:
        sources = {one.name: one for one in map(read_source, find_files(texts or []))}
    except SourceError as error:
        raise UserError(str(error)) from error
    names = dict.fromkeys(requirement.data for _, requirement in list_requirements(charter))
    settings = AssistantSettings(
        model=model, engine=EngineSettings(context=CONTEXT_TOKENS, cache_ram=0, cache_disk=0), guard=guard
    )
    chosen = [sources[name] for name in names if name in sources]
    scored = asyncio.run(score_sources(settings, folder, chosen, most)).scored if chosen else {}
    results = judge_requirements(charter, scored)
    if as_json:
        found = [{**asdict(check), "advice": check.advice} for check in checks]
        print_json({"tests": [_describe(result) for result in results], "principles": found})
    else:
        print_checks(checks)
        if results:
            print_table(_make_test_table(results))
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _check_prose(charter: "Charter", bundle: Path | None, folder: "DataFolder") -> "list[ProseCheck]":
    """Check the principles that have only words; none without the text encoder."""
    from commonweight.runtime.guard import find_encoder, read_bundle
    from commonweight.workshop.heads.prose_checks import check_prose

    encoder = find_encoder(make_console(stderr=True).print)
    return check_prose(charter, read_bundle(bundle, folder.load_key()), encoder) if encoder else []


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
