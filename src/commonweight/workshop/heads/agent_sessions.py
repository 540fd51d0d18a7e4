"""Agents' sessions: conversations with tools, in which each request sends all that was said before it.

A line of the file is a JSON object with ``id`` and the fields of the Messages API ``system``, ``tools`` and
``messages``: the whole conversation. Every message of the user's ends a request.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commonweight.messages.request import MessageRequest
from commonweight.runtime.errors import UserError

ANSWER_TOKENS = 32
"""What the served model itself says to each request, before the session goes on as it is written."""


@dataclass(frozen=True)
class AgentSession:
    """A session, as the requests of its client."""

    name: str
    requests: tuple[MessageRequest, ...]


def read_sessions(path: Path) -> list[AgentSession]:
    """Read the sessions in a file.

    Raises:
        UserError: it cannot be read, or a line is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no file of agents' sessions ({type(error).__name__})") from error
    found: dict[str, AgentSession] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            session = _parse_line(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{path}:{number}: no agent's session, with `id`, `system`, `tools` and `messages` "
                f"({type(error).__name__})"
            ) from error
        if session.name in found:
            raise UserError(f"{path}:{number}: there is a session {session.name} before")
        found[session.name] = session
    if not found:
        raise UserError(f"{path}: there is no session in it")
    return list(found.values())


def _parse_line(line: dict[str, Any]) -> AgentSession:
    messages = line["messages"]
    ends = [i for i, message in enumerate(messages, 1) if message["role"] == "user"]
    if not (isinstance(line["id"], str) and ends):
        raise ValueError("the name is no text, or the user says nothing")
    common = {"model": "m", "max_tokens": ANSWER_TOKENS, "temperature": 0}
    common |= {"system": line["system"], "tools": line["tools"]}
    requests = [MessageRequest.model_validate({**common, "messages": messages[:end]}) for end in ends]
    return AgentSession(line["id"], tuple(requests))
