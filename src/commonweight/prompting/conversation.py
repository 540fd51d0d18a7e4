"""A request's conversation as the messages that a chat template takes.

Everything stays where the client put it: system messages in the middle, tools that are loaded late, results beside
the text of the same turn. What a template has no place for becomes a marked part of a neighbour, so that the
beginning of a conversation never depends on how it goes on.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from commonweight.messages.content import ThinkingBlock, ToolReferenceBlock, ToolResultBlock, ToolUseBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest, MessageParam
from commonweight.messages.tools import Tool
from commonweight.prompting.constrain.grammar import CITATION_TAGS
from commonweight.prompting.documents import Document
from commonweight.prompting.flatten import PARAGRAPH, BlockFlattener, read_cache_mark
from commonweight.prompting.formats import CALL_ID, NUMBER, Format, fill_placeholders
from commonweight.prompting.marks import (
    CALLED,
    REPLY,
    SAID,
    THOUGHT,
    extract_marks,
    make_cache_mark,
    make_numbered_mark,
    strip_marks,
)
from commonweight.prompting.template.chat_template import (
    ChatTemplate,
    TemplateMessage,
    add_reasoning,
    make_named_id,
)

# Agents put a block like this first; it differs by conversation and would spoil every shared prefix.
_ATTRIBUTION = "x-anthropic-billing-header:"

_CITING = f"""\
When your answer rests on one of the documents, quote it after the sentence that rests on it, word for word:
{CITATION_TAGS.opening}NUMBER">the exact words of the document{CITATION_TAGS.closing}"""


@dataclass
class RenderedTurn:
    """One message on its way to the template."""

    role: str
    text: str = ""
    number: int = 0
    """That of the message of the request that it is, or begins with."""
    reasoning: str = ""
    calls: list[ToolUseBlock] = field(default_factory=list)
    result_of: str = ""
    """Of a tool's result: the id of the call."""
    marks_after: str = ""
    """Cache marks that stand after it, since calls and definitions of tools have no text that could hold them."""


@dataclass(frozen=True)
class Conversation:
    """What the template renders. Its texts hold marks: the client's, and those that tell whose words are where."""

    messages: list[TemplateMessage]
    tools: list[dict[str, Any]] | None
    prefill: str
    """Text of the assistant that the answer continues."""
    reasoning: str
    """Reasoning before that text."""

    @property
    def has_prefill(self) -> bool:
        """Whether the client has begun the answer."""
        return self.prefill != "" or self.reasoning != ""


