"""Commands and their options. Heavy imports wait inside the commands, so that ``--version`` and help are quick."""

import logging
import sys
from typing import Annotated

import typer

from commonweight import __version__
from commonweight.cli.terminal import UserError, plain_console

app = typer.Typer(
    help="Run open-weight models as complete, guarded assistants behind the Messages API.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode="markdown",
)
models = typer.Typer(help="See which models are on this machine.", no_args_is_help=True)
app.add_typer(models, name="models")

errors = plain_console(stderr=True)

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A GGUF file, or `hf:org/repo/file.gguf` to pull one. Default: the starter model.",
        show_default=False,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        min=64,
        metavar="TOKENS",
        help="Room for a prompt and its answer together. Default: the model's own, at most 32768.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="CPU threads that compute. Default: one for each physical core.",
        show_default=False,
    ),
]
Parallel = Annotated[int, typer.Option(min=1, max=64, metavar="N", help="How many requests run at the same time.")]


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
            help="Key that clients must show. Needed to listen beyond this machine.",
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
    context: Context = None,
    parallel: Parallel = 8,
    threads: Threads = None,
) -> None:
    """Serve a model behind **POST /v1/messages**."""
    from commonweight.cli.loading import Setup
    from commonweight.cli.serve import serve as serve_until_interrupted

    setup = Setup(model, context, parallel, threads)
    serve_until_interrupted(setup, host=host, port=port, api_key=api_key, aliases=alias or [])


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
) -> None:
    """Talk to a model in the terminal, or have it answer the lines of a pipe."""
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
        typer.Argument(
            metavar="MODEL",
            help="A GGUF file, or `hf:org/repo/file.gguf` to pull one. Default: the starter model.",
        ),
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
        errors.print(f"Error: {error}", style="red", soft_wrap=True)
        sys.exit(1)


def _is_for_people(error: Exception) -> bool:
    """Whether the message was written for the person at the terminal."""
    from commonweight.catalog.hub import BadReferenceError
    from commonweight.catalog.locate import NoModelError
    from commonweight.engines.contract import EngineError

    return isinstance(error, UserError | OSError | BadReferenceError | NoModelError | EngineError)
