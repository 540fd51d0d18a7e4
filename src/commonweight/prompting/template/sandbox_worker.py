"""Subprocess that renders chat templates: ``python sandbox_worker.py``, with frames on stdin and stdout.

It is started by its path and imports nothing of commonweight, so that it starts fast and stays small.
"""

import contextlib
import html  # noqa: F401 - Jinja's filters import this and textwrap on first use, when files are out of reach
import json
import marshal
import resource
import signal
import struct
import sys
import textwrap  # noqa: F401
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO

import jinja2.constants
import jinja2.debug  # noqa: F401 - Jinja imports these on first use, too
from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_BYTES = 1 << 30
"""Limit of the address space: half of it holds the largest request body, escaped and rendered."""
MAX_CHARACTERS = 64_000_000
"""Limit of a prompt: twice the largest request body."""
MAX_ERROR_CHARACTERS = 2000
"""Limit of an error message of the template."""

TEXT, REFUSED, BROKEN, EXCEEDED = b"trbx"
"""Kinds of replies: prompt text; error of the template; error of its compilation; exceeded limit."""

LENGTH = struct.Struct("<Q")


class _Generation(Extension):
    """``{% generation %}``, which marks assistant text for training: rendered as its body."""

    tags = {"generation"}  # noqa: RUF012 - the base class wants a set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:  # noqa: ANN401
    # Jinja's own filter escapes HTML, which templates do not want.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> None:
    raise ValueError(message)


def _strftime_now(format: str) -> str:  # noqa: A002 - templates call it with this name
    return datetime.now().strftime(format)


def _make_compiler() -> Callable[[str], Template]:
    """Template compiler with the settings of ``transformers``.

    Source: https://huggingface.co/docs/transformers/chat_templating_writing
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return lru_cache(8)(environment.from_string)


def _handle_request(
    compiled: Callable[[str], Template], source: str, variables: dict[str, Any]
) -> tuple[int, str]:
    try:
        template = compiled(source)
    except TemplateSyntaxError as error:
        return BROKEN, f"line {error.lineno}: {error.message}"
    except MemoryError:
        return EXCEEDED, "takes too much memory"
    except Exception as error:  # Jinja's compiler raises more than syntax errors
        return BROKEN, str(error)
    try:
        text = template.render(variables)
    except MemoryError:
        return EXCEEDED, "takes too much memory"
    except Exception as error:  # the model's own code may raise anything
        return REFUSED, str(error)[:MAX_ERROR_CHARACTERS]
    if len(text) > MAX_CHARACTERS:
        return EXCEEDED, "makes too long a prompt"
    return TEXT, text


def _lock() -> None:
    """Drop the rights to more memory, files, sockets and processes, which rendering does not need."""
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_NOFILE: 3,  # the standard ones, which are open
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # some systems do not know them all
            resource.setrlimit(kind, (limit, limit))


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    compiled = _make_compiler()
    # Python and Jinja load some modules on first use: now, while files can still be opened.
    _handle_request(compiled, "{{ strftime_now('%Y') }}{{ raise_exception({} | tojson) }}", {})
    time.localtime()
    _lock()
    while length := requests.read(LENGTH.size):
        seconds, source, variables = marshal.loads(requests.read(*LENGTH.unpack(length)))
        # Processor time, so that a busy machine causes no errors; the signal ends the process even in C code.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        kind, text = _handle_request(compiled, source, variables)
        signal.setitimer(signal.ITIMER_PROF, 0)
        reply = text.encode(errors="surrogatepass")
        replies.write(LENGTH.pack(len(reply)) + bytes([kind]))
        replies.write(reply)
        replies.flush()


if __name__ == "__main__":
    # Ctrl-C, and a service manager's stop, reach every process of the group; this one exits when stdin ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _serve(sys.stdin.buffer, sys.stdout.buffer)
