"""Settings of the training stages, and the one error that they raise. Imports no training library."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from commonweight.lineage.errors import WorkshopError
from commonweight.workshop.settings import Settings, Several

DOCUMENT_END = "<|endoftext|>"
"""Separates documents in pretraining, and pads batches."""
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
"""Ends a turn: what a trained model's answers end with."""
CONTROL_TOKENS = (DOCUMENT_END, TURN_START, TURN_END)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)
"""ChatML: a system turn is there when the conversation has one; nothing is added of its own."""


class TrainingError(WorkshopError):
    """What stops a training stage: bad data, too little memory or disk, a loss that is not finite."""


class TokenizerSettings(Settings):
    """How a byte-level BPE vocabulary is made from a dataset."""

    vocab_size: int = Field(default=4096, ge=512, le=262_144)
    """Tokens in all: 256 bytes, the control tokens, and merges. A small text may give fewer merges."""
    extra_tokens: Several[str] = ()
    """Control tokens besides those of documents and turns."""
    chat_template: str = Field(default=CHAT_TEMPLATE, min_length=1)
    """Jinja template of conversations."""

    @field_validator("extra_tokens")
    @classmethod
    def check_extra_tokens(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        every = (*CONTROL_TOKENS, *tokens)
        if len(set(every)) != len(every) or any(not token.strip() for token in tokens):
            raise ValueError("extra_tokens must be distinct, not blank, and none of " + ", ".join(CONTROL_TOKENS))
        return tokens


class PretrainSettings(Settings):
    """A decoder in the Qwen3 layout, and how it is trained from random weights."""

    layers: int = Field(default=4, ge=1, le=128)
    dim: int = Field(default=256, ge=32, le=16_384)
    """Width of the residual stream. K-quants need multiples of 256; others are quantised to Q5_0 or Q8_0."""
    heads: int = Field(default=4, ge=1, le=128)
    """Query heads; each is ``dim / heads`` wide."""
    kv_heads: int = Field(default=2, ge=1, le=128)
    """Key and value heads; each serves ``heads / kv_heads`` query heads."""
    ffn_multiple: float = Field(default=3.0, ge=0.5, le=8)
    """Width of feed-forward layers as a multiple of ``dim``, in whole blocks of 32 (of 256 where ``dim`` is)."""
    context: int = Field(default=256, ge=16, le=131_072)
    """Tokens of a training sequence, and the length that the model is declared to handle."""
    batch_tokens: int = Field(default=4096, ge=16, le=16_777_216)
    """Tokens of an optimizer step; a multiple of ``context``."""
    steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Optimizer steps. Either this or ``tokens``."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens to train on, rounded up to whole steps. Either this or ``steps``."""
    muon_lr: float = Field(default=0.02, gt=0, le=1)
    """Peak learning rate of the matrices inside the layers."""
    adamw_lr: float = Field(default=0.006, gt=0, le=1)
    """Peak learning rate of embeddings and norms."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """Decoupled, of the matrices inside the layers only."""
    warmup_share: float = Field(default=0.02, ge=0, le=1)
    """Share of the steps in which the learning rate rises linearly."""
    decay_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps in which it falls linearly to zero; between the two it is constant."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of a step's gradient."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights and of the order of the rows."""
    evaluation_interval: int = Field(default=250, ge=1)
    """Steps between measurements of held-out bits per byte; the last step is always measured."""
    checkpoint_interval: int = Field(default=100, ge=1)
    """Steps between checkpoints: what a killed run loses at most."""

    @model_validator(mode="after")
    def check_shapes(self) -> Self:
        if self.dim % self.heads or (self.dim // self.heads) % 8:
            raise ValueError(f"dim ({self.dim}) must be heads ({self.heads}) times a multiple of 8")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.dim % 32:
            raise ValueError(f"dim ({self.dim}) must be a multiple of 32, which quantised blocks hold")
        if self.batch_tokens % self.context:
            raise ValueError(f"batch_tokens ({self.batch_tokens}) must be a multiple of context ({self.context})")
        if (self.steps is None) == (self.tokens is None):
            raise ValueError("give either steps or tokens")
        if self.warmup_share + self.decay_share > 1:
            raise ValueError("warmup_share and decay_share must not exceed 1 together")
        return self

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def ffn_dim(self) -> int:
        block = 256 if self.dim % 256 == 0 else 32
        return max(block, round(self.dim * self.ffn_multiple / block) * block)

    @property
    def total_steps(self) -> int:
        if self.steps is not None:
            return self.steps
        return -(-(self.tokens or 0) // self.batch_tokens)
