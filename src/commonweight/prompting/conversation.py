"""Conversion of a request's messages to the messages that a chat template takes.

Everything stays where the client put it: system messages in mid-conversation, tools that are loaded late, tool
results beside the text of the same turn. Content that the template does not support becomes tagged text of a
neighbouring turn, so that the prompt of a conversation's beginning never depends on the messages after it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from commonweight.messages.content import ThinkingBlock, ToolResultBlock, ToolUseBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest, MessageParam
from commonweight.messages.tool_changes import ToolChange
from commonweight.messages.tools import Tool
from commonweight.prompting.constrain.grammar import CITATION_TAGS
from commonweight.prompting.content_blocks import PARAGRAPH, BlockRenderer, announce_tool, read_cache_mark
from commonweight.prompting.documents import Document
from commonweight.prompting.formats import NUMBER, ToolCallFormat, fill_placeholders
from commonweight.prompting.formats.call_ids import make_named_id, make_short_id
from commonweight.prompting.marks import (
    AFTER_CALL,
    AFTER_REASONING,
    AFTER_TEXT,
    BEFORE_NON_ASSISTANT,
    extract_marks,
    make_cache_mark,
    make_numbered_mark,
    strip_marks,
)
from commonweight.prompting.template.chat_template import Beginning, ChatTemplate, TemplateMessage, add_reasoning

# Beginning of a system block that agents put first; it differs by conversation and would spoil shared prefixes.
_ATTRIBUTION = "x-anthropic-billing-header:"

_NO_USER_YET = "(This conversation begins with the assistant.)"
"""Text of a first user turn for templates that insist on one."""

_CITING = f"""\
When your answer rests on one of the documents, quote it after the sentence that rests on it, word for word:
{CITATION_TAGS.opening}NUMBER">the exact words of the document{CITATION_TAGS.closing}"""


@dataclass
class _Turn:
    """Text, reasoning and tool calls of one turn, or one tool result, before it becomes a template message."""

    role: str
    text: str = ""
    number: int = 0
    """Index in the request of its message, or of the first of several merged ones."""
    reasoning: str = ""
    calls: list[ToolUseBlock] = field(default_factory=list)
    result_of: str = ""
    """For a tool result: the id of the call."""
    marks_after: str = ""
    """Cache marks after the turn: those of tool calls and tool definitions, which have no text to hold them."""


@dataclass(frozen=True)
class Conversation:
    """Messages and tools for a chat template, with marks in their texts, and the prefill of the answer."""

    messages: list[TemplateMessage]
    tools: list[dict[str, Any]] | None
    prefill: str
    """Text of the final assistant message, which the answer continues."""
    reasoning: str
    """Reasoning of the final assistant message."""

    @property
    def has_prefill(self) -> bool:
        """Whether the request ends with an assistant message."""
        return self.prefill != "" or self.reasoning != ""


