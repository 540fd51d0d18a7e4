"""Wire models of responses: message, output blocks, stop reason and usage."""

import secrets
import string
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from commonweight.messages.citations import Citation
from commonweight.messages.wire import optional_key

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


def make_id(prefix: str) -> str:
    """A fresh opaque id such as ``msg_...``: 24 random characters, about 143 bits."""
    return prefix + "_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


class OutputText(BaseModel):
    """Text block. ``citations`` is a list if the client asked for them, and absent otherwise."""

    type: Literal["text"] = "text"
    text: str = ""
    citations: list[Citation] | None = optional_key()


class OutputThinking(BaseModel):
    """Reasoning block, with the signature that later requests need to send it back."""

    type: Literal["thinking"] = "thinking"
    thinking: str = ""
    signature: str = ""


class OutputToolUse(BaseModel):
    """Call of a client tool."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any] = {}


OutputBlock = Annotated[OutputText | OutputThinking | OutputToolUse, Field(discriminator="type")]


class StopDetails(BaseModel):
    """Reason of a refusal by the guard; a model that declines by itself answers in text."""

    type: Literal["refusal"] = "refusal"
    category: Literal["cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"] | None = None
    explanation: str | None = None


class GuardVerdict(BaseModel):
    """Extension of this server: the principle behind a refusal, with score and threshold."""

    charter: str
    """SHA-256 of the charter's file."""
    principle: str
    place: str
    """``input``, ``output``, ``thinking``, ``tool_input``, ``tool_result``, ``system``, ``document``, ``history``
    or ``tools``."""
    stage: str
    """Stage that decided: ``text``, ``states``, ``ensemble``, ``judge``, ``phrase`` or ``language``."""
    strictness: str = "standard"
    """Operating point of the threshold: ``low``, ``standard`` or ``high``."""
    lowered_by: tuple[str, ...] = ()
    """Why the threshold is lower than that: ``manipulation``, ``noise``."""
    score: float
    threshold: float
    """Probabilities."""
    block: str | None = None
    """Path of the block in the request, such as ``messages[3].content[1]``, or in the answer: ``content[0]``."""
    tool: str | None = None
    """Name of the tool that the block belongs to."""
    span: tuple[int, int] | None = None
    """Start and exclusive end in characters of the block's text as it was sent; null where they cannot be told."""


class CacheCreation(BaseModel):
    """Prompt tokens written to the cache, by requested lifetime."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputTokensDetails(BaseModel):
    """Output tokens by kind."""

    thinking_tokens: int = 0


class Usage(BaseModel):
    """Token usage. The whole prompt is ``input + cache_creation + cache_read``; ``output`` includes thinking."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation: CacheCreation = CacheCreation()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    service_tier: Literal["standard"] = "standard"
    inference_geo: Literal["not_available"] = "not_available"


class ClearedThinking(BaseModel):
    """Report of reasoning left out of the prompt."""

    type: Literal["clear_thinking_20251015"] = "clear_thinking_20251015"
    cleared_input_tokens: int
    cleared_thinking_turns: int


class ClearedToolUses(BaseModel):
    """Report of tool results left out of the prompt."""

    type: Literal["clear_tool_uses_20250919"] = "clear_tool_uses_20250919"
    cleared_input_tokens: int
    cleared_tool_uses: int


class AppliedEdits(BaseModel):
    """Report on ``context_management``: the edits that had an effect."""

    applied_edits: list[Annotated[ClearedThinking | ClearedToolUses, Field(discriminator="type")]] = []


class CacheMissReason(BaseModel):
    """Reason of a cache miss; always unavailable, because past requests are not kept."""

    type: Literal["unavailable"] = "unavailable"


class Diagnostics(BaseModel):
    """Response to a request's ``diagnostics``."""

    cache_miss_reason: CacheMissReason = CacheMissReason()


class Message(BaseModel):
    """Assistant message: complete, or without content in ``message_start``.

    What is about an answer's end is ``null`` until then; what is about things that were not asked for is absent.
    """

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[OutputBlock] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    diagnostics: Diagnostics | None = optional_key()
    context_management: AppliedEdits | None = optional_key()
    usage: Usage
    guard: GuardVerdict | None = optional_key()


class OriginalTokens(BaseModel):
    """Size of the prompt before the edits of ``context_management``."""

    original_input_tokens: int


class TokenCount(BaseModel):
    """Response of ``POST /v1/messages/count_tokens``."""

    input_tokens: int
    context_management: OriginalTokens | None = optional_key()
