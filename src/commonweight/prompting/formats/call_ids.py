"""Ids of tool calls in the forms that models' tool-call formats allow."""

import hashlib

from commonweight.prompting.formats.syntax import CALL_ID


def make_short_id(tool_use_id: str) -> str:
    """The id of a call in the prompt: nine letters and digits, the end of the API's id or else its digest."""
    end = tool_use_id[-len(CALL_ID) :]
    return end if is_short_id(end) else hashlib.sha256(tool_use_id.encode()).hexdigest()[: len(CALL_ID)]


def is_short_id(text: object) -> bool:
    """Whether an id has the form of ``make_short_id``. Such an id needs no escaping."""
    return isinstance(text, str) and len(text) == len(CALL_ID) and text.isalnum() and text.isascii()


def make_named_id(name: str, number: int) -> str:
    """The id of a call for a format (Kimi) that reads the tool's name from it; calls are counted from 0."""
    return f"functions.{name}:{number}"
