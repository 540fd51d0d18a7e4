"""Subprocess that renders chat templates: ``python sandbox_worker.py``, with frames on stdin and stdout.

It is started by its path and imports nothing of commonweight, so that it starts fast and stays small.
"""

import contextlib
import html  # noqa: F401 - Jinja's filters import this and textwrap on first use, when files are out of reach
import json
import marshal
import re
import resource
import signal
import struct
import sys
import textwrap  # noqa: F401
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, partial
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

ROLES = ("system", "user", "assistant", "tool", "developer", "function", "model", "observation", "ipython")
"""Roles that templates write between the ends of a special token: ``'<|' + message.role + '|>'``."""
_FILL_FILTER = "fill special token"
"""The filter that writes such a token in a traced template."""

StandIns = tuple[tuple[str, str], ...]
"""Special tokens, each with the text that stands in for it in the template's own literals."""
_Leaf = tuple[nodes.Node, Callable[[nodes.Node], None]]
"""A part of a concatenation, and what replaces it there."""


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


def _trace(tree: nodes.Template, stand_ins: Mapping[str, str]) -> None:
    """Put stand-ins in place of the special tokens that a template writes itself."""
    role_tokens, role_names = _find_role_tokens(stand_ins), _find_role_names(tree)
    for node in list(tree.find_all((nodes.Output, nodes.Add, nodes.Concat))):
        _join_literals(list(_iter_leaves(node)), role_tokens, role_names)
    tokens = re.compile("|".join(map(re.escape, sorted(stand_ins, key=len, reverse=True))))
    for node in tree.find_all((nodes.Const, nodes.TemplateData)):
        if text := _read_literal(node):
            _write_literal(node, tokens.sub(lambda match: stand_ins[match[0]], text))


def _find_role_tokens(stand_ins: Mapping[str, str]) -> dict[tuple[str, str], dict[str, str]]:
    """Stand-ins of tokens with a role in them, by what is around the role, and by role."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for token, stand_in in stand_ins.items():
        for role in ROLES:
            start, middle, end = token.partition(role)
            if start and middle and end:
                found.setdefault((start, end), {})[role] = stand_in
    return found


def _iter_leaves(node: nodes.Node) -> Iterator[_Leaf]:
    """The parts of a concatenation."""
    children: list[_Leaf]
    if isinstance(node, nodes.Add):
        children = [(node.left, partial(setattr, node, "left")), (node.right, partial(setattr, node, "right"))]
    else:
        assert isinstance(node, (nodes.Concat, nodes.Output))
        children = [(part, partial(node.nodes.__setitem__, i)) for i, part in enumerate(node.nodes)]
    for child, replace in children:
        if isinstance(child, (nodes.Add, nodes.Concat)):
            yield from _iter_leaves(child)
        else:
            yield child, replace


def _join_literals(
    leaves: list[_Leaf], role_tokens: Mapping[tuple[str, str], dict[str, str]], role_names: Collection[str]
) -> None:
    """Write special tokens as one that a concatenation puts together from literals, or around a role."""
    joined: list[_Leaf] = []
    for node, replace in leaves:
        before, text = _read_literal(joined[-1][0]) if joined else None, _read_literal(node)
        if before is None or text is None:
            joined.append((node, replace))
        else:
            _write_literal(joined[-1][0], before + text)
            _write_literal(node, "")
    for (left, _), (role, replace), (right, _) in zip(joined, joined[1:], joined[2:], strict=False):
        before, after = _read_literal(left) or "", _read_literal(right) or ""
        fitting = [(a, b) for a, b in role_tokens if before.endswith(a) and after.startswith(b)]
        if fitting and _is_role(role, role_names):
            start, end = max(fitting, key=lambda ends: len("".join(ends)))
            _write_literal(left, before[: -len(start)])
            _write_literal(right, after[len(end) :])
            known = [nodes.Const(start), nodes.Const(end), nodes.Const(role_tokens[start, end])]
            replace(nodes.Filter(role, _FILL_FILTER, known, [], None, None, lineno=role.lineno))


def _fill(role: object, start: str, end: str, stand_ins: Mapping[object, str]) -> str:
    return stand_ins.get(role) or f"{start}{role}{end}"


def _find_role_names(tree: nodes.Template) -> set[str]:
    """Variables that only ever hold a role, by what the template assigns, or by name if it assigns nothing."""
    values = [(n.target.name, n.node) for n in tree.find_all(nodes.Assign) if isinstance(n.target, nodes.Name)]
    assigned = Counter(name for name, _ in values)
    stored = Counter(name.name for name in tree.find_all(nodes.Name) if name.ctx != "load")
    names = {name for name in assigned if assigned[name] == stored[name]}
    names |= {name.name for name in tree.find_all(nodes.Name) if "role" in name.name and name.name not in assigned}
    while others := {name for name, value in values if name in names and not _is_role(value, names)}:
        names -= others
    return names


def _is_role(node: nodes.Node, names: Collection[str]) -> bool:
    match node:
        case nodes.Name(name=name):
            return name in names
        case nodes.Getattr(attr=name) | nodes.Getitem(arg=nodes.Const(value=str(name))):
            return "role" in name
        case nodes.CondExpr(expr1=first, expr2=second):
            return second is not None and _is_role(first, names) and _is_role(second, names)
        case nodes.Filter(node=nodes.Expr() as value):
            return _is_role(value, names)
        case _:
            return _read_literal(node) is not None


def _read_literal(node: nodes.Node) -> str | None:
    match node:
        case nodes.TemplateData(data=text) | nodes.Const(value=str(text)):
            return str(text)
        case _:
            return None


def _write_literal(node: nodes.Node, text: str) -> None:
    setattr(node, "data" if isinstance(node, nodes.TemplateData) else "value", text)


def _make_compiler() -> Callable[[str, StandIns], Template]:
    """Template compiler with the settings of ``transformers``.

    Source: https://huggingface.co/docs/transformers/chat_templating_writing
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    environment.filters[_FILL_FILTER] = _fill

    @lru_cache(8)
    def compile_template(source: str, stand_ins: StandIns) -> Template:
        tree = environment.parse(source)
        if stand_ins:
            _trace(tree, dict(stand_ins))
            tree.set_environment(environment)
        return environment.from_string(tree)

    return compile_template


def _handle_request(
    compiled: Callable[[str, StandIns], Template], source: str, stand_ins: StandIns, variables: dict[str, Any]
) -> tuple[int, str]:
    try:
        template = compiled(source, stand_ins)
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
    _handle_request(compiled, "{{ strftime_now('%Y') }}{{ raise_exception({} | tojson) }}", (), {})
    time.localtime()
    _lock()
    while length := requests.read(LENGTH.size):
        seconds, source, stand_ins, variables = marshal.loads(requests.read(*LENGTH.unpack(length)))
        # Processor time, so that a busy machine causes no errors; the signal ends the process even in C code.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        kind, text = _handle_request(compiled, source, stand_ins, variables)
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
