"""Conversations to tokens, and tokens back to what they say. Knows no engine and no HTTP."""

from commonweight.prompting.output import OutputParser
from commonweight.prompting.render import Prompt, Renderer
from commonweight.prompting.tokenizer import Tokenizer

__all__ = ["OutputParser", "Prompt", "Renderer", "Tokenizer"]
