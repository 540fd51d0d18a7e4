"""A session of an agent with tools, whose requests each send the whole conversation."""

from collections.abc import Iterator
from typing import Any

from benchmarks import prompts
from commonweight.messages.request import MessageRequest

TURNS = 12
ANSWER_TOKENS = 24
RESULT_TOKENS = 200
SYSTEM_TOKENS = 500

_STRING = {"type": "string"}
TOOLS = [
    {
        "name": name,
        "description": description,
        "input_schema": {"type": "object", "properties": {argument: _STRING}, "required": [argument]},
    }
    for name, description, argument in (
        ("read_log", "Reads a page of the lighthouse's log, by its number.", "page"),
        ("list_pages", "Lists the pages of the log that mention a word.", "word"),
        ("write_note", "Writes a note beside the log, for the next keeper.", "note"),
    )
]


def write_session(number: int) -> Iterator[MessageRequest]:
    """Write the requests of a session, unlike those of others by its number.

    What the assistant did is written down, as a client that is replayed has it: calls of tools, each with its
    result, and an answer after every third.
    """
    book = prompts.session(number, SYSTEM_TOKENS)
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"Which storms does log {number} tell of?"}]
    for turn in range(TURNS):
        yield MessageRequest.model_validate(
            {
                "model": "m",
                "max_tokens": ANSWER_TOKENS,
                "temperature": 0,
                "system": book.system,
                "tools": TOOLS,
                "messages": messages,
            }
        )
        if turn % 3 == 2:
            said = f"Up to page {turn} there are {turn + number % 7} storms, the worst of them in the spring."
            messages = [*messages, _say("assistant", said), _say("user", f"Go on from page {turn + 1}, please.")]
            continue
        call = {"type": "tool_use", "id": f"toolu_{turn}", "name": "read_log", "input": {"page": str(turn)}}
        page = prompts.new_tokens(number * TURNS + turn, RESULT_TOKENS)
        result = {"type": "tool_result", "tool_use_id": f"toolu_{turn}", "content": page}
        messages = [*messages, _say("assistant", [call]), _say("user", [result])]


def _say(role: str, content: object) -> dict[str, Any]:
    return {"role": role, "content": content}
