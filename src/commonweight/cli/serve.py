"""``commonweight serve``."""

import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import re
import shlex
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from rich.console import Console

from commonweight import __version__
from commonweight.access import Keyring
from commonweight.cli.loading import Setup, open_assistant
from commonweight.cli.terminal import UserError, plain_console
from commonweight.engines.llama import LlamaEngine
from commonweight.server import create_app
from commonweight.turn import Assistant

PATIENCE_AT_EXIT = 5
"""Seconds that running requests get to finish."""
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients keep theirs, or they would meet a closed one."""
LAST_RESORT = 20
"""Seconds after which requests are dropped that not even a closed engine could end."""


def serve(setup: Setup, *, host: str, port: int, api_key: str | None, aliases: Sequence[str]) -> None:
    """Load the model, pulling it if need be, and serve it until interrupted."""
    _check_key(api_key, host)
    # Taken before the model loads: to learn minutes later that the port is in use would be a poor joke.
    with _listener(host, port) as listener:
        setup = setup.located()
        with asyncio.Runner(loop_factory=_event_loop()) as runner:
            url = _url(host, listener.getsockname()[1])
            runner.run(_serve(setup, listener, url, api_key, aliases))


async def _serve(
    setup: Setup, listener: socket.socket, url: str, api_key: str | None, aliases: Sequence[str]
) -> None:
    console = plain_console()
    sizes: list[str] = []
    async with open_assistant(setup, plain_console(stderr=True), sizes.append) as assistant:
        config = uvicorn.Config(
            create_app(assistant, Keyring(api_key), aliases),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=LAST_RESORT,
        )

        def welcome() -> None:
            _welcome(console, assistant, url, sizes, has_key=api_key is not None)

        assert isinstance(assistant.engine, LlamaEngine)
        await _Server(config, assistant.engine, console, welcome).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Uvicorn with an end that clients understand: what still runs gets an error of the API, not a cut line."""

    def __init__(
        self, config: uvicorn.Config, engine: LlamaEngine, console: Console, on_started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._console = console
        self._on_started = on_started
        self._in_a_hurry = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Obey signals, without raising them again in the end as uvicorn does: the engine is still open then."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        yield

    def _on_signal(self) -> None:
        if self.should_exit:
            self._in_a_hurry.set()
        elif self.server_state.tasks:
            self._console.print(
                f"\nStopping. Running requests get {PATIENCE_AT_EXIT} seconds; Ctrl-C again ends them now."
            )
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the address once it is served, and signals are obeyed."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests finish; those that take too long end with the engine."""
        hanging_up = asyncio.create_task(self._hang_up())
        try:
            await super().shutdown(sockets)
        finally:
            # Not cancelled: a close that is cut in half would leave the engine process behind.
            self._in_a_hurry.set()
            await hanging_up

    async def _hang_up(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._in_a_hurry.wait(), PATIENCE_AT_EXIT)
        await self._engine.close()


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _check_key(api_key: str | None, host: str) -> None:
    if api_key is None:
        if not _is_this_machine(host):
            raise UserError(f"{host} lets other machines in: set --api-key or COMMONWEIGHT_API_KEY as well")
    elif not api_key:
        raise UserError("the API key is empty; is the variable set that it was taken from?")
    elif not re.fullmatch(r"[!-~]+", api_key):
        raise UserError("an API key travels in a header: use ASCII letters, digits and signs, and no spaces")


def _listener(host: str, port: int) -> socket.socket:
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
