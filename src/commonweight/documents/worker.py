"""Subprocess that extracts text from documents: ``python worker.py LIMITS``, with frames on stdin and stdout.

It is started by its path and imports nothing of commonweight, so that it starts fast and stays small. PDFium is
C++ that reads files from anywhere: it runs here without files, sockets and processes of its own, and with limits
on memory, time, pages and characters for all documents of a request together.
"""

import codecs
import contextlib
import json
import os
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pypdfium2

INVALID = "The PDF specified was not valid"
"""How messages about files that cannot be read begin, in the API's words."""

LENGTH = struct.Struct("<Q")
TEXT, REFUSED = b"tr"
"""Kinds of replies: pages as a JSON array; a message that says why there are none."""
OUT_OF_MEMORY = 3
"""Exit status: a document needed more memory than it may."""

_WATCH_INTERVAL_SECONDS = 0.02
_ADDRESS_SPACE_FACTOR = 2
_KILLED_FIRST = b"1000"
# PDFium's character for a hyphen at the end of a line; it leaves out the line break after it.
_LINE_END_HYPHEN = "\x02"


@dataclass(frozen=True)
class Limits:
    """Limits of the documents of one request, together."""

    pages: int = 600
    characters: int = 5_000_000
    seconds: float = 30.0
    """Of processor time."""
    memory: int = 512 * 2**20
    """Bytes of the process, with the document itself."""

    def to_json(self) -> str:
        """The command line's argument."""
        return json.dumps(asdict(self))


class _LimitError(Exception):
    """A document has more than it may; the message says of what."""


class _Reader:
    """Reads documents, and counts what the limits leave."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pages, self._characters = limits.pages, limits.characters

    def read_pdf(self, data: bytes) -> tuple[int, str]:
        """Kind and text of the reply to a PDF file."""
        import pypdfium2

        try:
            with pypdfium2.PdfDocument(data) as pdf:
                self._pages -= len(pdf)
                if self._pages < 0:
                    return REFUSED, f"A maximum of {self._limits.pages} PDF pages may be provided."
                return TEXT, json.dumps([self._read_page(page) for page in pdf], ensure_ascii=False)
        except _LimitError as error:
            return REFUSED, str(error)
        except pypdfium2.PdfiumError as error:
            if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
                return REFUSED, "The PDF specified is password protected."
            return REFUSED, f"{INVALID}: it could not be read as a PDF"

    def _read_page(self, page: "pypdfium2.PdfPage") -> str:
        text_page = page.get_textpage()
        self._characters -= text_page.count_chars()
        if self._characters < 0:
            raise _LimitError(
                f"the PDF files of a request may hold {self._limits.characters} characters of text together"
            )
        text: str = text_page.get_text_bounded()
        text_page.close()
        page.close()
        return text.replace("\r\n", "\n").replace(_LINE_END_HYPHEN, "-")


def _make_memory_reader() -> Callable[[], int]:
    """Make a function that returns the bytes of memory that this process has at the moment."""
    # Not getrusage: its highest value begins with that of the process which started this one.
    if sys.platform != "linux":
        import psutil

        return lambda: psutil.Process().memory_info().rss
    page = resource.getpagesize()
    file = os.open("/proc/self/statm", os.O_RDONLY)  # its second number: resident pages
    return lambda: int(os.pread(file, 100, 0).split()[1]) * page


def _watch_memory(limit: int, read_memory: Callable[[], int]) -> None:
    """End the process when it has more memory than the limit; PDFium runs without the interpreter's lock."""
    while read_memory() <= limit:
        time.sleep(_WATCH_INTERVAL_SECONDS)
    os._exit(OUT_OF_MEMORY)


def _confine(limits: Limits) -> None:
    """Drop the rights to more memory, files, sockets and processes, which reading does not need."""
    with contextlib.suppress(OSError):  # Linux: if memory runs out after all, this process goes before the server
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, _KILLED_FIRST)
        os.close(fd)
    with contextlib.suppress(OSError):
        os.nice(5)  # answers that are being written come first
    kinds = {
        # The second limit, for what comes between two looks of the first; not all systems keep to it.
        resource.RLIMIT_AS: _ADDRESS_SPACE_FACTOR * limits.memory,
        resource.RLIMIT_NOFILE: 3,  # the standard ones, which are open
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in kinds.items():
        with contextlib.suppress(ValueError, OSError):  # some systems do not know them all
            resource.setrlimit(kind, (limit, limit))
    # Processor time, so that a busy machine causes no errors; the signal ends the process even in C code.
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)


def _load_modules() -> None:
    """Load what the library loads on first use, while files can still be opened."""
    import pypdfium2

    codecs.lookup("utf-16-le")
    with pypdfium2.PdfDocument.new() as pdf:
        pdf.new_page(9, 9).get_textpage().get_text_bounded()


def _serve(requests: BinaryIO, replies: BinaryIO, limits: Limits) -> None:
    _load_modules()
    threading.Thread(target=_watch_memory, args=[limits.memory, _make_memory_reader()], daemon=True).start()
    _confine(limits)
    reader = _Reader(limits)
    while length := requests.read(LENGTH.size):
        try:
            kind, text = reader.read_pdf(requests.read(*LENGTH.unpack(length)))
            reply = text.encode(errors="replace")
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        replies.write(LENGTH.pack(len(reply)) + bytes([kind]))
        replies.write(reply)
        replies.flush()


if __name__ == "__main__":
    # Ctrl-C, and a service manager's stop, reach every process of the group; this one exits when stdin ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _serve(sys.stdin.buffer, sys.stdout.buffer, Limits(**json.loads(sys.argv[1])))