class ConversationBuilder:
    """Turns requests into conversations for one model's template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._format: Format = template.format

    def build(self, request: CountTokensRequest, documents: Sequence[Document]) -> Conversation:
        """The conversation of a request.

        Raises:
            InvalidRequestError: it holds something that this model cannot read.
        """
        tools = request.tools or []
        definitions = {tool.name: _make_definition(tool) for tool in tools}
        flattener = BlockFlattener(documents, definitions)
        loaded = [tool for tool in tools if not tool.defer_loading]
        is_shown = bool(loaded) and self._template.has_tools
        said = self._build_system(request, documents, [] if is_shown else loaded, flattener)
        waiting = "".join(map(read_cache_mark, loaded)) if is_shown else ""
        if said and not self._template.has_tools_first:
            said[0].marks_after, waiting = waiting, ""
        for i in _visible_indices(request.messages):
            said += self._build_turns(request.messages[i], i, flattener)
        if request.cache_control and said:
            said[-1].marks_after += make_cache_mark(request.cache_control.ttl)
        said = self._fit_order(
            _merge_turns([self._fit_roles(part, is_first=i == 0) for i, part in enumerate(said)])
        )
        _place_marks(said, waiting)
        begun = said.pop() if said and said[-1].role == "assistant" else RenderedTurn("assistant")
        if (bare := strip_marks(begun.text)) != bare.rstrip():
            raise InvalidRequestError("messages: final assistant content cannot end with trailing whitespace")
        calls = [call for part in said for call in part.calls]
        names = {call.id: call.name for call in calls}
        ids = {call.id: self._call_id(call, number) for number, call in enumerate(calls)}
        for part in said:
            if part.role != "assistant":
                part.text = REPLY + part.text
        messages = [self._build_message(part, names, ids) for part in said]
        shown = [definitions[tool.name] for tool in loaded] if is_shown else None
        return Conversation(messages, shown, begun.text, begun.reasoning)

    def _build_system(
        self,
        request: CountTokensRequest,
        documents: Sequence[Document],
        unshown: Sequence[Tool],
        flattener: BlockFlattener,
    ) -> list[RenderedTurn]:
        system = request.system or []
        if system and system[0].text.startswith(_ATTRIBUTION):
            system = system[1:]
        texts = [flattener.text(system, "system")]
        if unshown:
            texts.append(self._explain_tools(unshown))
        if any(document.is_citable for document in documents):
            texts.append(_CITING)
        instructions = PARAGRAPH.join(text for text in texts if strip_marks(text))
        return [RenderedTurn("system", instructions)] if instructions else []

    def _explain_tools(self, tools: Sequence[Tool]) -> str:
        """What a template would say of tools."""
        lines = "\n".join(
            json.dumps(_make_definition(tool), ensure_ascii=False) + read_cache_mark(tool) for tool in tools
        )
        example = self._write_calls([("NAME", {"KEY": "VALUE"})])
        return (
            "# Tools\n\nYou may call these tools, described with the JSON schema of what they take:\n"
            f"<tools>\n{lines}\n</tools>\n\nA call is written like this, and ends what you say:\n{example}"
        )

    def _write_calls(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls as the model writes them, for templates without a place for them."""
        family = self._format
        texts = []
        for name, arguments in calls:
            if family.arguments is None:
                body = json.dumps(arguments, ensure_ascii=False)
            else:
                around = family.arguments
                body = "".join(
                    around.before_key + key + around.before_value + _as_text(value) + around.after_value
                    for key, value in arguments.items()
                )
            texts.append(family.before_name + name + family.before_input + body + family.after_input)
        return fill_placeholders(family.opening + family.between.join(texts) + family.closing)

    def _build_turns(self, message: MessageParam, number: int, flattener: BlockFlattener) -> list[RenderedTurn]:
        """A message as one said thing, and one more for each result of a tool."""
        results: list[RenderedTurn] = []
        rest: list[str] = []
        said = RenderedTurn(message.role, number=number)
        for i, block in enumerate(message.content):
            place = f"messages.{number}.content.{i}"
            match block:
                case ToolResultBlock():
                    results.append(self._build_result(block, number, place, flattener))
                case ToolUseBlock():
                    said.calls.append(block)
                    said.marks_after += read_cache_mark(block)
                case ThinkingBlock():
                    said.reasoning += block.thinking
                case _:
                    text = flattener.block(block, place)
                    if text is not None:
                        rest.append(text + read_cache_mark(block))
        # Text of an assistant is one text, even when citations cut it into blocks.
        said.text = ("" if message.role == "assistant" else PARAGRAPH).join(rest)
        says_something = strip_marks(said.text) or said.calls or said.reasoning
        # Of a turn of the user that is empty, to us, its place remains: the roles alternate.
        return [*results, said] if says_something or (message.role == "user" and not results) else results

    def _build_result(
        self, block: ToolResultBlock, number: int, where: str, flattener: BlockFlattener
    ) -> RenderedTurn:
        text = flattener.text(block.content, f"{where}.tool_result.content")
        if block.is_error:
            text = f"Error: {text}"
        return RenderedTurn("tool", text + read_cache_mark(block), number, result_of=block.tool_use_id)

    def _fit_roles(self, said: RenderedTurn, *, is_first: bool) -> RenderedTurn:
        """What the template has no place for becomes a marked part of the user's turn."""
        template = self._template
        if said.role == "system" and not (template.has_system if is_first else template.has_late_system):
            return replace(said, role="user", text=f"<system>\n{said.text}\n</system>")
        if said.role == "tool" and not template.has_calls:
            return replace(said, role="user", text=f"<tool_response>\n{said.text}\n</tool_response>", result_of="")
        if said.calls and not template.has_calls:
            calls = self._write_calls([(call.name, call.input) for call in said.calls])
            return replace(said, text="\n".join(part for part in (said.text, calls) if part), calls=[])
        return said

    def _fit_order(self, said: Sequence[RenderedTurn]) -> list[RenderedTurn]:
        """In the order that the template takes: text beside results joins them where it cannot follow them."""
        fitted: list[RenderedTurn] = []
        for part in said:
            joins = part.role == "user" and fitted and fitted[-1].role == "tool"
            if joins and not self._template.has_text_after_results:
                fitted[-1].text += PARAGRAPH + part.text
                fitted[-1].marks_after += part.marks_after
            else:
                fitted.append(part)
        return _split_calls(fitted) if self._format.takes_one_call else fitted

    def _build_message(
        self, said: RenderedTurn, names: Mapping[str, str], ids: Mapping[str, str]
    ) -> TemplateMessage:
        text, reasoning = said.text, said.reasoning
        if text and reasoning and said.calls and self._format.takes_one_call:
            # One template (gpt-oss) takes either text or reasoning beside a call.
            text, reasoning = "", reasoning + PARAGRAPH + strip_marks(text)
        if said.role == "assistant" and text:
            text += make_numbered_mark(SAID, said.number)
        message: TemplateMessage = {"role": said.role, "content": text}
        if said.calls:
            message["tool_calls"] = [self._build_call(call, ids[call.id], said.number) for call in said.calls]
        if said.result_of:
            message["tool_call_id"] = ids[said.result_of]
            message["name"] = names[said.result_of]
        key = self._template.reasoning_key
        return (
            add_reasoning(message, key, reasoning + make_numbered_mark(THOUGHT, said.number))
            if reasoning and key
            else message
        )

    def _call_id(self, call: ToolUseBlock, number: int) -> str:
        return make_named_id(call.name, number) if NUMBER in self._format.before_input else short_id(call.id)

    def _build_call(self, call: ToolUseBlock, call_id: str, number: int) -> dict[str, Any]:
        arguments: Any = call.input
        if self._template.has_text_arguments:
            arguments = json.dumps(arguments, ensure_ascii=False)
        name, mark = call.name, make_numbered_mark(CALLED, number)
        if self._template.has_named_ids:
            call_id += mark
        else:
            name += mark
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def short_id(tool_use_id: str) -> str:
    """The id of a call as models know it: nine letters and digits, the last of ours."""
    end = tool_use_id[-len(CALL_ID) :]
    return end if is_short_id(end) else hashlib.sha256(tool_use_id.encode()).hexdigest()[: len(CALL_ID)]


