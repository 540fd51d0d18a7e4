"""Text of documents, read in child processes with limits on memory, time, pages and characters.

A document comes from anywhere, and its parser is a large C++ library: what goes wrong in it must cost one request,
not the server. Each request has a process of its own, so that no document meets another tenant's.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Self

from commonweight.documents import worker
from commonweight.documents.worker import INVALID, LENGTH, Limits

MAX_PDF_BYTES = 32 * 2**20
"""Limit of one file."""
TIMEOUT_SECONDS = 120.0
"""Wall-clock limit of one document, on a machine that is busy with other things."""
EXIT_SECONDS = 1.0
"""Time that a process has to exit once its pipes are closed."""

# Variables that Python needs. Keys and passwords of the server's environment are not passed.
_PASSED_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
# JSON may write a character in six bytes, and quotes pages.
_BYTES_PER_CHARACTER = 6


class DocumentError(Exception):
    """A document cannot be read. The message has the API's words, by which agents go on without it."""


class DocumentReader:
    """Reads the documents of one request, one after the other, inside of an ``async with`` block.

    Its process starts with the first, and is killed when the block ends.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await _kill(self._process)

    async def read_pdf(self, data: bytes) -> list[str]:
        """The text of each page of a PDF file, empty for a scanned page.

        Raises:
            DocumentError: it is no PDF, needs a password, is too long, or takes too much to read.
        """
        if len(data) > MAX_PDF_BYTES:
            raise DocumentError(f"the PDF is too large: {len(data)} bytes > {MAX_PDF_BYTES} maximum")
        if self._process is None:
            self._process = await _start_worker(self._limits)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                kind, text = await self._ask(self._process, data)
        except TimeoutError as error:
            raise DocumentError(f"{INVALID}: reading it takes too long") from error
        if kind == worker.REFUSED:
            raise DocumentError(text)
        return await asyncio.to_thread(_parse_pages, text)

    async def _ask(self, process: asyncio.subprocess.Process, data: bytes) -> tuple[int, str]:
        """Kind and text of the reply, of bounded length even if an exploit wrote it."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(LENGTH.pack(len(data)))
            process.stdin.write(data)
            await process.stdin.drain()
            head = await process.stdout.readexactly(LENGTH.size + 1)
            length, *_ = LENGTH.unpack_from(head)
            if length > _BYTES_PER_CHARACTER * (self._limits.characters + self._limits.pages):
                raise DocumentError(f"{INVALID}: its text is too long")
            return head[-1], (await process.stdout.readexactly(length)).decode(errors="replace")
        except (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError) as error:
            raise DocumentError(await _describe_exit(process)) from error


async def _start_worker(limits: Limits) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        worker.__file__,
        limits.to_json(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ},
    )


async def _kill(process: asyncio.subprocess.Process) -> int:
    """Kill a process unless it has ended; returns its exit status, negative for the signal that ended it."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    return await process.wait()


async def _describe_exit(process: asyncio.subprocess.Process) -> str:
    """Why a process ended."""
    # Its pipes may close before it exits. To kill a process that is just ending may take its status from asyncio.
    try:
        async with asyncio.timeout(EXIT_SECONDS):
            status = await process.wait()
    except TimeoutError:
        status = await _kill(process)
    match status:
        case code if code == -signal.SIGPROF:
            return f"{INVALID}: reading it takes too long"
        case worker.OUT_OF_MEMORY:
            return f"{INVALID}: reading it takes too much memory"
        case _:  # also where PDFium aborts because an allocation failed
            return f"{INVALID}: reading it takes too much memory, or breaks its parser"


def _parse_pages(text: str) -> list[str]:
    try:
        return [str(page) for page in json.loads(text)]
    except (ValueError, TypeError, RecursionError) as error:  # an exploit may write anything
        raise DocumentError(f"{INVALID}: it could not be read as a PDF") from error