class ConversationBuilder:
    """Builds conversations for one chat template. Safe to use from several threads."""

    def __init__(self, template: ChatTemplate, default_system: str | None = None) -> None:
        self._template = template
        self._format: ToolCallFormat = template.format
        self._default_system = default_system

    def build(self, request: CountTokensRequest, documents: Sequence[Document]) -> Conversation:
        """The conversation of a request.

        Raises:
            InvalidRequestError: a block that a text model cannot read, or a prefill that ends with white space.
        """
        tools = request.tools or []
        blocks = BlockRenderer(documents, request.trace_tools(), self._show_tool)
        loaded = [tool for tool in tools if not tool.defer_loading]
        passes_tools = bool(loaded) and self._template.has_tools
        turns = self._build_system(request, documents, [] if passes_tools else loaded, blocks)
        pending_marks = "".join(map(read_cache_mark, loaded)) if passes_tools else ""
        if turns and not self._template.has_tools_first:
            turns[0].marks_after, pending_marks = pending_marks, ""
        for i in _visible_indices(request.messages):
            self._add_turns(turns, request.messages[i], i, blocks)
        if request.cache_control and turns:
            turns[-1].marks_after += make_cache_mark(request.cache_control.ttl)
        has_system = turns != [] and turns[0].role == "system"
        turns = _merge_turns(
            [self._fit_role(turn, is_first=i == 0, has_system=has_system) for i, turn in enumerate(turns)]
        )
        turns = self._fit_beginning(self._fit_order(turns), has_tools=passes_tools)
        _place_marks(turns, pending_marks)
        prefill = turns.pop() if turns and turns[-1].role == "assistant" else _Turn("assistant")
        if (plain := strip_marks(prefill.text)) != plain.rstrip():
            raise InvalidRequestError("messages: final assistant content cannot end with trailing whitespace")
        calls = [call for turn in turns for call in turn.calls]
        names = {call.id: call.name for call in calls}
        ids = {call.id: self._make_call_id(call, number) for number, call in enumerate(calls)}
        for turn in turns:
            if turn.role != "assistant":
                turn.text = BEFORE_NON_ASSISTANT + turn.text
        messages = [self._build_message(turn, names, ids) for turn in turns]
        template_tools = [_make_definition(tool) for tool in loaded] if passes_tools else None
        return Conversation(messages, template_tools, prefill.text, prefill.reasoning)

    def _build_system(
        self,
        request: CountTokensRequest,
        documents: Sequence[Document],
        explained_tools: Sequence[Tool],
        blocks: BlockRenderer,
    ) -> list[_Turn]:
        """The system turn, if it has any text; ``explained_tools`` are those that the template cannot show."""
        system = request.system or []
        if system and system[0].text.startswith(_ATTRIBUTION):
            system = system[1:]
        texts = [blocks.render_all(system, "system")]
        if explained_tools:
            texts.append(self._explain_tools(explained_tools))
        if any(document.is_citable for document in documents):
            texts.append(_CITING)
        instructions = PARAGRAPH.join(text for text in texts if strip_marks(text)) or self._default_system
        return [_Turn("system", instructions)] if instructions else []

    def _explain_tools(self, tools: Sequence[Tool]) -> str:
        """Instructions for tool calls, where the template shows no tools."""
        lines = "\n".join(
            json.dumps(_make_definition(tool), ensure_ascii=False) + read_cache_mark(tool) for tool in tools
        )
        example = self._write_calls([("NAME", {"KEY": "VALUE"})])
        return (
            "# Tools\n\nYou may call these tools, described with the JSON schema of what they take:\n"
            f"<tools>\n{lines}\n</tools>\n\nA call is written like this, and ends what you say:\n{example}"
        )

    def _show_tool(self, change: ToolChange) -> str:
        """Text of a tool that the conversation adds: the first comes with how tools are called."""
        return (
            self._explain_tools([change.tool]) if change.is_first else announce_tool(_make_definition(change.tool))
        )

    def _write_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Text of tool calls in the model's format, for templates that take no calls."""
        family = self._format
        texts = []
        for name, arguments in calls:
            if family.arguments is None:
                body = json.dumps(arguments, ensure_ascii=False)
            else:
                syntax = family.arguments
                body = "".join(
                    syntax.before_key + key + syntax.before_value + _as_text(value) + syntax.after_value
                    for key, value in arguments.items()
                )
            texts.append(family.before_name + name + family.before_input + body + family.after_input)
        return fill_placeholders(family.opening + family.between.join(texts) + family.closing)

    def _add_turns(self, turns: list[_Turn], message: MessageParam, number: int, blocks: BlockRenderer) -> None:
        """Add the turns of a message: one for each tool result, and one for everything else."""
        results: list[_Turn] = []
        texts: list[str] = []
        turn = _Turn(message.role, number=number)
        for i, block in enumerate(message.content):
            path = f"messages.{number}.content.{i}"
            match block:
                case ToolResultBlock():
                    results.append(self._build_result(block, number, path, blocks))
                case ToolUseBlock():
                    turn.calls.append(block)
                    turn.marks_after += read_cache_mark(block)
                case ThinkingBlock():
                    turn.reasoning += block.thinking
                case _:
                    text = blocks.render(block, path)
                    if text is None:
                        turn.marks_after += read_cache_mark(block)
                    else:
                        texts.append(text + read_cache_mark(block))
        # Text of an assistant is one text, even when citations cut it into blocks.
        turn.text = ("" if message.role == "assistant" else PARAGRAPH).join(texts)
        has_content = strip_marks(turn.text) or turn.calls or turn.reasoning
        turns += results
        # A user turn without text stays, because templates want the roles to alternate.
        if has_content or (message.role == "user" and not results):
            turns.append(turn)
        elif turns:
            turns[-1].marks_after += turn.marks_after

    def _build_result(self, block: ToolResultBlock, number: int, path: str, blocks: BlockRenderer) -> _Turn:
        text = blocks.render_all(block.content, f"{path}.tool_result.content")
        if block.is_error:
            text = f"Error: {text}"
        return _Turn("tool", text + read_cache_mark(block), number, result_of=block.tool_use_id)

    def _fit_role(self, turn: _Turn, *, is_first: bool, has_system: bool) -> _Turn:
        """The turn with tagged text in place of a role, or of calls, that the template does not support."""
        template = self._template
        # A late system message must not take the template's own instructions away from the beginning.
        takes_late = template.has_late_system and (has_system or not template.has_default_system)
        if turn.role == "system" and not (template.has_system if is_first else takes_late):
            return replace(turn, role="user", text=f"<system>\n{turn.text}\n</system>")
        if turn.role == "tool" and not template.has_calls:
            return replace(turn, role="user", text=f"<tool_response>\n{turn.text}\n</tool_response>", result_of="")
        if turn.calls and not template.has_calls:
            calls = self._write_calls([(call.name, call.input) for call in turn.calls])
            return replace(turn, text="\n".join(text for text in (turn.text, calls) if text), calls=[])
        return turn

    def _fit_order(self, turns: Sequence[_Turn]) -> list[_Turn]:
        """The turns in an order that the template supports: user text joins a result that it cannot follow."""
        fitted: list[_Turn] = []
        for turn in turns:
            follows_result = turn.role == "user" and fitted and fitted[-1].role == "tool"
            if follows_result and not self._template.has_text_after_results:
                fitted[-1].text += PARAGRAPH + turn.text
                fitted[-1].marks_after += turn.marks_after
            else:
                fitted.append(turn)
        return _split_calls(fitted) if self._format.takes_one_call else fitted

    def _fit_beginning(self, turns: list[_Turn], *, has_tools: bool) -> list[_Turn]:
        """The turns with one of the user in front, if they begin in a way that the template does not support."""
        start = 1 if turns and turns[0].role == "system" else 0
        beginning: Beginning = "nothing"
        if len(turns) > start:
            if turns[start].role != "assistant":
                return turns
            if len(turns) > start + 1:  # otherwise it is the prefill
                beginning = "call" if turns[start].calls else "answer"
        if self._template.may_begin(beginning, has_system=start > 0, has_tools=has_tools):
            return turns
        return [*turns[:start], _Turn("user", _NO_USER_YET), *turns[start:]]

    def _build_message(self, turn: _Turn, names: Mapping[str, str], ids: Mapping[str, str]) -> TemplateMessage:
        text, reasoning = turn.text, turn.reasoning
        if text and reasoning and turn.calls and self._format.takes_one_call:
            # One template (gpt-oss) takes either text or reasoning beside a call.
            text, reasoning = "", reasoning + PARAGRAPH + strip_marks(text)
        if turn.role == "assistant" and text:
            text += make_numbered_mark(AFTER_TEXT, turn.number)
        message: TemplateMessage = {"role": turn.role, "content": text}
        if turn.calls:
            message["tool_calls"] = [self._build_call(call, ids[call.id], turn.number) for call in turn.calls]
        if turn.result_of:
            message["tool_call_id"] = ids[turn.result_of]
            message["name"] = names[turn.result_of]
        key = self._template.reasoning_key
        return (
            add_reasoning(message, key, reasoning + make_numbered_mark(AFTER_REASONING, turn.number))
            if reasoning and key
            else message
        )

    def _make_call_id(self, call: ToolUseBlock, number: int) -> str:
        is_numbered = NUMBER in self._format.before_input
        return make_named_id(call.name, number) if is_numbered else make_short_id(call.id)

    def _build_call(self, call: ToolUseBlock, call_id: str, number: int) -> dict[str, Any]:
        arguments: Any = call.input
        if self._template.has_text_arguments:
            arguments = json.dumps(arguments, ensure_ascii=False)
        name, mark = call.name, make_numbered_mark(AFTER_CALL, number)
        if self._template.has_named_ids:
            call_id += mark
        else:
            name += mark
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _make_definition(tool: Tool) -> dict[str, Any]:
    description = tool.description or ""
    for example in tool.input_examples or []:
        description += f"\n\nExample of an input: {json.dumps(example, ensure_ascii=False)}"
    schema = tool.input_schema
    if "properties" not in schema:
        schema = {**schema, "properties": {}}  # some templates rely on it
    return {
        "type": "function",
        "function": {"name": tool.name, "description": description.strip(), "parameters": schema},
    }


