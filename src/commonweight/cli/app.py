"""Commands and their options. Heavy imports wait inside the commands, so that ``--version`` and help are quick."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from commonweight import __version__
from commonweight.cli import charter, guard, keys
from commonweight.cli.options import (
    DATA_PANEL,
    WHICH_MODEL,
    CacheDisk,
    CacheRam,
    CharterFile,
    Context,
    DatabaseUrl,
    DataFolder,
    Engine,
    EngineKey,
    EngineTimeout,
    EngineUrl,
    GuardBundle,
    GuardMode,
    JudgeKey,
    JudgeModel,
    JudgeTimeout,
    JudgeUrl,
    KvMemory,
    KvType,
    Model,
    Parallel,
    Speculation,
    Threads,
    Waive,
    size,
)
from commonweight.cli.terminal import UserError, plain_console
from commonweight.cli.usage import usage

app = typer.Typer(
    help="Run open-weight models as complete, guarded assistants behind the Messages API.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # they hold keys and conversations
)
models = typer.Typer(help="See which models are on this machine.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(keys.commands, name="keys")
app.add_typer(charter.commands, name="charter")
app.add_typer(guard.commands, name="guard")
app.command()(usage)

errors = plain_console(stderr=True)

_NETWORK = "Network"
_OPERATION = "Operation"


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
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="COMMONWEIGHT_API_KEY",
            metavar="KEY",
            help="One key for everything, beside those of `commonweight keys`.",
            show_default=False,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further name to list the model under; may repeat. Requests may use any name.",
            show_default=False,
        ),
    ] = None,
    max_output: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="Refuse requests for longer answers. Default: an answer may fill the context.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Serve HTTPS with this certificate (PEM, with its chain).",
            show_default=False,
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its key, unless that is in the same file.",
            show_default=False,
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let web pages of this origin use the server, such as `https://example.com`; may repeat. "
            "Default: none.",
            show_default=False,
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    context: Context = None,
    parallel: Parallel = 8,
    threads: Threads = None,
    kv_memory: KvMemory = None,
    kv_type: KvType = "f16",
    cache_ram: CacheRam = None,
    cache_disk: CacheDisk = None,
    speculation: Speculation = True,
    engine: Engine = "llama",
    engine_url: EngineUrl = None,
    engine_key: EngineKey = None,
    engine_timeout: EngineTimeout = 300,
    guard_mode: GuardMode = "enforce",
    charter_file: CharterFile = None,
    guard_bundle: GuardBundle = None,
    waive: Waive = None,
    judge: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_key: JudgeKey = None,
    judge_timeout: JudgeTimeout = 10.0,
    drain: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long running requests may go on after a signal to stop.",
            rich_help_panel=_OPERATION,
        ),
    ] = 30,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(help="How the log is written to standard error.", rich_help_panel=_OPERATION),
    ] = "text",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(help="From which level on; info has a line for each request.", rich_help_panel=_OPERATION),
    ] = "info",
    data: DataFolder = None,
    database: DatabaseUrl = None,
    keep_content: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=36500,
            metavar="DAYS",
            help="Keep what is asked and answered, in the database, for so long. Default: none of it.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    file_quota: Annotated[
        int,
        typer.Option(
            parser=size,
            metavar="SIZE",
            help="Disk space for the uploaded files of each tenant.",
            rich_help_panel=DATA_PANEL,
        ),
    ] = "10GB",  # type: ignore[assignment] # typer parses defaults, too
) -> None:
    """Serve a model behind **POST /v1/messages**."""
    from commonweight.cli.data import Data
    from commonweight.cli.guarding import Guarding
    from commonweight.cli.loading import Setup, elsewhere
    from commonweight.cli.logs import set_up_logs
    from commonweight.cli.serve import Network
    from commonweight.cli.serve import serve as serve_until_interrupted

    set_up_logs(log_format, log_level)
    guarding = Guarding(
        guard_mode,
        charter_file,
        guard_bundle,
        tuple(waive or ()),
        judge,
        judge_model,
        judge_key,
        judge_timeout,
    )
    setup = Setup(
        model,
        context,
        parallel,
        threads,
        kv_memory,
        kv_type,
        cache_ram,
        cache_disk,
        speculation,
        max_output,
        guarding,
        elsewhere(engine, engine_url or [], engine_key, engine_timeout),
    )
    serve_until_interrupted(
        setup,
        Data.at(data, database),
        Network(host, port, tls_cert, tls_key, cors_origin or []),
        api_key=api_key,
        aliases=alias or [],
        drain=drain,
        keep_content=keep_content or None,
        file_quota=file_quota,
    )


@app.command()
def chat(
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
            help="Chance in the choice of words; 0 always takes the likeliest. Default: 1.",
            show_default=False,
        ),
    ] = None,
    context: Context = None,
    threads: Threads = None,
    kv_memory: KvMemory = None,
    kv_type: KvType = "f16",
    cache_ram: CacheRam = None,
    cache_disk: CacheDisk = None,
    speculation: Speculation = True,
) -> None:
    """Talk to a model in the terminal, or have it answer the lines of a pipe."""
    from commonweight.cli.chat import chat as talk
    from commonweight.cli.loading import Setup

    setup = Setup(model, context, 1, threads, kv_memory, kv_type, cache_ram, cache_disk, speculation)
    talk(setup, system=system, max_tokens=max_tokens, temperature=temperature)


@app.command()
def bench(
    model: Model = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Times that each figure is taken.")] = 3,
    context: Context = None,
    parallel: Parallel = 8,
    threads: Threads = None,
    kv_memory: KvMemory = None,
    kv_type: KvType = "f16",
    cache_ram: CacheRam = None,
    speculation: Speculation = True,
) -> None:
    """Measure how fast a model reads and writes on this machine."""
    from commonweight.cli.bench import bench as measure
    from commonweight.cli.loading import Setup

    setup = Setup(model, context, parallel, threads, kv_memory, kv_type, cache_ram, 0, speculation)
    measure(setup, rounds=rounds)


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
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, not a table.")] = False,
) -> None:
    """Try what a server keeps of the Messages API's contract."""
    from commonweight.cli.conformance import conformance as try_out

    if not try_out(url, api_key=api_key, model=model, sections=section or [], as_json=as_json):
        raise typer.Exit(1)


