"""Real servers that compute: vLLM on this processor, where ``make vllm`` put it, and llama-server.

One of each for a whole run; whoever stops it starts it again.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from benchmarks.servers import find_llama_server

from commonweight.catalog.starter import find_starter

VLLM = Path(__file__).parents[2] / ".venv" / "vllm"
WINDOW = 4096
LONGEST_START = 300.0
"""Seconds. vLLM imports for half a minute before it loads anything."""


class Machine:
    """A server that tests may kill and start again, at the same address."""

    def __init__(self, kind: str, command: list[str], log: Path, **environment: str) -> None:
        self.kind = kind
        self.log = log
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*command, "--port", str(port)]
        self._environment = os.environ | environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + LONGEST_START
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health").is_success:
                    return
            time.sleep(0.5)
        pytest.fail(f"{self.kind} did not start:\n{self.log.read_text()[-3000:]}", pytrace=False)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it with all its processes. SIGKILL is as if the machine lost power."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[Machine]:
    """It runs until the block ends."""
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()


def vllm(log: Path) -> Machine:
    """vLLM with the starter model, as ``docs/scaling.md`` starts it."""
    if not (VLLM / "installed").exists():
        pytest.skip("vLLM is not installed; `make vllm` does it")
    command = [
        *(str(VLLM / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(VLLM / "model"), "--served-model-name", "starter", "--max-model-len", str(WINDOW)),
        *("--enable-scale-out", "--enable-prompt-tokens-details", "--scheduling-policy", "priority"),
        *("--structured-outputs-config", '{"backend": "guidance"}', "--enforce-eager"),
    ]
    return Machine("vllm", command, log, VLLM_CPU_KVCACHE_SPACE="2", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1")


def llama_server(log: Path) -> Machine:
    """llama.cpp's own server with the same model."""
    binary, environment = find_llama_server()
    command = [
        *(str(binary), "--model", str(find_starter()), "--host", "127.0.0.1", "--no-ui"),
        *("--parallel", "8", "--ctx-size", str(8 * WINDOW), "--threads", "2"),
    ]
    return Machine("llama-server", command, log, **environment)


MAKERS = {"vllm": vllm, "llama-server": llama_server}
