"""Wire models of ``/v1/models``: served models and their capabilities."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from commonweight.messages.wire import optional_key


class CapabilitySupport(BaseModel):
    """Support of one capability."""

    supported: bool = False


class ContextManagementCapability(CapabilitySupport):
    """Support of the edits of ``context_management``."""

    clear_thinking_20251015: CapabilitySupport = CapabilitySupport()
    clear_tool_uses_20250919: CapabilitySupport = CapabilitySupport()
    compact_20260112: CapabilitySupport = CapabilitySupport()


class Compaction(CapabilitySupport):
    """Supported compaction methods."""

    summarize: CapabilitySupport = CapabilitySupport()


class EffortCapability(CapabilitySupport):
    """Levels of effort that have an effect."""

    low: CapabilitySupport = CapabilitySupport()
    medium: CapabilitySupport = CapabilitySupport()
    high: CapabilitySupport = CapabilitySupport()
    xhigh: CapabilitySupport = CapabilitySupport()
    max: CapabilitySupport = CapabilitySupport()


class ThinkingTypes(BaseModel):
    """Types of ``thinking`` that have an effect."""

    adaptive: CapabilitySupport = CapabilitySupport()
    between_tools: CapabilitySupport = CapabilitySupport()
    disabled: CapabilitySupport = CapabilitySupport()
    enabled: CapabilitySupport = CapabilitySupport()


class ThinkingCapability(CapabilitySupport):
    """Support of reasoning before the answer."""

    types: ThinkingTypes = ThinkingTypes()


class ServerToolsCapability(CapabilitySupport):
    """Support of server tools."""

    web_search: CapabilitySupport = CapabilitySupport()
    code_execution: CapabilitySupport = CapabilitySupport()


class ModelCapabilities(BaseModel):
    """Capabilities of a model; every key is always present."""

    batch: CapabilitySupport = CapabilitySupport()
    citations: CapabilitySupport = CapabilitySupport()
    code_execution: CapabilitySupport = CapabilitySupport()
    compaction: Compaction = Compaction()
    image_input: CapabilitySupport = CapabilitySupport()
    pdf_input: CapabilitySupport = CapabilitySupport()
    structured_outputs: CapabilitySupport = CapabilitySupport()
    context_management: ContextManagementCapability = ContextManagementCapability()
    effort: EffortCapability = EffortCapability()
    thinking: ThinkingCapability = ThinkingCapability()
    server_tools: ServerToolsCapability = ServerToolsCapability()


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


class SamplingInfo(BaseModel):
    """Extension of this server: sampling of requests that set none of ``temperature``, ``top_p`` and ``top_k``."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    source: Literal["api", "file", "generation_config.json", "family"]
    """Where it was found; ``api``: nowhere, so that the API's own defaults hold."""


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
    capabilities: ModelCapabilities = ModelCapabilities()
    sampling: SamplingInfo | None = optional_key()
    guard: GuardInfo | None = optional_key()


class ModelPage(BaseModel):
    """A page of ``GET /v1/models``."""

    data: list[ModelInfo]
    has_more: bool = False
    first_id: str | None
    last_id: str | None
