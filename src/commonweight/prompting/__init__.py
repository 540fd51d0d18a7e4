"""Conversations to tokens, and tokens back to what they say. Knows no engine and no HTTP."""

from commonweight.prompting.parse.output import OutputParser
from commonweight.prompting.render import Prompt, Renderer
from commonweight.prompting.tokens.tokenizer import Tokenizer

__all__ = ["OutputParser", "Prompt", "Renderer", "Tokenizer"]
