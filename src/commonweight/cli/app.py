"""Commands and their options. Heavy imports wait inside the commands, so that ``--version`` and help are quick."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from commonweight import __version__

app = typer.Typer(
    help="Run open-weight models as complete, guarded assistants behind the Messages API.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
models = typer.Typer(help="See which models are on this machine.", no_args_is_help=True)
app.add_typer(models, name="models")

errors = Console(stderr=True)

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A GGUF file, or `hf:org/repo/file.gguf` to pull one. Default: the starter model.",
        show_default=False,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        min=64,
        help="Most tokens of a prompt and its answer together. Default: the model's own, at most 32768.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads that compute. Default: one a physical core.", show_default=False),
]
Parallel = Annotated[int, typer.Option(min=1, max=64, help="Requests that run at the same time.")]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Options of the command as a whole."""
    if version:
        typer.echo(f"commonweight {__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )


@app.command()
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="COMMONWEIGHT_API_KEY",
            help="Key that clients must show. Needed to listen beyond this machine.",
            show_default=False,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            help="A further name to list the model under; may repeat. Requests may use any name.",
            show_default=False,
        ),
    ] = None,
    context: Context = None,
    parallel: Parallel = 8,
    threads: Threads = None,
) -> None:
    """Serve a model behind **POST /v1/messages**."""
    from commonweight.cli.loading import Setup
    from commonweight.cli.serve import serve as serve_until_interrupted

    setup = Setup(model, context, parallel, threads)
    with asyncio.Runner(loop_factory=_event_loop()) as runner:
        runner.run(serve_until_interrupted(setup, host=host, port=port, api_key=api_key, aliases=alias or []))


@app.command()
def chat(
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.", show_default=False)] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 2048,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="0 always takes the likeliest token.", show_default="1.0"),
    ] = None,
    context: Context = None,
    threads: Threads = None,
) -> None:
    """Talk to a model in the terminal."""
    from commonweight.cli.chat import chat as talk
    from commonweight.cli.loading import Setup

    talk(Setup(model, context, 1, threads), system=system, max_tokens=max_tokens, temperature=temperature)


@models.command("list")
def models_list() -> None:
    """List the models that need no download."""
    from commonweight.cli.models import list_models

    list_models()


@models.command("show")
def models_show(
    model: Annotated[
        str | None,
        typer.Argument(help="A GGUF file or `hf:org/repo/file.gguf`. Default: the starter model."),
    ] = None,
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
        errors.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _is_for_people(error: Exception) -> bool:
    """Whether the message was written for the person at the terminal."""
    from commonweight.catalog.hub import BadReferenceError
    from commonweight.catalog.locate import NoModelError
    from commonweight.engines.contract import EngineError

    return isinstance(error, OSError | BadReferenceError | NoModelError | EngineError)


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
