"""Prompts and answers of rows."""

from commonweight.lineage.digests import digest_json
from commonweight.workshop.data.rows import ID_DIGITS, Message, Row

Prompt = tuple[Message, ...]


def get_prompt(row: Row) -> Prompt | None:
    """The conversation that a row asks to be answered; None if it does not end in a user's turn."""
    messages = row.content.messages
    if row.content.kind not in ("prompt", "messages") or not messages or messages[-1].role != "user":
        return None
    return messages


def split_answer(row: Row) -> tuple[Prompt, str] | None:
    """The prompt and the last answer of a row; None if it does not end in an answer of the model's own."""
    messages = row.content.messages
    if row.content.kind != "messages" or not messages or len(messages) < 2 or row.content.given:
        return None
    if (messages[-2].role, messages[-1].role) != ("user", "assistant"):
        return None
    return messages[:-1], messages[-1].content


def digest_prompt(prompt: Prompt) -> str:
    """An id that equal prompts share."""
    return digest_json([[message.role, message.content] for message in prompt])[:ID_DIGITS]


def format_prompt(prompt: Prompt) -> str:
    """A prompt as text that a model reads: the user's words alone, or all turns with their roles."""
    turns = [message for message in prompt if message.role != "system"]
    if len(turns) == 1:
        return turns[0].content.strip()
    return "\n\n".join(f"{message.role.capitalize()}: {message.content.strip()}" for message in turns)
