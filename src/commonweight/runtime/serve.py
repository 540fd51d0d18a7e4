"""Running a server: an assistant behind HTTP, with keys, batches, files and graceful shutdown."""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp

from commonweight.access import Keyring, Ledger, Limiter
from commonweight.batches import BatchRunner, BatchService
from commonweight.files import Library
from commonweight.runtime.assistant import OnProgress, open_assistant, resolve_model
from commonweight.runtime.data import DataFolder
from commonweight.runtime.disk import DiskProbe
from commonweight.runtime.errors import UserError
from commonweight.runtime.findings import check_cache_folder, check_data_folder, require
from commonweight.runtime.network import bind_listener, check_key, check_origins, is_loopback, load_tls, make_url
from commonweight.runtime.settings import AssistantSettings, ServerSettings
from commonweight.runtime.shutdown import GracefulServer
from commonweight.runtime.tracing import open_tracing
from commonweight.server import (
    MAX_CONNECTIONS,
    Lifecycle,
    Metrics,
    create_app,
    make_turn_listeners,
    make_uvicorn_config,
)
from commonweight.store import Database
from commonweight.turn import Assistant

MAX_OPEN_FILES = 2 * MAX_CONNECTIONS + 200
"""Files that a server may need: connections, an upload for each, the database, the engine."""


@dataclass(frozen=True)
class RunningServer:
    """A server that accepts requests."""

    assistant: Assistant
    url: str
    lines: Sequence[str]
    """For people: the charter, the memory that was set aside."""
    has_key: bool
    """Whether requests need a key."""


@dataclass(frozen=True, kw_only=True)
class ServerCallbacks:
    """Callbacks of a server that starts and shuts down."""

    on_progress: OnProgress
    on_started: Callable[[RunningServer], None]
    on_draining: Callable[[float], None]
    """Gets the seconds that running requests have."""


def serve(
    settings: AssistantSettings,
    server: ServerSettings,
    data: DataFolder,
    *,
    callbacks: ServerCallbacks,
    mounts: Mapping[str, ASGIApp] | None = None,
) -> None:
    """Load the model, pulling it if need be, and serve it until interrupted.

    Args:
        mounts: further applications by path.

    Raises:
        UserError: the settings cannot be used.
    """
    check_key(server.api_key)
    check_origins(server.cors_origins)
    tls = load_tls(server.tls_cert, server.tls_key)
    _raise_file_limit()
    require(check_data_folder(data))
    require(check_cache_folder())
    with asyncio.Runner(loop_factory=_select_event_loop()) as runner:
        runner.run(_check_access(data, server.host, server.api_key))
        # Bound before the slow load: a port in use is known at once.
        with bind_listener(server.host, server.port) as listener:
            settings = resolve_model(settings)
            runner.run(_serve(settings, server, data, listener, tls, callbacks, mounts))


async def _serve(
    settings: AssistantSettings,
    server: ServerSettings,
    data: DataFolder,
    listener: socket.socket,
    tls: ssl.SSLContext | None,
    callbacks: ServerCallbacks,
    mounts: Mapping[str, ASGIApp] | None,
) -> None:
    url = make_url(server, listener.getsockname()[1])
    lines: list[str] = []
    lifecycle = Lifecycle()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as services:
        # What is entered here is left in the reverse order, after the last answer.
        tracer_provider = await services.enter_async_context(open_tracing())
        database = await services.enter_async_context(Database.open(data.database_url))
        ledger = await services.enter_async_context(Ledger.open(database, server.keep_content or None))
        files = await services.enter_async_context(Library.open(database, data.path / "files", server.file_quota))
        limiter = Limiter(database)
        assistant = await services.enter_async_context(
            open_assistant(
                settings,
                data=data,
                files=files.load,
                listeners=[ledger.on_turn, *make_turn_listeners(metrics, limiter, tracer_provider)],
                report=lines.append,
                on_progress=callbacks.on_progress,
            )
        )
        keyring = Keyring(server.api_key, database)
        has_key = await keyring.needs_key()
        # What gives the engine work of its own accord is entered here, and left as soon as draining begins.
        background = await services.enter_async_context(contextlib.AsyncExitStack())
        runner = BatchRunner(assistant, database)
        await background.enter_async_context(runner.run_in_background())
        app = create_app(
            assistant,
            keyring,
            server.aliases,
            limiter=limiter,
            metrics=metrics,
            batches=BatchService(database, data.path, runner.wake),
            library=files,
            lifecycle=lifecycle,
            probes={"database": database.ping, "disk": DiskProbe(data.path).check},
            tracer_provider=tracer_provider,
            cors_origins=server.cors_origins,
            mounts=mounts,
        )
        running = RunningServer(assistant, url, lines, has_key)
        uvicorn = GracefulServer(
            make_uvicorn_config(app, ssl_context_factory=(lambda *_: tls) if tls else None),
            lifecycle,
            drain_seconds=server.drain,
            on_started=lambda: callbacks.on_started(running),
            on_draining=callbacks.on_draining,
            stop_background=background.aclose,
            abort_requests=assistant.engine.aclose,
        )
        await uvicorn.serve(sockets=[listener])


def _select_event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Select uvloop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _raise_file_limit() -> None:
    """Raise the limit of open files, which on many systems is lower than the number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _check_access(data: DataFolder, host: str, api_key: str | None) -> None:
    """Migrate the database, and refuse to serve other machines without a key."""
    async with Database.open(data.database_url) as database:
        if not is_loopback(host) and not await Keyring(api_key, database).needs_key():
            raise UserError(
                f"{host} lets other machines in: create a key first with `commonweight keys create NAME`, "
                "or set --api-key or COMMONWEIGHT_API_KEY"
            )
