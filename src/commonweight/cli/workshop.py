"""Commands of the workshop: new, build, release, verify, lineage, provenance and recipe."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from commonweight.cli.options import AsJson
from commonweight.cli.terminal import make_console, print_json
from commonweight.runtime.errors import UserError

if TYPE_CHECKING:
    from commonweight.lineage.graph import TreeLine
    from commonweight.lineage.record import Decision
    from commonweight.workshop.recipe.plan import PlannedStage

PANEL = "Making models"
_RELEASE_LIBRARIES = ("cryptography", "cyclonedx", "gguf", "libgguf", "license_expression", "model_signing")

recipe_commands = typer.Typer(help="Recipes: what `build` reads.", no_args_is_help=True)

DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Local mirror: sources on the hub or at addresses are taken from here.",
        show_default=False,
    ),
]
ImportRun = Annotated[
    list[str] | None,
    typer.Option(
        "--import-run",
        metavar="STAGE=DIR",
        help="Take a stage's output from a run elsewhere, recorded as declared; several times for several.",
        show_default=False,
    ),
]


@recipe_commands.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from commonweight.workshop.recipe.schema import make_schema

    print_json(make_schema())


@recipe_commands.command()
def export(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file.")],
    to: Annotated[Literal["trl", "axolotl"], typer.Option(help="The trainer that will read it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where it is written.")],
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The stage to export, if the recipe trains in several.", show_default=False
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", metavar="DIR", help="Build folder. Default: build, beside the recipe.", show_default=False
        ),
    ] = None,
    import_run: ImportRun = None,
    data_root: DataRoot = None,
) -> None:
    """Export a stage that trains for a cluster: config, rows, base model, digests. Builds what comes before it."""
    import time

    from commonweight.lineage.build_folder import BuildFolder
    from commonweight.workshop.recipe.build import Builder
    from commonweight.workshop.recipe.cluster_export import export_training
    from commonweight.workshop.recipe.imported_runs import make_imported_kinds, parse_runs
    from commonweight.workshop.recipe.parse import read_recipe

    progress = make_console(stderr=True)
    with user_errors():
        parsed = read_recipe(recipe)
        build_folder = BuildFolder(folder or recipe.parent / "build")
        day = time.strftime("%Y-%m-%d", time.gmtime())
        kinds = make_imported_kinds(parsed, parse_runs(import_run or ()))
        builder = Builder(parsed, build_folder, recipe.parent, data_root, day, kinds)
        export_training(builder, stage, to, output, lambda line: progress.print(line, soft_wrap=True))
    typer.echo(f"Wrote {output}. {output / 'README.md'} has the command that trains.")


def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it.")],
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A recipe that ships: tiny, finetune, align-tiny, align-starter, starter or starter-evals.",
        ),
    ] = "tiny",
) -> None:
    """Write a recipe to begin from into a folder."""
    from commonweight.workshop.recipe.shipped import list_shipped, read_shipped

    if recipe not in list_shipped():
        raise UserError(f"There is no recipe {recipe!r}; there are {', '.join(list_shipped())}.")
    path = folder / "recipe.yaml"
    if path.exists():
        raise UserError(f"{path} is there already.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(read_shipped(recipe), encoding="utf-8")
        (folder / ".gitignore").write_text("build/\nkeys/\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}.") from error
    typer.echo(f"Wrote {path}. Next: commonweight build {path}")


def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file.")] = Path("recipe.yaml"),
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", metavar="DIR", help="Build folder. Default: build, beside the recipe.", show_default=False
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Build this stage and what it depends on.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Show the plan, with time and memory; run nothing.")
    ] = False,
    import_run: ImportRun = None,
    use_shipped: Annotated[
        bool,
        typer.Option(
            "--use-shipped", metavar="", help="Take adapters that ship with the recipe in place of training them."
        ),
    ] = False,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Compare two recipes or build folders instead.", show_default=False),
    ] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Make a model: run the stages of a recipe that are not done. Can be killed at any time, and goes on."""
    import time

    from commonweight.lineage.build_folder import BuildFolder
    from commonweight.workshop.recipe.build import Builder
    from commonweight.workshop.recipe.difference import compare_builds
    from commonweight.workshop.recipe.imported_runs import make_imported_kinds, parse_runs
    from commonweight.workshop.recipe.parse import read_recipe
    from commonweight.workshop.recipe.plan import Only, make_plan
    from commonweight.workshop.recipe.shipped_stages import replace_training

    console = make_console()
    with user_errors():
        if diff is not None:
            lines = compare_builds(*diff)
            if as_json:
                print_json({"differences": lines})
            else:
                console.print("\n".join(lines) or "No difference.", soft_wrap=True)
            return
        parsed = read_recipe(recipe)
        only: Only = stage
        if use_shipped:
            parsed, wanted = replace_training(parsed)
            only = stage or wanted
        kinds = make_imported_kinds(parsed, parse_runs(import_run or ()))
        build_folder = BuildFolder(folder or recipe.parent / "build")
        if dry_run:
            plan = make_plan(parsed, build_folder, recipe.parent, data_root, only, kinds)
            if as_json:
                print_json({"stages": [_describe_planned(planned) for planned in plan]})
            else:
                _print_plan(plan)
            return
        day = time.strftime("%Y-%m-%d", time.gmtime())
        builder = Builder(parsed, build_folder, recipe.parent, data_root, day, kinds)
        begun = time.monotonic()
        progress = make_console(stderr=True)
        ran = builder.build(lambda line: progress.print(line, soft_wrap=True), only)
        served = builder.find_served_file()
        if as_json:
            print_json({"ran": ran, "folder": str(build_folder.path), "model": str(served) if served else None})
            return
        count = f"{len(ran)} of {len(builder.stage_names)} stages ran"
        console.print(
            f"{parsed.name}: {count}, {time.monotonic() - begun:.0f} s. Outputs: {build_folder.path}/outputs",
            soft_wrap=True,
        )
        if served is not None:
            console.print(f"Serve it: commonweight serve --model {shlex.quote(str(served))}", soft_wrap=True)