def is_short_id(text: object) -> bool:
    """Whether an id is one of these. It can be no part of markup."""
    return isinstance(text, str) and len(text) == len(CALL_ID) and text.isalnum() and text.isascii()


def find_loaded_tools(request: CountTokensRequest) -> dict[str, dict[str, Any]]:
    """The input schemas of the tools that may be called: those not deferred, and those referred to since."""
    blocks = [block for message in request.messages for block in message.content]
    inner = [part for block in blocks if isinstance(block, ToolResultBlock) for part in block.content]
    named = {block.tool_name for block in (*blocks, *inner) if isinstance(block, ToolReferenceBlock)}
    return {
        tool.name: tool.input_schema
        for tool in request.tools or []
        if not tool.defer_loading or tool.name in named
    }


def _make_definition(tool: Tool) -> dict[str, Any]:
    description = tool.description or ""
    for example in tool.input_examples or []:
        description += f"\n\nExample of an input: {json.dumps(example, ensure_ascii=False)}"
    schema = tool.input_schema
    if "properties" not in schema:
        schema = {**schema, "properties": {}}  # which some templates rely on
    return {
        "type": "function",
        "function": {"name": tool.name, "description": description.strip(), "parameters": schema},
    }


def _visible_indices(messages: Sequence[MessageParam]) -> Iterator[int]:
    """The numbers of the messages that the model reads: some system messages are for one turn of the user only."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=0)
    for i, message in enumerate(messages):
        if message.role != "system" or message.clear_at != "next_user_message" or i > last:
            yield i


def _merge_turns(said: Sequence[RenderedTurn]) -> list[RenderedTurn]:
    """Consecutive turns of one role are one turn; results of tools stay apart."""
    merged: list[RenderedTurn] = []
    for part in said:
        last = merged[-1] if merged else None
        if last and last.role == part.role and part.role != "tool":
            has_joint = part.role != "assistant" and strip_marks(last.text) != "" and strip_marks(part.text) != ""
            last.text += PARAGRAPH * has_joint + part.text
            last.reasoning += part.reasoning
            last.calls += part.calls
            last.marks_after += part.marks_after
        else:
            merged.append(part)
    return merged


def _split_calls(said: Sequence[RenderedTurn]) -> list[RenderedTurn]:
    """Each call in a message of its own, with its result after it."""
    ordered: list[RenderedTurn] = []
    results = {part.result_of: part for part in said if part.role == "tool"}
    for part in said:
        if part.role == "tool":
            continue
        if not part.calls:
            ordered.append(part)
        for i, call in enumerate(part.calls):
            first = replace(part, calls=[call], marks_after="")
            ordered.append(first if i == 0 else RenderedTurn(part.role, number=part.number, calls=[call]))
            if call.id in results:
                ordered.append(results[call.id])
        if part.calls:
            ordered[-1].marks_after += part.marks_after
    return ordered


def _place_marks(said: Sequence[RenderedTurn], waiting: str) -> None:
    """Marks that no text of their own can hold begin the next text, or end the last one."""
    last: RenderedTurn | None = None
    for part in said:
        text, marks = extract_marks(part.text)
        if text.strip():
            part.text, waiting, last = waiting + part.text, "", part
        else:
            part.text = text
            waiting += "".join(character for _, character in marks)
        waiting += part.marks_after
    if last:
        last.text += waiting


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
