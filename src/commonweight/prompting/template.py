"""The model's own chat template, run in a sandbox the way ``transformers`` runs it.

Source: https://huggingface.co/docs/transformers/chat_templating_writing
"""

import json
import re
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

PLAIN = """\
{%- for message in messages -%}
{{ {'system': 'System', 'user': 'User', 'assistant': 'Assistant'}[message.role] }}: {{ message.content }}

{% endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""
"""For models without a template: base models, which continue such a transcript."""

PLAIN_TURN_END = "\n\nUser:"
"""Where such a model goes on in the user's name, its turn was over."""


_BRINGS_TOGETHER = re.compile(r"\b(replace|join|striptags)\b")


class BadConversationError(ValueError):
    """The template refuses this conversation; the message is its own."""


class ChatTemplate:
    """A compiled chat template, and what it can render, found by trying."""

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        self._template = environment.from_string(source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self.has_system = self._keeps_order("system", "user")
        """A system message may come first."""
        self.has_late_system = self._keeps_order("user", "system", "assistant", "user")
        """A system message may stand in the middle and stays there."""
        self.may_cut_texts = _BRINGS_TOGETHER.search(source) is not None
        """It may take something out of the middle of a text."""

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt as text, up to where the assistant begins to write.

        Raises:
            BadConversationError: the template raises for these messages.
        """
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        except Exception as error:  # the model's own code; whatever it stumbles over, it is this conversation
            raise BadConversationError(str(error)) from error

    def _keeps_order(self, *roles: str) -> bool:
        words = [f"word{i}" for i in range(len(roles))]
        try:
            text = self.render([{"role": role, "content": word} for role, word in zip(roles, words, strict=True)])
        except BadConversationError:
            return False
        places = [text.find(word) for word in words]
        return -1 not in places and places == sorted(places)


class _Generation(Extension):
    """``{% generation %}`` marks assistant text for training; when rendering, it is only its body."""

    tags = {"generation"}  # noqa: RUF012 - the base class wants a set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:  # noqa: ANN401
    # Jinja's own filter escapes HTML, which templates do not want.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise(message: str) -> None:
    raise BadConversationError(message)


def _strftime_now(format: str) -> str:  # noqa: A002 - templates call it with this name
    return datetime.now().strftime(format)
