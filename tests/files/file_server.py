"""A server with a library and two tenants, whose model reads from a script."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from commonweight.access import Keyring
from commonweight.access.keyring import make_key
from commonweight.access.principal import Scope
from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.catalog.resolve import resolve
from commonweight.files import Library
from commonweight.prompting import Tokenizer
from commonweight.server import create_app
from commonweight.signing import Purpose, Signer
from commonweight.store import Database
from commonweight.store.keys import add_key
from commonweight.turn import Assistant
from replay import Replay, Script


@dataclass(frozen=True)
class FileServer:
    """Where it is, and whose keys it knows."""

    url: str
    engine: Replay
    library: Library
    alice: str
    """The key of one tenant."""
    bob: str
    """That of another."""
    models_only: str
    """One of the first tenant's that is not for files."""


@contextlib.asynccontextmanager
async def serving(
    database: Database, folder: Path, script: Script = lambda _: "Fine.", quota: int = 10**9
) -> AsyncIterator[FileServer]:
    """Serve until the block ends, in this very loop."""
    scopes: dict[str, frozenset[Scope]] = {
        "alice": frozenset({"models", "files"}),
        "bob": frozenset({"models", "files"}),
        "alice's other": frozenset({"models"}),
    }
    keys = {name: make_key(name, name.split("'")[0], scope) for name, scope in scopes.items()}
    for key in keys.values():
        await add_key(database, key.record)
    with contextlib.closing(Gguf(resolve(None))) as gguf:
        tokenizer = Tokenizer(gguf)
        engine = Replay(tokenizer, script)
        async with Library.open(database, folder, quota) as library:
            signer = Signer(bytes(32), Purpose.THINKING_SIGNATURE)
            assistant = Assistant(ModelCard.from_gguf(gguf), tokenizer, engine, signer, files=library.load)
            app = create_app(assistant, Keyring(None, database), library=library)
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
            with socket.create_server(("127.0.0.1", 0)) as listener:
                task = asyncio.create_task(server.serve(sockets=[listener]))
                try:
                    while not server.started:
                        await asyncio.sleep(0.01)
                    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                    yield FileServer(url, engine, library, *(key.secret for key in keys.values()))
                finally:
                    server.should_exit = True
                    await task
