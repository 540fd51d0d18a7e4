"""Wire models of ``/v1/models``: served models and their capabilities."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class Supported(BaseModel):
    """Support of one capability."""

    supported: bool = False


class ContextManagementSupport(Supported):
    """Support of the edits of ``context_management``."""

    clear_thinking_20251015: Supported = Supported()
    clear_tool_uses_20250919: Supported = Supported()
    compact_20260112: Supported = Supported()


class Compaction(Supported):
    """Support of ways of compaction."""

    summarize: Supported = Supported()


class EffortLevels(Supported):
    """Levels of effort that have an effect."""

    low: Supported = Supported()
    medium: Supported = Supported()
    high: Supported = Supported()
    xhigh: Supported = Supported()
    max: Supported = Supported()


class ThinkingTypes(BaseModel):
    """Types of ``thinking`` that have an effect."""

    adaptive: Supported = Supported()
    between_tools: Supported = Supported()
    disabled: Supported = Supported()
    enabled: Supported = Supported()


class ThinkingSupport(Supported):
    """Support of reasoning before the answer."""

    types: ThinkingTypes = ThinkingTypes()


class ServerTools(Supported):
    """Support of server tools."""

    web_search: Supported = Supported()
    code_execution: Supported = Supported()


class Capabilities(BaseModel):
    """Capabilities of a model; every key is always present."""

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
    """Extension of this server: the enforced charter, and the guard's parts."""

    charter: str
    version: str
    sha256: str
    mode: Literal["enforce", "shadow"]
    states: bool
    """Whether the model's own states are read, or text alone."""
    encoder: bool
    judge: bool


class ModelInfo(BaseModel):
    """Served model. ``max_input_tokens`` and ``max_tokens`` are the enforced limits."""

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
