"""Commands and their options. Imports are inside the commands, so that ``--version`` and help are quick."""

import logging
import sys
from typing import Annotated, Literal

import typer

from commonweight import __version__
from commonweight.cli import charter, guard, keys, labels, workshop
from commonweight.cli.expand_settings import OnlyFields, expand_settings
from commonweight.cli.options import WHICH_MODEL, AsJson, DatabaseUrl, DataPath, Model
from commonweight.cli.setting_options import OPERATION_PANEL, EngineChoice
from commonweight.cli.terminal import make_console
from commonweight.cli.usage import usage
from commonweight.engines.settings import EngineSettings
from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import AssistantSettings, GuardSettings, ServerSettings

app = typer.Typer(
    help="Run open-weight models as complete, guarded assistants behind the Messages API.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they hold keys and conversations
)
models = typer.Typer(help="See which models are on this machine.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(keys.commands, name="keys")
app.add_typer(charter.commands, name="charter")
app.add_typer(guard.commands, name="guard")
app.command()(usage)
workshop.add_commands(app)
app.add_typer(labels.commands, name="labels", rich_help_panel=workshop.PANEL)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", metavar="", help="Show the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", metavar="", help="Log more.")] = False,
) -> None:
    """Options of the command as a whole."""
    if version:
        typer.echo(f"commonweight {__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("huggingface_hub").propagate = False  # it prints by itself


@app.command()
@expand_settings
def serve(
    *,
    model: Model = None,
    max_output: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="Refuse requests for longer answers. Default: an answer may fill the context.",
            show_default=False,
        ),
    ] = None,
    sampling: Annotated[
        Literal["model", "api"],
        typer.Option(help="Of requests that set none: what is recommended for the model, or temperature 1."),
    ] = "model",
    engine: EngineSettings,
    choice: EngineChoice,
    guard_settings: GuardSettings,
    server: ServerSettings,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(help="How the log is written to standard error.", rich_help_panel=OPERATION_PANEL),
    ] = "text",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(
            help="From which level on; info has a line for each request.", rich_help_panel=OPERATION_PANEL
        ),
    ] = "info",
    data: DataPath = None,
    database: DatabaseUrl = None,
) -> None:
    """Serve a model behind **POST /v1/messages**."""
    from commonweight.runtime.data import DataFolder
    from commonweight.runtime.preflight import check_assistant, check_server

    settings = AssistantSettings(
        model=model,
        engine=engine,
        remote=choice.make_settings(),
        guard=guard_settings,
        sampling=sampling,
        max_output=max_output,
    )
    folder = DataFolder.from_options(data, database)
    check_server(server, folder)
    check_assistant(settings)

    from commonweight.cli.serve import serve as serve_until_interrupted
    from commonweight.runtime.logs import configure_logging

    configure_logging(log_format, log_level)
    serve_until_interrupted(settings, server, folder)


@app.command()
@expand_settings
def chat(
    *,
    model: Model = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instructions for the model.", show_default=False)
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Longest answer.")] = 2048,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="T",
            help="Chance in the choice of words; 0 always takes the likeliest. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        EngineSettings,
        OnlyFields(("context", "threads", "kv_memory", "kv_type", "cache_ram", "cache_disk", "speculation")),
    ],
) -> None:
    """Talk to a model in the terminal, or have it answer the lines of a pipe."""
    from msgspec.structs import replace

    from commonweight.runtime.preflight import check_assistant

    settings = AssistantSettings(model=model, engine=replace(engine, parallel=1))
    check_assistant(settings)

    from commonweight.cli.chat import chat as talk

    talk(settings, system=system, max_tokens=max_tokens, temperature=temperature)


@app.command()
@expand_settings
def bench(
    *,
    model: Model = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Times that each figure is taken, at full size. Default: what fits into a minute, at most 3.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        EngineSettings,
        OnlyFields(("context", "parallel", "threads", "kv_memory", "kv_type", "cache_ram", "speculation")),
    ],
) -> None:
    """Measure how fast a model reads and writes on this machine, in about a minute."""
    from msgspec.structs import replace

    from commonweight.runtime.preflight import check_assistant

    settings = AssistantSettings(model=model, engine=replace(engine, cache_disk=0))
    check_assistant(settings)

    from commonweight.cli.bench import bench as measure

    measure(settings, rounds=rounds)


@app.command()
def conformance(
    url: Annotated[str, typer.Argument(metavar="URL", help="Any server, such as `http://127.0.0.1:8000`.")],
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="COMMONWEIGHT_API_KEY", metavar="KEY", help="Key that the server wants.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Model to ask for. Default: the first that the server lists.", show_default=False
        ),
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Try this section only; may repeat.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try what a server keeps of the Messages API's contract."""
    from commonweight.cli.conformance import conformance as try_out

    if not try_out(url, api_key=api_key, model=model, sections=section or [], as_json=as_json):
        raise typer.Exit(1)


@app.command()
@expand_settings
def doctor(
    *,
    model: Model = None,
    server: Annotated[ServerSettings, OnlyFields(("host", "port"))],
    engine: Annotated[
        EngineSettings, OnlyFields(("context", "parallel", "kv_memory", "kv_type", "cache_ram", "cache_disk"))
    ],
    choice: Annotated[EngineChoice, OnlyFields(("kind", "urls", "key"))],
    as_json: AsJson = False,
    data: DataPath = None,
    database: DatabaseUrl = None,
) -> None:
    """Look at what a server needs of this machine, and say what to do where something is missing."""
    from commonweight.cli.doctor import doctor as examine
    from commonweight.runtime.data import DataFolder

    settings = AssistantSettings(model=model, engine=engine, remote=choice.make_settings())
    folder = DataFolder.from_options(data, database)
    if not examine(settings, folder, host=server.host, port=server.port, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def pull(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=WHICH_MODEL)] = None,
) -> None:
    """Download a model, so that it is here when it is needed."""
    from commonweight.cli.pull import pull as pull_model

    pull_model(model)


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """List the models that need no download."""
    from commonweight.cli.models import list_models

    list_models(as_json=as_json)


@models.command("show")
def models_show(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=WHICH_MODEL)] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's window, template, licence and size."""
    from commonweight.runtime.preflight import check_assistant

    check_assistant(AssistantSettings(model=model))

    from commonweight.cli.models import show_model

    show_model(model, as_json=as_json)


def main() -> None:
    """Run the command; expected errors are printed in one line."""
    try:
        app()
    except Exception as error:
        if not _is_for_people(error):
            raise
        make_console(stderr=True).print(f"Error: {_describe(error)}", style="red", soft_wrap=True)
        sys.exit(1)


def _is_for_people(error: Exception) -> bool:
    """Whether an error's message is written for the user."""
    if isinstance(error, UserError | OSError):
        return True
    # Who raised one of these has imported its module; a wrong path is told without.
    from commonweight.catalog.reference import ModelNotFoundError

    if isinstance(error, ModelNotFoundError):
        return True
    from commonweight.engines.contract import EngineError
    from commonweight.store import DatabaseError

    return isinstance(error, EngineError | DatabaseError)


def _describe(error: Exception) -> str:
    """The message; of the system's own errors without their number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
