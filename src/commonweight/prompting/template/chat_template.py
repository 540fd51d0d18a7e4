"""Chat template of a model, with its features detected by test renders: system role, tools, reasoning, effort."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any, Literal

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
from commonweight.prompting.template.sandbox import LimitError, RenderError, TemplateError, get_shared_sandbox
from commonweight.prompting.template.sandbox_worker import ROLES

PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{{ {'system': 'System', 'user': 'User', 'assistant': 'Assistant'}[message.role] }}: {{ message.content }}

{% endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""
"""Chat template for models without one: base models, which continue a plain transcript."""

RENDER_SECONDS, TRIAL_SECONDS = 5.0, 1.0
"""Processor time for a conversation, and for each test render of a few words. Most renders take milliseconds;
32 MB of many short messages were seen to take two seconds."""

_TRACE_TRIALS = 3
"""A template may tell the time, by which two prompts differ."""

PLAIN_TURN_END = "\n\nUser:"
"""Text that ends the turn of such a model: it goes on as the user."""


class BadTemplateError(UnreadableModelError):
    """The chat template cannot be compiled, or exceeds the limits of a test render."""


class BadConversationError(ValueError):
    """The template refuses a conversation; the message is the template's."""


Beginning = Literal["answer", "call", "nothing"]
"""What a conversation begins with in place of a message of the user: text of the assistant, a call and its result,
or the answer that is to come."""
_BEGINNINGS: tuple[Beginning, ...] = ("answer", "call", "nothing")

TemplateMessage = dict[str, Any]
"""``role``, ``content`` and, optionally, ``reasoning_content``, ``tool_calls``, ``tool_call_id`` and ``name``."""


