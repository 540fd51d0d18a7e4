"""Chat templates are programs that came with a model. They run in processes that can do nothing else.

Jinja's sandbox keeps a template from Python's internals. It does not keep it from computing for an hour or filling
the memory, and now and then somebody finds a way out of it. So the process around it has no files, no network,
little memory and little time. When it goes wrong it is killed, and the next conversation gets a new one.
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
"""At the same time: one for a long conversation, one for the short ones meanwhile."""
RENDER_TIMEOUT_SECONDS = 60.0
"""Seconds for a render all in all, on a machine that is busy with other things."""

_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
# What Python and the time of day need. Keys and passwords of the server's environment are not for templates.
_PIECE = 1 << 20


class RenderError(Exception):
    """The template raised; the message is its own."""


class LimitError(RenderError):
    """The template took too much time or memory."""


class TemplateError(Exception):
    """It is no template; the message says where."""


class Sandbox:
    """Renders templates. Safe to use from several threads."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []
        self._room = threading.Semaphore(MAX_PROCESSES)

    def render(self, source: str, variables: Mapping[str, object], seconds: float) -> str:
        """The template's text, for which it may compute for some seconds.

        Raises:
            RenderError: it raised, or took more than it may.
            TemplateError: it cannot be compiled.
        """
        request = marshal.dumps((seconds, source, dict(variables)))
        with self._room:
            process = self._free()
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
        """End the processes that are idle."""
        while self._idle:
            self._idle.pop().kill()

    def _free(self) -> "_Process":
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            process.kill()
        return _Process()


@cache
def shared_sandbox() -> Sandbox:
    """The one of this process, whose templates share it."""
    shared = Sandbox()
    atexit.register(shared.close)
    return shared


class _Process:
    """One process. It leaves by itself when this one is gone, because its input ends then."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", sandbox_worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended meanwhile."""
        return self._process.poll() is None

    def ask(self, request: bytes) -> tuple[int, str]:
        """Its reply, whose length is bounded and whose text is text, whatever has become of the process.

        Raises:
            LimitError: it ended, or took too long.
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
            raise self._death() from error

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(self._input, select.POLLOUT, deadline)
            rest = rest[os.write(self._input.fileno(), rest[:_PIECE]) :]

    def _read(self, length: int, deadline: float) -> bytearray:
        data = bytearray()
        while len(data) < length:
            self._wait(self._output, select.POLLIN, deadline)
            piece = os.read(self._output.fileno(), min(length - len(data), _PIECE))
            if not piece:
                raise self._death()
            data += piece
        return data

    def _wait(self, pipe: IO[bytes], event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise LimitError("it takes too long")

    def _death(self) -> LimitError:
        self._process.kill()  # its pipes may end before itself; a signal that came first is the one that counts
        is_late = self._process.wait() == -signal.SIGPROF
        return LimitError("it takes too long" if is_late else "it takes too much memory, or ended its process")
