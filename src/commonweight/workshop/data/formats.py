"""Formats of rows, as public sets write them: conversations, instructions, preferences, prompts, plain text."""

from collections.abc import Mapping
from typing import Any

from commonweight.workshop.data.rows import Content, Message
from commonweight.workshop.data.settings import Format

_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}
_ROLES = {role: role for role in ("system", "user", "assistant")}
_MOST_MESSAGES = 10_000

Fields = Mapping[str, Any]


class FormatError(ValueError):
    """A row does not fit its format; the message ends a sentence that begins with where the row is."""


# In the order in which they decide.
_MARKS: tuple[tuple[Format, tuple[str, ...]], ...] = (
    ("preference", ("chosen", "rejected")),
    ("messages", ("messages",)),
    ("sharegpt", ("conversations",)),
    ("alpaca", ("instruction", "output")),
    ("text", ("text",)),
    ("prompts", ("prompt",)),
)


def recognise_format(fields: Fields) -> Format | None:
    """The format that a row's columns show, or None.

    A preference's chosen answer decides before the conversation that some sets carry beside it.
    """
    for format_, columns in _MARKS:
        if all(fields.get(column) is not None for column in columns):
            return format_
    return None


def parse_content(fields: Fields, format_: Format) -> Content | None:
    """A row's content; None where it has nothing but white space to learn from.

    Raises:
        FormatError: the row does not fit the format.
    """
    match format_:
        case "text":
            text = _read_string(fields, "text")
            return Content("text", text=text) if text.strip() else None
        case "messages":
            return _make_conversation(_read_messages(fields, "messages"))
        case "sharegpt":
            return _make_conversation(_read_messages(fields, "conversations", "from", "value", _SHAREGPT_ROLES))
        case "alpaca":
            return _parse_alpaca(fields)
        case "preference":
            return _parse_preference(fields)
        case "prompts":
            messages = _read_prompt(fields)
            return Content("prompt", messages=messages) if _says_something(messages, "user") else None
        case "auto":
            raise FormatError("has columns of no known format")


def _make_conversation(messages: tuple[Message, ...]) -> Content | None:
    if not any(message.role == "assistant" for message in messages):
        raise FormatError("has no message of the assistant")
    return Content("messages", messages=messages) if _says_something(messages, "assistant") else None


def _parse_alpaca(fields: Fields) -> Content | None:
    request = _read_string(fields, "instruction")
    if more := _read_optional_string(fields, "input"):
        request = f"{request}\n\n{more}"
    system = _read_optional_string(fields, "system")
    messages = (
        *((Message("system", system),) if system else ()),
        Message("user", request),
        Message("assistant", _read_string(fields, "output")),
    )
    return _make_conversation(messages)


def _parse_preference(fields: Fields) -> Content | None:
    """Answers as strings or messages after a prompt, or two whole conversations that begin alike."""
    chosen, rejected = _read_continuation(fields, "chosen"), _read_continuation(fields, "rejected")
    whole = [messages[0].role != "assistant" for messages in (chosen, rejected)]
    if all(whole):
        prompt, chosen, rejected = _cut_common_beginning(chosen, rejected)
    elif any(whole):
        raise FormatError("has one continuation with its prompt and one without")
    elif fields.get("prompt") is None:
        raise FormatError("has no prompt before its two answers")
    else:
        prompt = _read_prompt(fields)
    for messages in (chosen, rejected):
        if not messages or messages[0].role != "assistant":
            raise FormatError("has a continuation that does not begin with the assistant's answer")
    if not _says_something(prompt, "user") or not _says_something(chosen, "assistant"):
        return None
    return Content("preference", messages=prompt, chosen=chosen, rejected=rejected)


def _cut_common_beginning(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    count = 0
    # Of two equal conversations the last answer still is what is compared.
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if one != other:
            break
        count += 1
    while count and chosen[count - 1].role != "user":
        count -= 1
    if not count:
        raise FormatError("has two conversations that do not begin alike")
    return chosen[:count], chosen[count:], rejected[count:]


def _read_prompt(fields: Fields) -> tuple[Message, ...]:
    system = _read_optional_string(fields, "system")
    beginning = (Message("system", system),) if system else ()
    if isinstance(fields.get("prompt"), str):
        return (*beginning, Message("user", _read_string(fields, "prompt")))
    messages = _read_messages(fields, "prompt")
    if messages[-1].role != "user":
        raise FormatError("has a prompt that does not end with the user's message")
    return messages if messages[0].role == "system" else (*beginning, *messages)


def _read_continuation(fields: Fields, column: str) -> tuple[Message, ...]:
    if isinstance(fields.get(column), str):
        return (Message("assistant", _read_string(fields, column)),)
    return _read_messages(fields, column)


def _read_messages(
    fields: Fields,
    column: str,
    role_key: str = "role",
    content_key: str = "content",
    roles: Mapping[str, str] = _ROLES,
) -> tuple[Message, ...]:
    value = fields.get(column)
    if not isinstance(value, list) or not value:
        raise FormatError(f"has no list of messages in {column}")
    if len(value) > _MOST_MESSAGES:
        raise FormatError(f"has more than {_MOST_MESSAGES} messages in {column}")
    messages: list[Message] = []
    for number, item in enumerate(value, 1):
        where = f"message {number} of {column}"
        if not isinstance(item, dict):
            raise FormatError(f"has no object as {where}")
        role = item.get(role_key)
        if not isinstance(role, str) or role not in roles:
            raise FormatError(f"has a {role_key} in {where} that is none of {', '.join(roles)}")
        if item.get("tool_calls"):
            raise FormatError(f"calls a tool in {where}, which rows do not hold")
        if roles[role] == "system" and messages:
            raise FormatError(f"has a system message as {where}; only the first may be one")
        messages.append(Message(roles[role], _read_message_text(item.get(content_key), content_key, where)))
    return tuple(messages)


def _read_message_text(value: object, key: str, where: str) -> str:
    if isinstance(value, list):
        texts = [
            part.get("text") for part in value if isinstance(part, dict) and part.get("type", "text") == "text"
        ]
        if len(texts) == len(value) and all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
        raise FormatError(f"has something other than text in {where}")
    if not isinstance(value, str):
        raise FormatError(f"has no text as {key} of {where}")
    return value


def _read_string(fields: Fields, column: str) -> str:
    value = fields.get(column)
    if not isinstance(value, str):
        raise FormatError(f"has no text in {column}")
    return value


def _read_optional_string(fields: Fields, column: str) -> str:
    return "" if fields.get(column) is None else _read_string(fields, column)


def _says_something(messages: tuple[Message, ...], role: str) -> bool:
    return any(message.role == role and message.content.strip() for message in messages)