class ChatTemplate:
    """A chat template and its features, detected by test renders. Safe to use from several threads.

    Raises:
        BadTemplateError: the template cannot be compiled, or exceeds the limits of a test render.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._stand_ins: Mapping[str, str] = {}
        self._resolve: Callable[[str], str] = str
        self._no_tools: list[Any] | None = None
        if not self._try_render([_USER_MESSAGE]):
            self._no_tools = []  # some templates iterate over tools without a check for None
            self._require_render()
        self.has_system = self._keeps_order(*map(_make_message, ("system", "user", "assistant", "user")))
        """Supports a system message in first place."""
        self.has_late_system = self._keeps_order(*_LATE_SYSTEM)
        """Supports a system message in mid-conversation, and keeps its place."""
        self.has_default_system = self.has_late_system and self._has_default_system()
        """Writes instructions of its own in front of conversations without any system message."""
        self.has_text_arguments = self._wants_text_arguments()
        """Takes the arguments of a call as JSON text, not as an object."""
        self._sample_call, self.has_named_ids = self._select_sample_call()
        self.format = detect_format(self._try_render([_USER_MESSAGE, self._sample_call]))
        """The tool-call format it renders."""
        self.has_calls = self.format is not GENERIC and self._keeps_order(
            _USER_MESSAGE, self._sample_call, _SAMPLE_RESULT
        )
        """Supports tool calls and their results."""
        self.has_text_after_results = self.has_calls and self._keeps_order(
            _USER_MESSAGE,
            self._sample_call,
            _SAMPLE_RESULT,
            _make_message("user"),
            _make_message("assistant"),
            _make_message("user"),
        )
        """Supports user text after a tool result."""
        self.has_tools = self.has_calls and SAMPLE_NAME in self._try_render([_USER_MESSAGE], tools=[_SAMPLE_TOOL])
        """Renders the tool definitions."""
        self.has_tools_first = self._has_tools_first()
        """Renders the tool definitions before the system text."""
        self._bad_beginnings = frozenset(
            beginning
            for beginning in product(_BEGINNINGS, (False, True), (False, True))
            if not self._begins(*beginning)
        )
        self.thinking = find_thinking_tags(source, self.format)
        """The tags around reasoning; None if the model does not reason."""
        self.thinking_switch = self._find_thinking_switch() if self.thinking else None
        """Name of the template variable that turns reasoning on and off."""
        self.has_effort = self._depends_on("reasoning_effort", "low", "high")
        """Supports the variable ``reasoning_effort``."""
        self.reasoning_key = next(filter(self._shows_reasoning, _REASONING_KEYS), None)
        """The key of a message for its reasoning, if the template renders any: see ``add_reasoning``."""

    def render(
        self, messages: Sequence[TemplateMessage], tools: Sequence[Any] | None = None, **variables: object
    ) -> str:
        """Render the prompt text, including the generation prompt.

        Raises:
            BadConversationError: the template raises an error for these messages.
        """
        try:
            return self._render(messages, tools, RENDER_SECONDS, variables)
        except RenderError as error:
            raise BadConversationError(self._resolve(str(error))) from error

    def select_written(self, tokens: Iterable[str]) -> list[str]:
        """Those of some special tokens that the template may write, by its source: whole, or around a role."""
        shown = self.source.replace("\\", "") + "".join(self._tokens.values())  # quotes in it may be escaped

        def is_written(token: str) -> bool:
            splits = [token.split(role, 1) for role in ROLES if role in token]
            return token in shown or any(start in shown and end in shown for start, end in splits)

        return list(filter(is_written, tokens))

    def trace(self, stand_ins: Mapping[str, str], resolve: Callable[[str], str]) -> None:
        """Render with stand-ins for special tokens in the template's literals; ``resolve`` puts the tokens back.

        Raises:
            BadTemplateError: that changes sample prompts, so the template makes special tokens of other text.
        """
        for _ in range(_TRACE_TRIALS):
            self._stand_ins, self._resolve = {}, str
            plain = self._render_samples()
            self._stand_ins, self._resolve = stand_ins, resolve
            if self._render_samples() == plain:
                return
        raise BadTemplateError(
            "the model's chat template is refused: it changes its own special tokens, or puts them together from "
            "parts, so that text of clients could become one"
        )

    def _render_samples(self) -> list[str]:
        reply = _make_message("assistant")
        if self.reasoning_key:
            reply = add_reasoning(reply, self.reasoning_key, "reasoning")
        conversations = [
            [_make_message("system"), _USER_MESSAGE, reply, _USER_MESSAGE],
            [_USER_MESSAGE, reply, _make_message("system"), _USER_MESSAGE],
            [_USER_MESSAGE, reply, _USER_MESSAGE],
            [_make_message("system"), _USER_MESSAGE, self._sample_call, _SAMPLE_RESULT],
            [_USER_MESSAGE, self._sample_call, _SAMPLE_RESULT, reply, _USER_MESSAGE],
        ]
        switches = [{self.thinking_switch: value} for value in (True, False)] if self.thinking_switch else [{}]
        return [
            self._try_render(messages, tools, variables)
            for messages in conversations
            for tools in (None, [_SAMPLE_TOOL])
            for variables in switches
        ]

    def may_begin(self, beginning: Beginning, *, has_system: bool, has_tools: bool) -> bool:
        """Whether a conversation, after its system message, may begin without a message of the user."""
        return (beginning, has_system, has_tools) not in self._bad_beginnings

    def _render(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Any] | None,
        seconds: float,
        variables: Mapping[str, object],
    ) -> str:
        standard = {"messages": messages, "tools": tools or self._no_tools, "add_generation_prompt": True}
        tokens = {name: self._stand_ins.get(token, token) for name, token in self._tokens.items()}
        stand_ins = tuple(self._stand_ins.items())
        rendered = get_shared_sandbox().render(
            self.source, standard | tokens | dict(variables), seconds, stand_ins
        )
        return self._resolve(rendered)

    def _select_sample_call(self) -> tuple[TemplateMessage, bool]:
        """A sample call as the template takes it, and whether the template renders its id in place of its name."""
        arguments = json.dumps(_ARGUMENTS) if self.has_text_arguments else _ARGUMENTS
        plain, named = _make_call(arguments), _make_call(arguments, make_named_id(SAMPLE_NAME, 0))
        takes_plain, takes_named = (
            detect_format(self._try_render([_USER_MESSAGE, call])) is not GENERIC for call in (plain, named)
        )
        return (named, True) if takes_named and not takes_plain else (plain, False)

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

    def _require_render(self) -> None:
        """Raise :class:`BadTemplateError` if the template refuses the plainest conversations, as it would any."""
        for messages in ([_USER_MESSAGE], [_make_message("system"), _USER_MESSAGE]):
            try:
                self._render(messages, None, TRIAL_SECONDS, {})
            except RenderError as error:
                reason = error
            else:
                return
        raise BadTemplateError(f"the model's chat template fails on every message: {reason}")

    def _keeps_order(self, *messages: TemplateMessage, tools: Sequence[Any] | None = None) -> bool:
        named = _name_messages(messages)
        text = self._try_render(named, tools)
        # A call is found by its name; some templates drop the text beside it.
        words = [SAMPLE_NAME if "tool_calls" in message else message["content"] for message in named]
        positions = [text.find(word) for word in words]
        return -1 not in positions and positions == sorted(positions)

    def _has_default_system(self) -> bool:
        before, word, _ = self._try_render(_name_messages(_LATE_SYSTEM[:1])).partition("word0")
        return not self._try_render(_name_messages(_LATE_SYSTEM)).startswith(before + word)

    def _begins(self, beginning: Beginning, has_system: bool, has_tools: bool) -> bool:
        """Whether the template shows such a conversation, now and when it has gone on."""
        system = [_make_message("system")] if has_system and self.has_system else []
        tools = [_make_tool("other")] if has_tools and self.has_tools else None
        if beginning == "nothing":
            return self._try_render(_name_messages(system), tools) != "" and self._keeps_order(
                *system, tools=tools
            )
        first = self._sample_call if beginning == "call" else _make_message("assistant")
        if beginning == "call" and not self.has_calls:
            return True  # it is shown as text
        start = [*system, first, _SAMPLE_RESULT if beginning == "call" else _USER_MESSAGE]
        as_user = [*system, *map(_make_message, ("user", "user"))]
        return (
            self._keeps_order(*start, tools=tools)
            and self._keeps_order(*start, *map(_make_message, ("assistant", "user")), tools=tools)
            and self._try_render(_name_messages(start), tools) != self._try_render(_name_messages(as_user), tools)
        )

    def _wants_text_arguments(self) -> bool:
        samples = _make_call(_ARGUMENTS), _make_call(json.dumps(_ARGUMENTS))
        as_object, as_text = (self._try_render([_USER_MESSAGE, call]) for call in samples)
        return SAMPLE_VALUE not in as_object and SAMPLE_VALUE in as_text

    def _has_tools_first(self) -> bool:
        named = _name_messages(map(_make_message, ("system", "user")))
        text = self._try_render(named, tools=[_SAMPLE_TOOL])
        return text.find(SAMPLE_NAME) < text.find("word0")

    def _shows_reasoning(self, key: str) -> bool:
        # Templates show reasoning at least while tools are being called.
        messages = [
            add_reasoning(message, key, "word0") for message in (_make_message("assistant"), self._sample_call)
        ]
        switches = {"enable_thinking": True, "thinking": True}
        texts = [
            self._try_render([_USER_MESSAGE, message, _SAMPLE_RESULT], variables=switches) for message in messages
        ]
        # Some write a list of content blocks as its Python or JSON text.
        return any("word0" in text and not re.search("""['"]word0""", text) for text in texts)

    def _find_thinking_switch(self) -> str | None:
        names = ("enable_thinking", "thinking")
        return next((name for name in names if self._depends_on(name, True, False)), None)

    def _depends_on(self, name: str, value: object, other: object) -> bool:
        return self._try_render([_USER_MESSAGE], variables={name: value}) != self._try_render(
            [_USER_MESSAGE], variables={name: other}
        )


def _make_message(role: str) -> TemplateMessage:
    return {"role": role, "content": role}


def _name_messages(messages: Iterable[TemplateMessage]) -> list[TemplateMessage]:
    """The messages with contents that are found again in rendered text."""
    return [{**message, "content": f"word{i}"} for i, message in enumerate(messages)]


_USER_MESSAGE = _make_message("user")
_LATE_SYSTEM = [_make_message(role) for role in ("user", "system", "assistant", "user")]


def _make_call(arguments: object, call_id: str = SAMPLE_ID) -> TemplateMessage:
    function = {"name": SAMPLE_NAME, "arguments": arguments}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


_ARGUMENTS = {SAMPLE_KEY: SAMPLE_VALUE}
_SAMPLE_RESULT = {"role": "tool", "content": "result", "tool_call_id": SAMPLE_ID, "name": SAMPLE_NAME}
_SCHEMA = {"type": "object", "properties": {SAMPLE_KEY: {"type": "string", "description": "a key"}}}


def _make_tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "a tool", "parameters": _SCHEMA}}


_SAMPLE_TOOL = _make_tool(SAMPLE_NAME)
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning", "content")


def add_reasoning(message: TemplateMessage, key: str, reasoning: str) -> TemplateMessage:
    """The message with its reasoning under ``key``; for ``content`` (Mistral) as a content block."""
    if key != "content":
        return {**message, key: reasoning}
    text = [{"type": "text", "text": message["content"]}] if message["content"] else []
    return {**message, "content": [{"type": "thinking", "thinking": reasoning}, *text]}
