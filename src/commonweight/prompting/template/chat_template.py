"""The model's own chat template: what it renders, and what it can render, found by trying."""

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from commonweight.catalog.header import UnreadableModelError
from commonweight.prompting.formats import (
    GENERIC,
    SAMPLE_ID,
    SAMPLE_KEY,
    SAMPLE_NAME,
    SAMPLE_VALUE,
    detect_format,
    find_thinking_tags,
)
from commonweight.prompting.formats.call_ids import make_named_id
from commonweight.prompting.template.sandbox import LimitError, RenderError, TemplateError, shared_sandbox

PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{{ {'system': 'System', 'user': 'User', 'assistant': 'Assistant'}[message.role] }}: {{ message.content }}

{% endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""
"""For models without a template: base models, which continue such a transcript."""

RENDER_SECONDS, TRIAL_SECONDS = 5.0, 1.0
"""Of processor time for a conversation, and for each of the few words that a template is tried with. Most take
milliseconds; 32 MB of many short messages were seen to take two seconds."""

PLAIN_TURN_END = "\n\nUser:"
"""Where such a model goes on in the user's name, its turn was over."""


_BRINGS_TOGETHER = re.compile(r"\b(replace|join|striptags)\b")


class BadTemplateError(UnreadableModelError):
    """A template that nothing could be rendered with."""


class BadConversationError(ValueError):
    """The template refuses this conversation; the message is its own."""


TemplateMessage = dict[str, Any]
"""``role`` and ``content``; perhaps ``reasoning_content``, ``tool_calls``, ``tool_call_id`` and ``name``."""


class ChatTemplate:
    """A chat template, and what it can render, found by trying. Safe to use from several threads.

    Raises:
        BadTemplateError: it is none, or takes too much time or memory for a few words.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._no_tools: list[Any] | None = None
        if not self._try_render([_ASKED]):
            self._no_tools = []  # some go through the tools without asking whether there are any
        self.has_system = self._keeps_order(*map(_make_message, ("system", "user", "assistant", "user")))
        """A system message may come first and stays there."""
        self.has_late_system = self._keeps_order(*map(_make_message, ("user", "system", "assistant", "user")))
        """A system message may stand in the middle and stays there."""
        self.may_cut_texts = _BRINGS_TOGETHER.search(source) is not None
        """It may take something out of the middle of a text."""
        self.has_text_arguments = self._wants_text_arguments()
        """It wants the arguments of a call as JSON text, not as an object."""
        self._called, self.has_named_ids = self._render_sample_call()
        self.format = detect_format(self._try_render([_ASKED, self._called]))
        """How it writes calls."""
        self.has_calls = self.format is not GENERIC and self._keeps_order(_ASKED, self._called, _RESULT)
        """It has a place for calls and their results."""
        self.has_text_after_results = self.has_calls and self._keeps_order(
            _ASKED, self._called, _RESULT, _make_message("user"), _make_message("assistant"), _make_message("user")
        )
        """A user's text may follow a result."""
        self.has_tools = self.has_calls and SAMPLE_NAME in self._try_render([_ASKED], tools=[_TOOL])
        """It tells the model which tools there are."""
        self.has_tools_first = self._has_tools_first()
        """It does so before the system's text."""
        self.thinking = find_thinking_tags(source, self.format)
        """What stands around reasoning, if the model reasons."""
        self.thinking_switch = self._thinking_switch() if self.thinking else None
        """The variable that turns reasoning on and off."""
        self.has_effort = self._depends_on("reasoning_effort", "low", "high")
        """It tells the model how hard to think."""
        self.reasoning_key = next(filter(self._shows_reasoning, _REASONING_KEYS), None)
        """Where a message carries reasoning, if the template knows any place: see ``with_reasoning``."""

    def render(
        self, messages: Sequence[TemplateMessage], tools: Sequence[Any] | None = None, **variables: object
    ) -> str:
        """The prompt as text, up to where the assistant begins to write.

        Raises:
            BadConversationError: the template raises for these messages.
        """
        try:
            return self._render(messages, tools, RENDER_SECONDS, variables)
        except RenderError as error:
            raise BadConversationError(str(error)) from error

    def _render(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Any] | None,
        seconds: float,
        variables: Mapping[str, object],
    ) -> str:
        given = {"messages": messages, "tools": tools or self._no_tools, "add_generation_prompt": True}
        return shared_sandbox().render(self.source, given | self._tokens | dict(variables), seconds)

    def _render_sample_call(self) -> tuple[TemplateMessage, bool]:
        """A call as the template likes it, and whether it writes the id for the name."""
        arguments = json.dumps(_ARGUMENTS) if self.has_text_arguments else _ARGUMENTS
        called, named = _make_call(arguments), _make_call(arguments, make_named_id(SAMPLE_NAME, 0))
        knows, knows_named = (
            detect_format(self._try_render([_ASKED, call])) is not GENERIC for call in (called, named)
        )
        return (named, True) if knows_named and not knows else (called, False)

    def _try_render(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Any] | None = None,
        variables: Mapping[str, object] = MappingProxyType({}),
    ) -> str:
        try:
            return self._render(messages, tools, TRIAL_SECONDS, variables)
        except LimitError as error:
            raise BadTemplateError(f"the model's chat template is refused: {error}") from error
        except RenderError:
            return ""
        except TemplateError as error:
            raise BadTemplateError(f"the model's chat template cannot be read: {error}") from error

    def _keeps_order(self, *messages: TemplateMessage) -> bool:
        named = [{**message, "content": f"word{i}"} for i, message in enumerate(messages)]
        text = self._try_render(named)
        # What makes a call is its name; some templates drop the text beside it.
        words = [SAMPLE_NAME if "tool_calls" in message else message["content"] for message in named]
        places = [text.find(word) for word in words]
        return -1 not in places and places == sorted(places)

    def _wants_text_arguments(self) -> bool:
        samples = _make_call(_ARGUMENTS), _make_call(json.dumps(_ARGUMENTS))
        as_object, as_text = (self._try_render([_ASKED, call]) for call in samples)
        return SAMPLE_VALUE not in as_object and SAMPLE_VALUE in as_text

    def _has_tools_first(self) -> bool:
        named = [{**_make_message(role), "content": f"word{i}"} for i, role in enumerate(("system", "user"))]
        text = self._try_render(named, tools=[_TOOL])
        return text.find(SAMPLE_NAME) < text.find("word0")

    def _shows_reasoning(self, key: str) -> bool:
        # Templates show reasoning at least while tools are being called.
        said = [add_reasoning(message, key, "word0") for message in (_make_message("assistant"), self._called)]
        switches = {"enable_thinking": True, "thinking": True}
        texts = [self._try_render([_ASKED, message, _RESULT], variables=switches) for message in said]
        # Some write out blocks of content that they know nothing of.
        return any("word0" in text and not re.search("""['"]word0""", text) for text in texts)

    def _thinking_switch(self) -> str | None:
        names = ("enable_thinking", "thinking")
        return next((name for name in names if self._depends_on(name, True, False)), None)

    def _depends_on(self, name: str, one: object, other: object) -> bool:
        return self._try_render([_ASKED], variables={name: one}) != self._try_render(
            [_ASKED], variables={name: other}
        )


def _make_message(role: str) -> TemplateMessage:
    return {"role": role, "content": role}


_ASKED = _make_message("user")


def _make_call(arguments: object, call_id: str = SAMPLE_ID) -> TemplateMessage:
    function = {"name": SAMPLE_NAME, "arguments": arguments}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


_ARGUMENTS = {SAMPLE_KEY: SAMPLE_VALUE}
_RESULT = {"role": "tool", "content": "result", "tool_call_id": SAMPLE_ID, "name": SAMPLE_NAME}
_SCHEMA = {"type": "object", "properties": {SAMPLE_KEY: {"type": "string", "description": "a key"}}}
_FUNCTION = {"name": SAMPLE_NAME, "description": "a tool", "parameters": _SCHEMA}
_TOOL = {"type": "function", "function": _FUNCTION}
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning", "content")


def add_reasoning(message: TemplateMessage, key: str, reasoning: str) -> TemplateMessage:
    """The message with its reasoning, which templates of one family (Mistral) want among blocks of content."""
    if key != "content":
        return {**message, key: reasoning}
    text = [{"type": "text", "text": message["content"]}] if message["content"] else []
    return {**message, "content": [{"type": "thinking", "thinking": reasoning}, *text]}