def _visible_indices(messages: Sequence[MessageParam]) -> Iterator[int]:
    """Indices of the messages for the prompt: without system messages that the user's next message cleared."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    for i, message in enumerate(messages):
        if message.role != "system" or message.clear_at != "next_user_message" or i > last:
            yield i


def _merge_turns(turns: Sequence[_Turn]) -> list[_Turn]:
    """The turns with consecutive ones of one role merged, except tool results."""
    merged: list[_Turn] = []
    for turn in turns:
        last = merged[-1] if merged else None
        if last and last.role == turn.role and turn.role != "tool":
            is_apart = turn.role != "assistant" and strip_marks(last.text) != "" and strip_marks(turn.text) != ""
            last.text += PARAGRAPH * is_apart + turn.text
            last.reasoning += turn.reasoning
            last.calls += turn.calls
            last.marks_after += turn.marks_after
        else:
            merged.append(turn)
    return merged


def _split_calls(turns: Sequence[_Turn]) -> list[_Turn]:
    """The turns with each tool call in a turn of its own, followed by its result."""
    ordered: list[_Turn] = []
    results = {turn.result_of: turn for turn in turns if turn.role == "tool"}
    for turn in turns:
        if turn.role == "tool":
            continue
        if not turn.calls:
            ordered.append(turn)
        for i, call in enumerate(turn.calls):
            first = replace(turn, calls=[call], marks_after="")
            ordered.append(first if i == 0 else _Turn(turn.role, number=turn.number, calls=[call]))
            if call.id in results:
                ordered.append(results[call.id])
        if turn.calls:
            ordered[-1].marks_after += turn.marks_after
    return ordered


def _place_marks(turns: Sequence[_Turn], pending_marks: str) -> None:
    """Move marks that have no text of their own to the start of the next text, or to the end of the last one."""
    last: _Turn | None = None
    for turn in turns:
        text, marks = extract_marks(turn.text)
        if text.strip():
            turn.text, pending_marks, last = pending_marks + turn.text, "", turn
        else:
            turn.text = text
            pending_marks += "".join(mark for _, mark in marks)
        pending_marks += turn.marks_after
    if last:
        last.text += pending_marks


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
