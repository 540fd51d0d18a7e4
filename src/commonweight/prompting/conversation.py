"""A request's conversation as the messages that a chat template takes.

Everything stays where the client put it: system messages in the middle, tools that are loaded late, results beside
the text of the same turn. What a template has no place for becomes a marked part of a neighbour, so that the
beginning of a conversation never depends on how it goes on.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from commonweight.messages.content import (
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest, MessageParam
from commonweight.messages.tools import Tool
from commonweight.prompting.documents import Document
from commonweight.prompting.flatten import PARAGRAPH, Flattener, mark_of
from commonweight.prompting.formats import CALL_ID, Format
from commonweight.prompting.grammar import QUOTES
from commonweight.prompting.marks import mark, take_out
from commonweight.prompting.template import ChatTemplate, TemplateMessage

# Agents put a block like this first; it differs by conversation and would spoil every shared prefix.
_ATTRIBUTION = "x-anthropic-billing-header:"

_CITING = f"""\
When your answer rests on one of the documents, quote it after the sentence that rests on it, word for word:
{QUOTES.opening}NUMBER">the exact words of the document{QUOTES.closing}"""


@dataclass
class Said:
    """One message on its way to the template."""

    role: str
    text: str = ""
    reasoning: str = ""
    calls: list[ToolUseBlock] = field(default_factory=list)
    result_of: str = ""
    """Of a tool's result: the id of the call."""


@dataclass(frozen=True)
class Conversation:
    """What the template renders."""

    messages: list[TemplateMessage]
    tools: list[dict[str, Any]] | None
    prefill: str
    """Text of the assistant that the answer continues."""


class Narrator:
    """Turns requests into conversations for one model's template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._format: Format = template.format

    def tell(self, request: CountTokensRequest, documents: Sequence[Document]) -> Conversation:
        """The conversation of a request.

        Raises:
            InvalidRequestError: it holds something that this model cannot read.
        """
        tools = request.tools or []
        definitions = {tool.name: _definition(tool) for tool in tools}
        flattener = Flattener(documents, {n: json.dumps(d, ensure_ascii=False) for n, d in definitions.items()})
        loaded = [definitions[tool.name] for tool in tools if not tool.defer_loading]
        shown = loaded if loaded and self._template.has_tools else None
        said = self._system(request, documents, [] if shown else loaded, flattener)
        pending = "".join(mark(tool.cache_control.ttl) for tool in tools if tool.cache_control)
        for i, message in enumerate(request.messages):
            if message.role == "system" and message.is_empty:
                continue  # carries only settings
            for part in self._parts(message, f"messages.{i}.content", flattener):
                part.text, pending = pending + part.text, ""
                said.append(part)
            # A call has no text of its own to mark; the mark goes to what follows it.
            pending = "".join(mark_of(block) for block in message.content if isinstance(block, ToolUseBlock))
        if request.cache_control and said:
            said[-1].text += mark(request.cache_control.ttl)
        said = self._fitted(_merged([self._placed(part, is_first=i == 0) for i, part in enumerate(said)]))
        prefill = ""
        if said and said[-1].role == "assistant":
            prefill = said.pop().text
            if prefill != prefill.rstrip():
                raise InvalidRequestError("messages: final assistant content cannot end with trailing whitespace")
        names = {call.id: call.name for part in said for call in part.calls}
        return Conversation([self._message(part, names) for part in said], shown, prefill)

    def _system(
        self,
        request: CountTokensRequest,
        documents: Sequence[Document],
        unshown: Sequence[Mapping[str, Any]],
        flattener: Flattener,
    ) -> list[Said]:
        system = request.system or []
        if system and system[0].text.startswith(_ATTRIBUTION):
            system = system[1:]
        texts = [flattener.text(system, "system")]
        if unshown:
            texts.append(self._explained(unshown))
        if any(document.is_citable for document in documents):
            texts.append(_CITING)
        instructions = PARAGRAPH.join(text for text in texts if text)
        return [Said("system", instructions)] if instructions else []

    def _explained(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """What a template would say of tools."""
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        example = self._spelled([("NAME", {"KEY": "VALUE"})])
        return (
            "# Tools\n\nYou may call these tools, described with the JSON schema of what they take:\n"
            f"<tools>\n{lines}\n</tools>\n\nA call is written like this, and ends what you say:\n{example}"
        )

    def _spelled(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
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
        return (family.opening + family.between.join(texts) + family.closing).replace(CALL_ID, "a1B2c3D4e")

    def _parts(self, message: MessageParam, where: str, flattener: Flattener) -> list[Said]:
        """A message as one said thing, and one more for each result of a tool."""
        results: list[Said] = []
        rest: list[str] = []
        said = Said(message.role)
        for i, block in enumerate(message.content):
            place = f"{where}.{i}"
            match block:
                case ToolResultBlock():
                    results.append(self._result(block, place, flattener))
                case ToolUseBlock():
                    said.calls.append(block)
                case ThinkingBlock():
                    said.reasoning += block.thinking
                case _:
                    text = flattener.block(block, place)
                    if text is not None:
                        rest.append(text + mark_of(block))
        # Text of an assistant is one text, even when citations cut it into blocks.
        said.text = ("" if message.role == "assistant" else PARAGRAPH).join(rest)
        return [*results, said] if said.text or said.calls or said.reasoning or not results else results

    def _result(self, block: ToolResultBlock, where: str, flattener: Flattener) -> Said:
        text = flattener.text(block.content, f"{where}.tool_result.content")
        if block.is_error:
            text = f"Error: {text}"
        return Said("tool", text + mark_of(block), result_of=block.tool_use_id)

    def _placed(self, said: Said, *, is_first: bool) -> Said:
        """What the template has no place for becomes a marked part of the user's turn."""
        template = self._template
        if said.role == "system" and not (template.has_system if is_first else template.has_late_system):
            return Said("user", f"<system>\n{said.text}\n</system>")
        if said.role == "tool" and not template.has_calls:
            return Said("user", f"<tool_response>\n{said.text}\n</tool_response>")
        if said.calls and not template.has_calls:
            calls = self._spelled([(call.name, call.input) for call in said.calls])
            return replace(said, text="\n".join(part for part in (said.text, calls) if part), calls=[])
        return said

    def _fitted(self, said: Sequence[Said]) -> list[Said]:
        """In the order that the template takes: text beside results joins them where it cannot follow them."""
        fitted: list[Said] = []
        for part in said:
            joins = part.role == "user" and fitted and fitted[-1].role == "tool"
            if joins and not self._template.has_text_after_results:
                fitted[-1].text += PARAGRAPH + part.text
            else:
                fitted.append(part)
        return _one_by_one(fitted) if self._format.takes_one_call else fitted

    def _message(self, said: Said, names: Mapping[str, str]) -> TemplateMessage:
        message: TemplateMessage = {"role": said.role, "content": said.text}
        if said.calls:
            message["tool_calls"] = [self._call(call) for call in said.calls]
        if said.result_of:
            message["tool_call_id"] = short_id(said.result_of)
            message["name"] = names.get(said.result_of, "")
        key = self._template.reasoning_key
        # One template (gpt-oss) takes either text or reasoning beside a call.
        if said.reasoning and key and not (said.calls and said.text and self._format.takes_one_call):
            message[key] = said.reasoning
        return message

    def _call(self, call: ToolUseBlock) -> dict[str, Any]:
        arguments: Any = call.input
        if self._template.has_text_arguments:
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {
            "id": short_id(call.id),
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
        }


