"""``commonweight serve``."""

import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import re
import shlex
import socket
from collections.abc import Callable, Sequence

import uvicorn
from rich.console import Console

from commonweight import __version__
from commonweight.access import Keyring, Ledger, Limiter
from commonweight.batches import BatchDesk, BatchRunner
from commonweight.cli import checks
from commonweight.cli.data import Data
from commonweight.cli.graceful import GracefulServer
from commonweight.cli.loading import Setup, open_assistant
from commonweight.cli.terminal import UserError, plain_console
from commonweight.cli.tracing import open_tracing
from commonweight.engines.llama import LlamaEngine
from commonweight.files import Library
from commonweight.server import Lifecycle, create_app
from commonweight.store import Database
from commonweight.turn import Assistant

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients keep theirs, or they would meet a closed one."""


def serve(
    setup: Setup,
    data: Data,
    *,
    host: str,
    port: int,
    api_key: str | None,
    aliases: Sequence[str],
    drain: float,
    keep_content: float | None,
    file_quota: int,
) -> None:
    """Load the model, pulling it if need be, and serve it until interrupted.

    Requests that run then have ``drain`` seconds to finish. What is asked and answered is kept for
    ``keep_content`` days, and not at all without. Each tenant's files may have ``file_quota`` bytes.
    """
    _check_key(api_key)
    checks.insist(checks.data_folder(data))
    checks.insist(checks.cache_folder())
    with asyncio.Runner(loop_factory=_event_loop()) as runner:
        runner.run(_check_database(data, host, api_key))
        # Taken before the model loads: to learn minutes later that the port is in use would be a poor joke.
        with listener_at(host, port) as listener:
            setup = setup.located()
            url = _url(host, listener.getsockname()[1])
            runner.run(_serve(setup, data, listener, url, api_key, aliases, drain, keep_content, file_quota))


async def _serve(
    setup: Setup,
    data: Data,
    listener: socket.socket,
    url: str,
    api_key: str | None,
    aliases: Sequence[str],
    drain: float,
    keep_content: float | None,
    file_quota: int,
) -> None:
    console = plain_console()
    sizes: list[str] = []
    lifecycle = Lifecycle()
    async with contextlib.AsyncExitStack() as services:
        # What is entered here is left in the reverse order, after the last answer.
        tracer_provider = await services.enter_async_context(open_tracing())
        database = await services.enter_async_context(Database.open(data.database_url))
        ledger = await services.enter_async_context(Ledger.open(database, keep_content))
        library = await services.enter_async_context(Library.open(database, data.folder / "files", file_quota))
        assistant = await services.enter_async_context(
            open_assistant(setup, plain_console(stderr=True), sizes.append, data)
        )
        assistant.listeners.append(ledger.on_turn)
        keyring = Keyring(api_key, database)
        has_key = await keyring.needs_key()
        # What gives the engine work of its own accord is entered here, and left as soon as draining begins.
        background = await services.enter_async_context(contextlib.AsyncExitStack())
        runner = BatchRunner(assistant, database)
        await background.enter_async_context(runner.running())
        app = create_app(
            assistant,
            keyring,
            aliases,
            limiter=Limiter(database),
            batches=BatchDesk(database, data.folder, runner.look),
            library=library,
            lifecycle=lifecycle,
            probes={"database": database.ping},
            tracer_provider=tracer_provider,
        )
        assert isinstance(assistant.engine, LlamaEngine)
        server = GracefulServer(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=KEEP_ALIVE),
            lifecycle,
            patience=drain,
            on_started=lambda: _welcome(console, assistant, url, sizes, has_key=has_key),
            console=console,
            leave_off=background.aclose,
            hang_up=assistant.engine.close,
        )
        await server.serve(sockets=[listener])


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _check_key(api_key: str | None) -> None:
    if api_key == "":
        raise UserError("the API key is empty; is the variable set that it was taken from?")
    if api_key is not None and not re.fullmatch(r"[!-~]+", api_key):
        raise UserError("an API key travels in a header: use ASCII letters, digits and signs, and no spaces")


async def _check_database(data: Data, host: str, api_key: str | None) -> None:
    """Bring it up to date, and see that nobody comes in without a key but from this machine."""
    async with Database.open(data.database_url) as database:
        if not _is_this_machine(host) and not await Keyring(api_key, database).needs_key():
            raise UserError(
                f"{host} lets other machines in: create a key first with `commonweight keys create NAME`, "
                "or set --api-key or COMMONWEIGHT_API_KEY"
            )


def listener_at(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        UserError: it cannot, for the reason given.
    """
    try:
        (family, *_), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # The reason anew, because asyncio's and the socket module's own texts repeat the address.
        reason, advice = error.strerror, "is that an address of this machine?"
        match error.errno:
            case errno.EADDRINUSE:
                reason, advice = "something else listens there", "try another --port, or 0 for a free one"
            case errno.EACCES:
                reason, advice = os.strerror(errno.EACCES), "try a --port of 1024 or more"
            case errno.EADDRNOTAVAIL:
                reason = os.strerror(errno.EADDRNOTAVAIL)
        raise UserError(f"cannot listen on {host}:{port}: {reason}; {advice}") from error


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(host: str, port: int) -> str:
    # An address that means "all of them" is none that a client could use.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _welcome(console: Console, assistant: Assistant, url: str, sizes: Sequence[str], *, has_key: bool) -> None:
    card = assistant.card
    request = {"model": card.id, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}
    key_header = ' -H "x-api-key: $COMMONWEIGHT_API_KEY"' if has_key else ""
    token = '"$COMMONWEIGHT_API_KEY"' if has_key else "any"
    body = shlex.quote(json.dumps(request))
    for line in (
        f"Commonweight {__version__} serves {card.id}, {assistant.engine.window} tokens of context, at",
        "",
        f"    {url}",
        "",
        *sizes,
        "",
        "Try it, with the key in COMMONWEIGHT_API_KEY:" if has_key else "Try it:",
        "",
        f"    curl {url}/v1/messages -H 'content-type: application/json'{key_header} -d {body}",
        "",
        "Point an SDK or a coding agent at it:",
        "",
        f"    export ANTHROPIC_BASE_URL={url}",
        f"    export ANTHROPIC_AUTH_TOKEN={token}",
        "",
        "Ctrl-C stops it.",
    ):
        # Lines to copy must not be wrapped.
        console.print(line, soft_wrap=True)
