"""``/v1/models``: what is served, and honestly what it can do."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class Supported(BaseModel):
    """One yes or no."""

    supported: bool = False


class ContextManagementSupport(Supported):
    """Edits of the conversation that the server can make."""

    clear_thinking_20251015: Supported = Supported()
    clear_tool_uses_20250919: Supported = Supported()
    compact_20260112: Supported = Supported()


class Compaction(Supported):
    """Ways of summarising a conversation on request."""

    summarize: Supported = Supported()


class EffortLevels(Supported):
    """Levels of effort that change anything."""

    low: Supported = Supported()
    medium: Supported = Supported()
    high: Supported = Supported()
    xhigh: Supported = Supported()
    max: Supported = Supported()


class ThinkingTypes(BaseModel):
    """Ways of thinking that change anything."""

    adaptive: Supported = Supported()
    between_tools: Supported = Supported()
    disabled: Supported = Supported()
    enabled: Supported = Supported()


class ThinkingSupport(Supported):
    """Whether the model reasons before it answers."""

    types: ThinkingTypes = ThinkingTypes()


class ServerTools(Supported):
    """Tools that the server runs itself."""

    web_search: Supported = Supported()
    code_execution: Supported = Supported()


class Capabilities(BaseModel):
    """Every key is always present; what is not built is not supported."""

    batch: Supported = Supported()
    citations: Supported = Supported()
    code_execution: Supported = Supported()
    compaction: Compaction = Compaction()
    image_input: Supported = Supported()
    pdf_input: Supported = Supported()
    structured_outputs: Supported = Supported()
    context_management: ContextManagementSupport = ContextManagementSupport()
    effort: EffortLevels = EffortLevels()
    thinking: ThinkingSupport = ThinkingSupport()
    server_tools: ServerTools = ServerTools()


class GuardInfo(BaseModel):
    """Our own extension: the charter that exchanges are kept to, and what it is enforced with."""

    charter: str
    version: str
    sha256: str
    mode: Literal["enforce", "shadow"]
    states: bool
    """Whether the model's own states are read, or text alone."""
    encoder: bool
    judge: bool


class ModelInfo(BaseModel):
    """One served model. ``max_input_tokens`` and ``max_tokens`` are the limits that are really enforced."""

    id: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"] = "active"
    line: str | None = None
    max_input_tokens: int
    max_tokens: int
    deprecated_at: datetime | None = None
    retires_at: datetime | None = None
    allowed_fallback_models: list[str] = []
    capabilities: Capabilities = Capabilities()
    guard: GuardInfo | None = Field(default=None, exclude_if=lambda guard: guard is None)


class ModelPage(BaseModel):
    """A page of ``GET /v1/models``."""

    data: list[ModelInfo]
    has_more: bool = False
    first_id: str | None
    last_id: str | None
