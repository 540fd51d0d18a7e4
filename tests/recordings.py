"""Conversations of a real coding agent, request by request, as ``clients/record.py`` took them down.

Only structure was kept. The agent's own texts belong to its vendor, and each stands in the files as
``{{text 7: 2110}}``: its number and its length. The same text has the same number in all of a conversation.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("clients") / "recorded"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

Body = dict[str, Any]

_PLACEHOLDER = re.compile(r"\{\{text (\d+): (\d+)\}\}")
_PROSE = "the agent reads every file that a task may need before it writes down what it would change and why"
_WORDS = _PROSE.split()
_LINE = 16


def conversation(name: str) -> list[Body]:
    """The bodies that the agent sent to ``/v1/messages``, in order, with neutral text of the original lengths."""
    bodies: list[Body] = json.loads(
        (FOLDER / f"{name}.json").read_text(), object_hook=lambda found: {k: _filled(v) for k, v in found.items()}
    )
    return bodies


def _filled(value: Any) -> Any:
    match value:
        case str():
            return _PLACEHOLDER.sub(lambda found: _text(int(found[1]), int(found[2])), value)
        case list():
            return [_filled(part) for part in value]
        case _:
            return value


def _text(number: int, length: int) -> str:
    text = f"Text {number}:"
    words = itertools.islice(itertools.cycle(_WORDS), number % len(_WORDS), None)
    for count, word in enumerate(words, start=1):
        if len(text) >= length:
            break
        text += (" " if count % _LINE else "\n") + word
    return text[: length - 1] + "."
