"""Definitions of the API's client tools: bash, text editor and memory.

Clients name only the type; models trained on these tools know the rest. Other models are told here. The schemas
follow the public documentation of the tools, the descriptions are our own.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Definition:
    """Description and input schema of a tool, which requests leave out."""

    description: str
    input_schema: dict[str, Any]


def _field(kind: str, description: str, **keywords: object) -> dict[str, Any]:
    return {"type": kind, "description": description, **keywords}


def _object(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_PATH = _field("string", "Absolute path of the file or directory.")
_VIEW_RANGE = _field(
    "array",
    "For view, optional: the first and the last line to show, counted from 1. -1 as the last means the end.",
    items={"type": "integer"},
    minItems=2,
    maxItems=2,
)
_FILE_TEXT = _field("string", "For create: what to write into the file.")
_OLD_STR = _field("string", "For str_replace: the text to replace, exactly as it stands in the file.")
_NEW_STR = _field("string", "For str_replace: the text to put in its place; without it the old text is deleted.")
_INSERT_LINE = _field("integer", "For insert: the line after which to insert; 0 is the beginning of the file.")
_INSERT_TEXT = _field("string", "For insert: the text to insert.")

_EDITING = (
    "Look at and edit text files.\n"
    "- view shows a file with numbered lines, or what a directory holds.\n"
    "- create writes a new file.\n"
    "- str_replace replaces a text that must occur exactly once in the file, white space included.\n"
    "- insert puts text after a line."
)

_BASH = Definition(
    "Run a command in a bash session that stays open: its variables, working directory and background jobs are "
    "still there for the next command. Commands cannot ask for input. Restart the session when it hangs.",
    _object(
        [],
        command=_field("string", "The command to run. Required unless restart is true."),
        restart=_field("boolean", "True starts the session afresh instead of running a command."),
    )
    | {"anyOf": [{"required": ["command"]}, {"required": ["restart"]}]},
)

_EDITOR = Definition(
    _EDITING,
    _object(
        ["command", "path"],
        command=_field("string", "What to do.", enum=["view", "create", "str_replace", "insert"]),
        path=_PATH,
        view_range=_VIEW_RANGE,
        file_text=_FILE_TEXT,
        old_str=_OLD_STR,
        new_str=_NEW_STR,
        insert_line=_INSERT_LINE,
        insert_text=_INSERT_TEXT,
    ),
)

_EDITOR_WITH_UNDO = Definition(
    _EDITING + "\n- undo_edit takes back the last edit of a file.",
    _object(
        ["command", "path"],
        command=_field("string", "What to do.", enum=["view", "create", "str_replace", "insert", "undo_edit"]),
        path=_PATH,
        view_range=_VIEW_RANGE,
        file_text=_FILE_TEXT,
        old_str=_OLD_STR,
        new_str=_field("string", "For str_replace: the text to put in its place. For insert: the text to insert."),
        insert_line=_INSERT_LINE,
    ),
)

_MEMORY = Definition(
    "Keep notes in files under /memories that outlast this conversation. Look there before you begin a task, and "
    "write down what a later conversation will need.\n"
    "- view shows a file with numbered lines, or what a directory holds.\n"
    "- create writes a file, replacing one that exists.\n"
    "- str_replace replaces a text that must occur exactly once in the file.\n"
    "- insert puts text after a line.\n"
    "- delete removes a file, or a directory with all it holds.\n"
    "- rename moves a file or directory.",
    _object(
        ["command"],
        command=_field(
            "string", "What to do.", enum=["view", "create", "str_replace", "insert", "delete", "rename"]
        ),
        path=_field("string", "For all but rename: a path that begins with /memories."),
        view_range=_VIEW_RANGE,
        file_text=_FILE_TEXT,
        old_str=_OLD_STR,
        new_str=_NEW_STR,
        insert_line=_INSERT_LINE,
        insert_text=_INSERT_TEXT,
        old_path=_field("string", "For rename: the path as it is."),
        new_path=_field("string", "For rename: the path as it shall be."),
    ),
)

PUBLISHED_TOOLS = {
    "bash_20241022": _BASH,
    "bash_20250124": _BASH,
    "text_editor_20241022": _EDITOR_WITH_UNDO,
    "text_editor_20250124": _EDITOR_WITH_UNDO,
    "text_editor_20250429": _EDITOR,
    "text_editor_20250728": _EDITOR,
    "memory_20250818": _MEMORY,
}
"""Definitions by the type that a request names."""
