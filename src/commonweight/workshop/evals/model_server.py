"""A model in process, behind a server of the Messages API on loopback: evaluations go where clients go."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import uvicorn

from commonweight.access import Keyring
from commonweight.catalog.reference import FileReference
from commonweight.engines.settings import EngineSettings
from commonweight.guard import Bundle
from commonweight.runtime.assistant import open_assistant
from commonweight.runtime.data import DataFolder
from commonweight.runtime.settings import AssistantSettings, GuardSettings
from commonweight.server import create_app, make_uvicorn_config
from commonweight.turn import Assistant


class _Server(uvicorn.Server):
    """Signals stay with the process that evaluates."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def open_model(path: Path, *, parallel: int, guard: GuardSettings | None = None) -> AsyncIterator[Assistant]:
    """Load a model, alone or with a guard; nothing of it is kept on disk.

    Args:
        guard: its bundle is taken at its word: it comes out of a build, whose record has its digest.
    """
    with tempfile.TemporaryDirectory() as folder:  # of the key that signs reasoning
        data = DataFolder(Path(folder))
        if guard is not None and guard.bundle is not None:
            signed = Path(folder) / guard.bundle.name
            Bundle.load(guard.bundle, None).save(signed, data.load_key())
            guard = replace(guard, bundle=signed)
        settings = AssistantSettings(
            model=str(FileReference(path)), engine=EngineSettings(parallel=parallel, cache_disk=0), guard=guard
        )
        async with open_assistant(settings, data=data, report=lambda _line: None) as assistant:
            yield assistant


@contextlib.asynccontextmanager
async def serve_model(assistant: Assistant) -> AsyncIterator[str]:
    """Serve a model on a free port of the loopback interface until the block exits; yields the base URL."""
    server = _Server(make_uvicorn_config(create_app(assistant, Keyring(None)), timeout_graceful_shutdown=5))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