@app.command()
def doctor(
    model: Model = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on.")] = 8000,
    context: Context = None,
    parallel: Parallel = 8,
    kv_memory: KvMemory = None,
    kv_type: KvType = "f16",
    cache_ram: CacheRam = None,
    cache_disk: CacheDisk = None,
    engine: Engine = "llama",
    engine_url: EngineUrl = None,
    engine_key: EngineKey = None,
    data: DataFolder = None,
    database: DatabaseUrl = None,
) -> None:
    """Look at what a server needs of this machine, and say what to do where something is missing."""
    from commonweight.cli.data import Data
    from commonweight.cli.doctor import doctor as examine
    from commonweight.cli.loading import Setup, elsewhere

    setup = Setup(
        model,
        context,
        parallel,
        None,
        kv_memory,
        kv_type,
        cache_ram,
        cache_disk,
        elsewhere=elsewhere(engine, engine_url or [], engine_key),
    )
    if not examine(setup, Data.at(data, database), host=host, port=port):
        raise typer.Exit(1)


@models.command("list")
def models_list() -> None:
    """List the models that need no download."""
    from commonweight.cli.models import list_models

    list_models()


@models.command("show")
def models_show(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=WHICH_MODEL)] = None,
) -> None:
    """Show a model's window, template, licence and size."""
    from commonweight.cli.models import show_model

    show_model(model)


def main() -> None:
    """Run the command; what can go wrong on a person's machine is said in one line."""
    try:
        app()
    except Exception as error:
        if not _is_for_people(error):
            raise
        errors.print(f"Error: {error}", style="red", soft_wrap=True)
        sys.exit(1)


def _is_for_people(error: Exception) -> bool:
    """Whether the message was written for the person at the terminal."""
    from commonweight.catalog.reference import ModelNotFoundError
    from commonweight.engines.contract import EngineError
    from commonweight.store import DatabaseError

    return isinstance(error, UserError | OSError | ModelNotFoundError | EngineError | DatabaseError)
