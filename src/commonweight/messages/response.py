"""The answer: a message with its blocks, why it ended and what it cost."""

import secrets
import string
from typing import Any, Literal

from pydantic import BaseModel

StopReason = Literal[
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
]

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """A fresh opaque id such as ``msg_...``: 24 random characters, about 143 bits."""
    return prefix + "_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


class OutputText(BaseModel):
    """Text that the model wrote."""

    type: Literal["text"] = "text"
    text: str = ""


OutputBlock = OutputText


class CacheCreation(BaseModel):
    """Prompt tokens written to the cache, by how long they were asked to be kept."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class Usage(BaseModel):
    """Tokens. The whole prompt is ``input + cache_creation + cache_read``."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: CacheCreation = CacheCreation()
    output_tokens: int
    service_tier: Literal["standard"] = "standard"


class Message(BaseModel):
    """An assistant's message, whole or (inside ``message_start``) just begun."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[OutputBlock] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    usage: Usage


class TokenCount(BaseModel):
    """``POST /v1/messages/count_tokens``."""

    input_tokens: int
