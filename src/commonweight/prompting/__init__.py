"""Prompt rendering and output parsing for one model. Independent of the engine and of HTTP."""

from commonweight.prompting.parse.output import OutputParser
from commonweight.prompting.render import Prompt, Renderer
from commonweight.prompting.tokens.tokenizer import Tokenizer

__all__ = ["OutputParser", "Prompt", "Renderer", "Tokenizer"]
