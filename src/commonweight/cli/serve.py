"""``commonweight serve``."""

import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import re
import resource
import shlex
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from commonweight import __version__
from commonweight.access import Keyring, Ledger, Limiter
from commonweight.batches import BatchRunner, BatchService
from commonweight.cli import checks
from commonweight.cli.data import Data
from commonweight.cli.graceful import GracefulServer
from commonweight.cli.loading import Setup, open_assistant
from commonweight.cli.terminal import UserError, plain_console
from commonweight.cli.tracing import open_tracing
from commonweight.engines.llama import LlamaEngine
from commonweight.engines.remote import RemoteEngine
from commonweight.files import Library
from commonweight.server import MAX_CONNECTIONS, Lifecycle, create_app, make_uvicorn_config
from commonweight.store import Database
from commonweight.turn import Assistant

FILES = 2 * MAX_CONNECTIONS + 200
"""Open files that a server may need: connections, an upload for each, the database, the engine."""


@dataclass(frozen=True)
class Network:
    """Where a server listens, and for whom."""

    host: str
    port: int
    tls_cert: Path | None = None
    """PEM, with its chain. None: plain HTTP."""
    tls_key: Path | None = None
    """None: it is in the same file."""
    cors_origins: Sequence[str] = ()
    """Whose web pages may use the server."""


def serve(
    setup: Setup,
    data: Data,
    network: Network,
    *,
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
    _check_origins(network.cors_origins)
    tls = _tls(network.tls_cert, network.tls_key)
    _raise_file_limit()
    checks.insist(checks.data_folder(data))
    checks.insist(checks.cache_folder())
    with asyncio.Runner(loop_factory=_event_loop()) as runner:
        runner.run(_check_database(data, network.host, api_key))
        # Taken before the model loads: to learn minutes later that the port is in use would be a poor joke.
        with listener_at(network.host, network.port) as listener:
            setup = setup.located()
            served = replace(network, port=listener.getsockname()[1])
            runner.run(
                _serve(setup, data, served, listener, tls, api_key, aliases, drain, keep_content, file_quota)
            )


async def _serve(
    setup: Setup,
    data: Data,
    network: Network,
    listener: socket.socket,
    tls: ssl.SSLContext | None,
    api_key: str | None,
    aliases: Sequence[str],
    drain: float,
    keep_content: float | None,
    file_quota: int,
) -> None:
    console = plain_console()
    url = _url(network)
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
            batches=BatchService(database, data.folder, runner.look),
            library=library,
            lifecycle=lifecycle,
            probes={"database": database.ping},
            tracer_provider=tracer_provider,
            cors_origins=network.cors_origins,
        )
        assert isinstance(assistant.engine, LlamaEngine | RemoteEngine)
        server = GracefulServer(
            make_uvicorn_config(app, ssl_context_factory=(lambda *_: tls) if tls else None),
            lifecycle,
            patience=drain,
            on_started=lambda: _welcome(console, assistant, url, sizes, has_key=has_key),
            console=console,
            leave_off=background.aclose,
            hang_up=assistant.engine.aclose,
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


def _check_origins(origins: Sequence[str]) -> None:
    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@*]+", origin):
            raise UserError(f"--cors-origin {origin}: write it like https://example.com, with nothing after it")


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise UserError("--tls-key is of no use without --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # With no password given, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = "no certificate with its unencrypted key" if isinstance(error, ssl.SSLError) else error.strerror
        raise UserError(f"cannot use {' and '.join(map(str, filter(None, (cert, key))))}: {reason}") from error
    return context


def _raise_file_limit() -> None:
    """Many systems let a process open fewer files than the server takes connections, unless it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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


def _url(network: Network) -> str:
    # An address that means "all of them" is none that a client could use.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(network.host, network.host)
    scheme = "http" if network.tls_cert is None else "https"
    return f"{scheme}://[{name}]:{network.port}" if ":" in name else f"{scheme}://{name}:{network.port}"


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
