"""Rendering of a conversation to prompt text: escaping, the chat template, and the beginning of the answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from commonweight.messages.request import CountTokensRequest
from commonweight.prompting.conversation import Conversation
from commonweight.prompting.formats.call_ids import is_short_id
from commonweight.prompting.marks import TTL_BY_MARK, MarkPosition, extract_marks, strip_marks
from commonweight.prompting.template.chat_template import BadConversationError, ChatTemplate, TemplateMessage
from commonweight.prompting.tokens.escaping import Escaper

_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""The API's effort to the values that templates take."""


@dataclass(frozen=True)
class PromptText:
    """Rendered text of a prompt, still escaped but without marks, and positions in it."""

    text: str
    answer_start: int
    """Where the answer begins: before tags at the end that open the reasoning, or close it at once."""
    marks: list[MarkPosition]
    """All marks in order."""


class PromptTextRenderer:
    """Renders conversations with one chat template. Safe to use from several threads."""

    def __init__(self, template: ChatTemplate, escaper: Escaper) -> None:
        self._template = template
        self._escaper = escaper

    def render(self, request: CountTokensRequest, conversation: Conversation, thinks: bool) -> PromptText:
        """The prompt's text, up to where the model goes on. ``thinks``: the model reasons first.

        Raises:
            BadConversationError: the template refuses the conversation.
            UnicodeEncodeError: a text holds a lone surrogate.
        """
        template = self._template
        variables: dict[str, object] = {}
        if template.thinking_switch:
            variables[template.thinking_switch] = thinks
        if template.has_effort and request.effort:
            variables["reasoning_effort"] = _EFFORTS[request.effort]
        marked = [_escape_message(message, self._escaper) for message in conversation.messages]
        plain = _strip_marks(marked)
        tools = self._escaper.escape_json(conversation.tools)
        prefill = self._escaper.escape(conversation.prefill)
        rendered = template.render(plain, tools, **variables)
        ending = self._render_ending(rendered, conversation, thinks)
        text = rendered + ending + strip_marks(prefill)
        answer_start = len(text) if conversation.reasoning else self._find_answer(rendered + ending, len(text))
        marks: list[MarkPosition] = []
        if marked != plain or strip_marks(prefill) != prefill:
            # Marks may change what a template does with a text. So the text to be tokenized is rendered without
            # them, and the template is rendered again to find their positions.
            marks, is_exact = self._find_marks(text, marked, tools, variables, ending + prefill)
            if not is_exact:
                without_cache_marks = _strip_marks(marked, TTL_BY_MARK)
                own, _ = self._find_marks(text, without_cache_marks, tools, variables, ending + prefill)
                marks = sorted([*own, *((position, mark) for position, mark in marks if mark in TTL_BY_MARK)])
        return PromptText(text, answer_start, marks)

    def _find_marks(
        self,
        text: str,
        marked: Sequence[TemplateMessage],
        tools: Sequence[Any] | None,
        variables: Mapping[str, object],
        ending: str,
    ) -> tuple[list[MarkPosition], bool]:
        """Positions in ``text`` of the marks in messages, and whether they are exact.

        They are not if the marks change what the template writes. Then marks after the first difference are left
        out, except cache marks, which move to it.
        """
        try:
            bare, marks = extract_marks(self._template.render(marked, tools, **variables) + ending)
        except BadConversationError:
            return [], False
        if bare == text:
            return marks, True
        same = next(
            (i for i, (a, b) in enumerate(zip(bare, text, strict=False)) if a != b), min(len(bare), len(text))
        )
        return [
            (min(position, same), mark) for position, mark in marks if position <= same or mark in TTL_BY_MARK
        ], False

    def _find_answer(self, text: str, otherwise: int) -> int:
        """Start of what ends a text: tags of reasoning, empty or not closed, and white space around them."""
        thinking = self._template.thinking
        before = text.rstrip()
        if thinking is None:
            return len(before)
        before = before.removesuffix(thinking.closing).rstrip()
        return len(before) - len(thinking.opening) if before.endswith(thinking.opening) else otherwise

    def _render_ending(self, rendered: str, conversation: Conversation, thinks: bool) -> str:
        """Text between what the template rendered and the answer or its prefill: mostly tags of reasoning."""
        template = self._template
        thinking, family = template.thinking, template.format
        ending = ""
        if thinking and conversation.reasoning:
            opening = "" if rendered.rstrip().endswith(thinking.opening) else thinking.opening
            reasoning = self._escaper.escape(conversation.reasoning)
            ending = (
                f"{opening}{reasoning}{thinking.closing}{family.glue}"
                if family.text_openings
                else f"{opening}\n{reasoning}\n{thinking.closing}\n\n"
            )
        elif thinking and not thinks and not family.text_openings:
            if rendered.rstrip().endswith(thinking.opening):
                ending = f"\n{thinking.closing}\n\n"
            elif not template.thinking_switch:
                ending = f"{thinking.opening}\n\n{thinking.closing}\n\n"
        if conversation.prefill and family.text_openings:
            ending += family.text_openings[0]
        return ending


def _escape_message(message: TemplateMessage, escaper: Escaper) -> TemplateMessage:
    """The message with its texts escaped, except words of our own that templates compare or measure."""

    def is_own(key: str, part: object) -> bool:
        return key in ("role", "type") or (key in ("id", "tool_call_id") and is_short_id(part))

    return {key: part if is_own(key, part) else _escape_part(part, escaper) for key, part in message.items()}


def _escape_part(part: Any, escaper: Escaper) -> Any:  # noqa: ANN401 - whatever a message holds
    if isinstance(part, str):
        return escaper.escape(part)
    if isinstance(part, list):
        return [_escape_message(item, escaper) for item in part]  # calls, or blocks of content
    return {"name": escaper.escape(part["name"]), "arguments": escaper.escape_json(part["arguments"])}


def _strip_marks(part: Any, kinds: Iterable[str] | None = None) -> Any:  # noqa: ANN401 - whatever a message holds
    match part:
        case str():
            return strip_marks(part, kinds)
        case list():
            return [_strip_marks(item, kinds) for item in part]
        case dict():
            return {key: _strip_marks(item, kinds) for key, item in part.items()}
        case _:
            return part