def release(
    folder: Annotated[Path, typer.Argument(metavar="BUILD", help="Build folder.")] = Path("build"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the release is written.")
    ] = Path("release"),
    keys: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where a signing key is made, once, if the recipe names none."),
    ] = Path("keys"),
) -> None:
    """Release a build: run its gate; write weights, card, licences, lineage, figures and a signature."""
    from datetime import UTC, datetime

    from commonweight.workshop.recipe.releasing import release_build

    _require_release_libraries()
    progress = make_console(stderr=True)
    with user_errors("release"):
        day = datetime.now(UTC).date()
        release_build(folder, output, keys, day, lambda line: progress.print(line, soft_wrap=True))
    typer.echo(f"Wrote {output}. Anybody checks it with: commonweight verify {output}")


def verify(
    path: Annotated[Path, typer.Argument(metavar="DIR_OR_FILE", help="A release, or one file of weights.")],
    trust: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Public key that must have signed it.", show_default=False),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="Sample large files, and quantise nothing again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a release offline: what is proved, what agrees, and what is only declared.

    A release that was rewritten as a whole and signed with another key passes, unless the key that is trusted is
    given. What such a rewriting can hide is listed at the end. Exit code 1 if something is wrong.
    """
    with user_errors("release"):
        from commonweight.workshop.release.report import render, render_json
        from commonweight.workshop.release.verify import verify_release

        report = verify_release(path, trust, quick)
    typer.echo(render_json(report) if as_json else render(report), nl=False)
    if not report.passed:
        raise typer.Exit(1)


def lineage(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A release, a build folder, or one output of it.")
    ],
    dot: Annotated[bool, typer.Option("--dot", metavar="", help="Print the graph for Graphviz.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an output was made of: stages, sources, licences."""
    from commonweight.lineage.graph import make_dot, read_graph, walk_tree
    from commonweight.lineage.licences import fold_licences

    with user_errors():
        graph = read_graph(folder)
        if dot:
            typer.echo(make_dot(graph))
            return
        if as_json:
            print_json(
                {
                    "roots": list(graph.roots),
                    "records": {name: record.model_dump(mode="json") for name, record in graph.records.items()},
                }
            )
            return
        console = make_console()
        for line in walk_tree(graph):
            console.print(_describe_line(line), soft_wrap=True)
        licences = sorted({lic for root in graph.roots for lic in graph.records[root].licences})
        obligations = fold_licences(licences)
        console.print(f"\nLicences of all material: {', '.join(licences) or 'none'}", soft_wrap=True)
        for sentence in obligations.sentences:
            console.print(f"  {sentence}", soft_wrap=True)


def provenance(
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="Sources, tab-separated, or a compiled charter (.safetensors)."),
    ],
    use: Annotated[Literal["commercial", "research"], typer.Option(help="What the model is for.")] = "commercial",
    generated_prompts: Annotated[
        Literal["allow", "block"], typer.Option(help="Prompts that a model wrote.")
    ] = "block",
    share_alike: Annotated[
        Literal["propagate", "attribute", "block"], typer.Option(help="Share-alike material.")
    ] = "block",
    as_json: AsJson = False,
) -> None:
    """Say which sources may train a model, and why not. Exit code 1 if one may not."""
    from commonweight.lineage.provenance import ProvenancePolicy, check_material
    from commonweight.lineage.source_table import parse_source_table

    policy = ProvenancePolicy(use=use, generated_prompts=generated_prompts, share_alike=share_alike)
    with user_errors():
        if table.suffix == ".safetensors":
            from commonweight.workshop.heads.provenance import read_materials

            materials = read_materials(table)
        else:
            try:
                materials = parse_source_table(table.read_text(encoding="utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(f"{table} is not UTF-8.") from error
        decisions = check_material(materials, policy)
    if as_json:
        print_json({"decisions": [decision.model_dump(mode="json") for decision in decisions]})
    else:
        _print_decisions(decisions)
    if any(decision.verdict == "block" for decision in decisions):
        raise typer.Exit(1)


def add_commands(app: typer.Typer) -> None:
    """Add the workshop's commands, in a panel of their own."""
    for command in (new, build, release, verify, lineage, provenance):
        app.command(rich_help_panel=PANEL)(command)
    app.add_typer(recipe_commands, name="recipe", rich_help_panel=PANEL)


@contextmanager
def user_errors(extra: Literal["workshop", "release"] = "workshop") -> Iterator[None]:
    """Show errors of the workshop in one line, and say what to install where a library is missing."""
    from commonweight.lineage.errors import WorkshopError

    try:
        yield
    except WorkshopError as error:
        raise UserError(str(error)) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "commonweight":
            raise
        name = (error.name or "a library").partition(".")[0]
        raise UserError(f"This needs {name}, which is not installed: {_advise(extra)}.") from error


def _require_release_libraries() -> None:
    """Stop before any work where a library that writes releases is not installed."""
    missing = [name for name in _RELEASE_LIBRARIES if find_spec(name) is None]
    if missing:
        raise UserError(f"This needs {', '.join(missing)}, which is not installed: {_advise('release')}.")


def _advise(extra: Literal["workshop", "release"]) -> str:
    """How an extra is installed into this very environment: an installer on the path may be that of another."""
    install = f"`{sys.executable} -m pip install 'commonweight[{extra}]'`"
    return f"run {install}" if extra == "release" else f"run `make workshop` in a clone, or {install}"


def _describe_planned(planned: "PlannedStage") -> dict[str, object]:
    return {
        "name": planned.name,
        "kind": planned.kind.name,
        "state": planned.state,
        "key": planned.key,
        "estimate": planned.estimate,
    }


def _print_plan(plan: "list[PlannedStage]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("stage", "kind", "state", "key", "estimate"):
        table.add_column(column, overflow="fold")
    for planned in plan:
        key = (planned.key or "")[:12]
        table.add_row(planned.name, planned.kind.name, planned.state, key, planned.estimate)
    make_console().print(table)


def _print_decisions(decisions: "Sequence[Decision]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("source", no_wrap=True)
    table.add_column("rows", justify="right")
    for column in ("content", "verdict", "rule", "reason"):
        table.add_column(column, overflow="fold")
    for one in decisions:
        table.add_row(one.source, f"{one.rows:,}", one.content, one.verdict, one.rule, one.reason)
    make_console().print(table)
    blocked = {(one.source, one.content) for one in decisions if one.verdict == "block"}
    every = {(one.source, one.content) for one in decisions}
    make_console().print(f"\n{len(every) - len(blocked)} of {len(every)} pass.")


def _describe_line(line: "TreeLine") -> str:
    role = f"{line.role}: " if line.role else ""
    words = [line.kind] if line.kind and line.kind != line.name else []
    words += ["imported"] if line.is_imported else []
    kind = f" ({', '.join(words)})" if words else ""
    licences = f"  {', '.join(line.licences)}" if line.licences else ""
    above = "  (above)" if line.is_repeated else ""
    text = f"{'  ' * line.depth}{role}{line.name}{kind}  {line.digest[:12]}{licences}{above}"
    # Names in a release are its writer's: what would steer a terminal is not passed on.
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