def short_id(tool_use_id: str) -> str:
    """The id of a call as models know it: nine letters and digits, the last of ours."""
    end = tool_use_id[-len(CALL_ID) :]
    if len(end) == len(CALL_ID) and end.isalnum() and end.isascii():
        return end
    return hashlib.sha256(tool_use_id.encode()).hexdigest()[: len(CALL_ID)]


def loaded_tools(request: CountTokensRequest) -> dict[str, dict[str, Any]]:
    """The input schemas of the tools that may be called: those not deferred, and those referred to since."""
    blocks = [block for message in request.messages for block in message.content]
    inner = [part for block in blocks if isinstance(block, ToolResultBlock) for part in block.content]
    named = {block.tool_name for block in (*blocks, *inner) if isinstance(block, ToolReferenceBlock)}
    return {
        tool.name: tool.input_schema
        for tool in request.tools or []
        if not tool.defer_loading or tool.name in named
    }


def _definition(tool: Tool) -> dict[str, Any]:
    description = tool.description or ""
    for example in tool.input_examples or []:
        description += f"\n\nExample of an input: {json.dumps(example, ensure_ascii=False)}"
    function = {"name": tool.name, "description": description.strip(), "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _merged(said: Sequence[Said]) -> list[Said]:
    """Consecutive turns of one role are one turn; results of tools stay apart."""
    merged: list[Said] = []
    for part in said:
        last = merged[-1] if merged else None
        if last and last.role == part.role and part.role != "tool":
            joint = "" if part.role == "assistant" or not take_out(last.text)[0] else PARAGRAPH
            last.text += joint + part.text
            last.reasoning += part.reasoning
            last.calls += part.calls
        else:
            merged.append(part)
    return merged


def _one_by_one(said: Sequence[Said]) -> list[Said]:
    """Each call in a message of its own, with its result after it."""
    ordered: list[Said] = []
    results = {part.result_of: part for part in said if part.role == "tool"}
    for part in said:
        if part.role == "tool":
            continue
        if not part.calls:
            ordered.append(part)
        for i, call in enumerate(part.calls):
            ordered.append(replace(part, calls=[call]) if i == 0 else Said(part.role, calls=[call]))
            if call.id in results:
                ordered.append(results[call.id])
    return ordered


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
