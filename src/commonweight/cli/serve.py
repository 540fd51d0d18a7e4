"""``commonweight serve``."""

import asyncio
import contextlib
import ipaddress
import json
import signal
import socket
from collections.abc import Iterator, Sequence

import typer
import uvicorn
from rich.console import Console

from commonweight import __version__
from commonweight.access import Keyring
from commonweight.cli.loading import Setup, open_assistant
from commonweight.server import create_app
from commonweight.turn import Assistant

PATIENCE_AT_EXIT = 5
"""Seconds that running requests get to finish."""


async def serve(setup: Setup, *, host: str, port: int, api_key: str | None, aliases: Sequence[str]) -> None:
    """Load the model and serve it until interrupted."""
    if api_key is None and not _is_this_machine(host):
        raise typer.BadParameter(
            f"listening on {host} lets other machines in: set --api-key or COMMONWEIGHT_API_KEY as well"
        )
    console = Console()
    # Taken before the model loads: to learn minutes later that the port is in use would be a poor joke.
    with _listener(host, port) as listener:
        async with open_assistant(setup, console) as assistant:
            config = uvicorn.Config(
                create_app(assistant, Keyring(api_key), aliases),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=PATIENCE_AT_EXIT,
            )
            _welcome(console, assistant, _url(host, listener.getsockname()[1]), has_key=api_key is not None)
            await _Server(config).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn, which would raise the signal again before the engine is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _listener(host: str, port: int) -> socket.socket:
    try:
        (family, *_), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; try another --port") from error


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(host: str, port: int) -> str:
    # An address that means "all of them" is none that a client could use.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _welcome(console: Console, assistant: Assistant, url: str, *, has_key: bool) -> None:
    card = assistant.card
    request = {"model": card.id, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}
    key_header = ' -H "x-api-key: $COMMONWEIGHT_API_KEY"' if has_key else ""
    token = "$COMMONWEIGHT_API_KEY" if has_key else "any"
    for line in (
        f"Commonweight {__version__} serves {card.id}, {assistant.engine.window} tokens of context, at",
        "",
        f"    {url}",
        "",
        "Try it:",
        "",
        f"    curl {url}/v1/messages -H 'content-type: application/json'{key_header} -d '{json.dumps(request)}'",
        "",
        "Point an SDK or a coding agent at it:",
        "",
        f"    export ANTHROPIC_BASE_URL={url}",
        f'    export ANTHROPIC_AUTH_TOKEN="{token}"',
        "",
        "Ctrl-C stops it.",
    ):
        # Lines to copy must not be wrapped or coloured.
        console.print(line, markup=False, highlight=False, soft_wrap=True)
