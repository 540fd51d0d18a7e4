"""``commonweight serve``: runs a server, and prints how to reach it."""

import json
import shlex

from rich.console import Console

from commonweight import __version__
from commonweight.cli.greeting import describe_assistant, suggest_next
from commonweight.cli.progress import LoadingBar
from commonweight.cli.terminal import make_console
from commonweight.runtime.data import DataFolder
from commonweight.runtime.serve import RunningServer, ServerCallbacks
from commonweight.runtime.serve import serve as run_server
from commonweight.runtime.settings import AssistantSettings, ServerSettings


def serve(settings: AssistantSettings, server: ServerSettings, data: DataFolder) -> None:
    """Serve until interrupted, with a progress bar while the model loads."""
    console = make_console()
    with LoadingBar(make_console(stderr=True)) as bar:
        run_server(
            settings,
            server,
            data,
            callbacks=ServerCallbacks(
                on_progress=bar.update,
                on_started=lambda running: _print_welcome(console, running),
                on_draining=lambda seconds: console.print(
                    f"\nStopping. Running requests get {seconds:g} seconds; Ctrl-C again ends them now."
                ),
            ),
        )


def _print_welcome(console: Console, running: RunningServer) -> None:
    url = running.url
    question = {"role": "user", "content": "What is the capital of France?"}
    request = {"model": running.assistant.card.id, "max_tokens": 100, "messages": [question]}
    key_header = ' -H "x-api-key: $COMMONWEIGHT_API_KEY"' if running.has_key else ""
    token = '"$COMMONWEIGHT_API_KEY"' if running.has_key else "any"
    body = shlex.quote(json.dumps(request))
    for line in (
        f"Commonweight {__version__} serves {describe_assistant(running.assistant)}",
        *running.lines,
        "",
        f"    {url}",
        "",
        "Try it, with the key in COMMONWEIGHT_API_KEY:" if running.has_key else "Try it:",
        f"    curl {url}/v1/messages -H 'content-type: application/json'{key_header} -d {body}",
        "",
        "Point an SDK or a coding agent at it:",
        f"    export ANTHROPIC_BASE_URL={url}",
        f"    export ANTHROPIC_AUTH_TOKEN={token}",
        "",
        *suggest_next(running.assistant, "serve"),
        "Ctrl-C stops it.",
    ):
        # Lines to copy must not be wrapped.
        console.print(line, soft_wrap=True)
