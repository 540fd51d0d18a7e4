"""Sandboxed subprocesses in which chat templates are rendered, because templates are programs from a model file.

Jinja's sandbox keeps a template from Python's internals. It does not keep it from computing for an hour or filling
the memory, and escapes from it are found now and then. So the process around it has no files, no network, little
memory and little time. A process that exceeds its limits is killed, and the next conversation gets a new one.
"""

import atexit
import marshal
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import IO

from commonweight.prompting.template import sandbox_worker
from commonweight.prompting.template.sandbox_worker import LENGTH

MAX_PROCESSES = 2
"""Renders at the same time: one of a long conversation, and one for the short ones meanwhile."""
RENDER_TIMEOUT_SECONDS = 60.0
"""Wall-clock limit of a render, on a machine that is busy with other things."""

# Variables that Python and the time of day need. Keys and passwords of the server's environment are not passed.
_PASSED_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
_CHUNK_BYTES = 1 << 20


class RenderError(Exception):
    """The template raised an error; the message is the template's."""


class LimitError(RenderError):
    """The template exceeded its time or memory limit."""


class TemplateError(Exception):
    """The template cannot be compiled; the message gives the line and the reason."""


class Sandbox:
    """Pool of sandboxed processes that render templates. Safe to use from several threads."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []
        self._slots = threading.Semaphore(MAX_PROCESSES)

    def render(
        self,
        source: str,
        variables: Mapping[str, object],
        seconds: float,
        stand_ins: sandbox_worker.StandIns = (),
    ) -> str:
        """Render a template within some seconds of processor time, with ``stand_ins`` in its literals.

        Raises:
            RenderError: the template raised an error, or exceeded a limit.
            TemplateError: the template cannot be compiled.
        """
        request = marshal.dumps((seconds, source, stand_ins, dict(variables)))
        with self._slots:
            process = self._acquire()
            try:
                kind, text = process.ask(request)
            except BaseException:
                process.kill()
                raise
            self._idle.append(process)
        match kind:
            case sandbox_worker.TEXT:
                return text
            case sandbox_worker.BROKEN:
                raise TemplateError(text)
            case sandbox_worker.EXCEEDED:
                raise LimitError(f"it {text}")
            case _:
                raise RenderError(text)

    def close(self) -> None:
        """Kill the idle processes."""
        while self._idle:
            self._idle.pop().kill()

    def _acquire(self) -> "_Process":
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            process.kill()
        return _Process()


@cache
def get_shared_sandbox() -> Sandbox:
    """The sandbox that all templates of this process share."""
    shared = Sandbox()
    atexit.register(shared.close)
    return shared


class _Process:
    """One subprocess. It exits when the server's process is gone, because its stdin ends then."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", sandbox_worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ},
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)

    @property
    def is_alive(self) -> bool:
        """Whether the process has not exited."""
        return self._process.poll() is None

    def ask(self, request: bytes) -> tuple[int, str]:
        """Send a request; returns the kind and text of the reply, of bounded length even if an exploit wrote it.

        Raises:
            LimitError: the process exited, or took too long.
        """
        deadline = time.monotonic() + RENDER_TIMEOUT_SECONDS
        try:
            for part in (LENGTH.pack(len(request)), request):
                self._write(part, deadline)
            head = self._read(LENGTH.size + 1, deadline)
            length, *_ = LENGTH.unpack_from(head)
            if length > 4 * sandbox_worker.MAX_CHARACTERS:
                raise LimitError("it makes too long a prompt")
            return head[-1], self._read(length, deadline).decode(errors="surrogatepass")
        except (BrokenPipeError, UnicodeDecodeError) as error:
            raise self._make_exit_error() from error

    def kill(self) -> None:
        """Kill the process and close its pipes."""
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(self._input, select.POLLOUT, deadline)
            rest = rest[os.write(self._input.fileno(), rest[:_CHUNK_BYTES]) :]

    def _read(self, length: int, deadline: float) -> bytearray:
        data = bytearray()
        while len(data) < length:
            self._wait(self._output, select.POLLIN, deadline)
            chunk = os.read(self._output.fileno(), min(length - len(data), _CHUNK_BYTES))
            if not chunk:
                raise self._make_exit_error()
            data += chunk
        return data

    def _wait(self, pipe: IO[bytes], event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise LimitError("it takes too long")

    def _make_exit_error(self) -> LimitError:
        self._process.kill()  # its pipes may close before it exits; an earlier signal keeps its return code
        is_late = self._process.wait() == -signal.SIGPROF
        return LimitError("it takes too long" if is_late else "it takes too much memory, or ended its process")
