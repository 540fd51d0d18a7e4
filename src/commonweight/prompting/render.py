"""A request to its prompt: the tokens that the model reads, and what its answer is held to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from commonweight.messages.content import ToolResultBlock
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import BudgetedThinking, CountTokensRequest
from commonweight.messages.tools import NamedToolChoice
from commonweight.prompting.conversation import Conversation, Narrator, loaded_tools
from commonweight.prompting.documents import Document, collect
from commonweight.prompting.encoding import Encoder
from commonweight.prompting.grammar import GrammarWriter, Rules
from commonweight.prompting.marks import Ttl, take_out
from commonweight.prompting.output import Reading
from commonweight.prompting.quoting import Quoter, Specials
from commonweight.prompting.recollection import Answer, Origin, Recollection, content_key
from commonweight.prompting.schema import BadSchemaError, json_grammar
from commonweight.prompting.template import PLAIN, PLAIN_TURN_END, ChatTemplate, TemplateMessage
from commonweight.prompting.tokenizer import Tokenizer

_BUDGETS = {"low": 1024, "medium": 4096}
"""Tokens of reasoning by effort, for models that are not told how hard to think."""
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""Effort as templates know it."""


@dataclass(frozen=True)
class Prompt:
    """What the model reads, and how what it writes is to be understood."""

    token_ids: list[int]
    origin: Origin
    grammar: str | None
    """What the answer is held to; None: nothing."""
    marks: list[tuple[int, Ttl]]
    """The client's cache marks, by the number of tokens before them."""
    reading: Reading
    documents: list[Document]
    tenant: str = ""


class Renderer:
    """Renders requests with one model's chat template and tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None) -> None:
        self._specials = Specials(tokenizer.special_tokens)
        self._turn_ends = () if chat_template else (PLAIN_TURN_END,)
        self.template = ChatTemplate(
            chat_template or PLAIN,
            bos_token="" if tokenizer.bos_id is None else tokenizer.text_of(tokenizer.bos_id),
            eos_token="" if tokenizer.eos_id is None else tokenizer.text_of(tokenizer.eos_id),
        )
        # What a template looks for in texts is never found in a client's.
        thinking = self.template.thinking
        tags = [thinking.opening, thinking.closing] if thinking else []
        self._guarded = Specials([*tokenizer.special_tokens, *tags])
        self._narrator = Narrator(self.template)
        self._grammars = GrammarWriter(self.template.format, thinking, tokenizer.special_tokens)
        self._encoder = Encoder(tokenizer)
        self._recollection = Recollection()

    def render(self, request: CountTokensRequest, tenant: str = "") -> Prompt:
        """The prompt of a request.

        Raises:
            InvalidRequestError: a block that this model cannot read, a conversation its template refuses, or a
                schema that no answer can be held to.
        """
        documents = collect(request.messages)
        conversation = self._narrator.tell(request, documents)
        tools = loaded_tools(request)
        thinks = self._thinks(request) and not conversation.prefill
        try:
            texts = list(_texts([conversation.messages, conversation.tools, conversation.prefill]))
            quoter = Quoter(self._specials, texts, guarded=self._guarded, is_thorough=self.template.may_cut_texts)
            rendered = self._rendered(request, conversation, quoter, thinks)
        except ValueError as error:
            raise InvalidRequestError(
                f"messages: this model's chat template refuses the conversation: {error}"
            ) from error
        text, marks = take_out(rendered)
        keys = [content_key(message.content) for message in request.messages if message.role == "assistant"]
        answers = self._recollection.recall(tenant, keys, text)
        token_ids, placed = self._encoder.encode(text, quoter, answers, marks, tenant)
        rules = self._rules(request, documents, tools, thinks, text)
        thinking = self.template.thinking
        reading = Reading(
            self.template.format,
            thinking if rules.thinking != "over" or self.template.format.text_openings else None,
            is_thinking=rules.thinking == "begun",
            is_text=conversation.prefill != "",
            tools=rules.tools if rules.may_call else {},
            has_quotes=bool(rules.quotable),
            turn_ends=self._turn_ends,
        )
        return Prompt(
            token_ids, Origin.of(text), self._grammar(request, rules), placed, reading, documents, tenant
        )

    def remember(self, prompt: Prompt, blocks: Sequence[object], token_ids: Sequence[int], reasoning: str) -> None:
        """What was generated after a prompt (without the token that ended it), and the blocks it became."""
        answer = Answer(prompt.origin, token_ids, reasoning)
        self._recollection.remember(prompt.tenant, content_key(blocks), answer)

    def _rendered(
        self, request: CountTokensRequest, conversation: Conversation, quoter: Quoter, thinks: bool
    ) -> str:
        template = self.template
        variables: dict[str, object] = {}
        if template.thinking_switch:
            variables[template.thinking_switch] = thinks
        if template.has_effort and (effort := _effort(request)):
            variables["reasoning_effort"] = _EFFORTS[effort]
        messages = [_quoted(message, quoter) for message in conversation.messages]
        tools = _quoted_json(conversation.tools, quoter)
        text = template.render(messages, tools, **variables)
        if template.thinking and not thinks and not template.format.text_openings:
            text += _no_thinking(
                text, template.thinking.opening, template.thinking.closing, template.thinking_switch
            )
        return text + quoter.quote(conversation.prefill)

    def _thinks(self, request: CountTokensRequest) -> bool:
        """Whether the model shall reason first."""
        asked = request.thinking
        if self.template.thinking is None or asked is None or asked.type == "disabled":
            return False
        if asked.type == "between_tools":
            return any(isinstance(block, ToolResultBlock) for block in request.messages[-1].content)
        return True

    def _rules(
        self,
        request: CountTokensRequest,
        documents: Sequence[Document],
        tools: Mapping[str, dict[str, Any]],
        thinks: bool,
        text: str,
    ) -> Rules:
        choice = request.tool_choice
        kind = choice.type if choice else "auto"
        if isinstance(choice, NamedToolChoice):
            tools = {name: schema for name, schema in tools.items() if name == choice.name}
        thinking: Literal["begun", "possible", "over"] = "over"
        budget = None
        if thinks and self.template.thinking:
            begun = text.rstrip().endswith(self.template.thinking.opening)
            thinking = "begun" if begun else "possible"
            effort = None if self.template.has_effort else _effort(request)
            budget = _BUDGETS.get(effort or "")
            if isinstance(request.thinking, BudgetedThinking):
                budget = request.thinking.budget_tokens
        wanted = request.output_config and request.output_config.format
        return Rules(
            tools=tools,
            must_call=kind in ("any", "tool"),
            may_call=kind != "none",
            is_parallel=not (choice and choice.disable_parallel_tool_use) and kind != "tool",
            schema=wanted.schema_ if wanted else None,
            thinking=thinking,
            budget=budget,
            quotable=tuple(d.quotable.text if d.is_citable else "" for d in documents)
            if any(d.is_citable for d in documents)
            else (),
        )

    def _grammar(self, request: CountTokensRequest, rules: Rules) -> str | None:
        for i, tool in enumerate(request.tools or []):
            try:
                json_grammar(tool.input_schema)
            except BadSchemaError as error:
                raise InvalidRequestError(f"tools.{i}.custom.input_schema: {error}") from error
        try:
            return self._grammars.write(rules)
        except BadSchemaError as error:
            raise InvalidRequestError(f"output_config.format.schema: {error}") from error


def _effort(request: CountTokensRequest) -> str | None:
    """The effort that the latest message asks for, or the request."""
    for message in reversed(request.messages):
        if message.output_config and message.output_config.effort:
            return message.output_config.effort
    return request.output_config.effort if request.output_config else None


def _no_thinking(text: str, opening: str, closing: str, switch: str | None) -> str:
    """What a prompt must end with so that a model does not reason; nothing where its template has seen to it."""
    if text.rstrip().endswith(opening):
        return f"\n{closing}\n\n"
    return "" if switch else f"{opening}\n\n{closing}\n\n"


def _texts(value: object) -> Any:  # noqa: ANN401 - a generator of str
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _quoted(message: TemplateMessage, quoter: Quoter) -> TemplateMessage:
    """A message whose texts are quoted. Ids are ours, and roles the template's."""
    quoted = dict(message)
    for key in ("content", "reasoning_content", "thinking", "name"):
        if key in message:
            quoted[key] = quoter.quote(message[key])
    if "tool_calls" in message:
        quoted["tool_calls"] = [
            {**call, "function": _quoted_json(call["function"], quoter)} for call in message["tool_calls"]
        ]
    return quoted


def _quoted_json(value: Any, quoter: Quoter) -> Any:  # noqa: ANN401 - any JSON
    """JSON whose texts are quoted. Templates look for keys by name and compare types: those are only broken."""
    if isinstance(value, str):
        return quoter.quote(value)
    if isinstance(value, list):
        return [_quoted_json(part, quoter) for part in value]
    if isinstance(value, dict):
        return {
            quoter.broken(key): quoter.broken(part)
            if key == "type" and isinstance(part, str)
            else _quoted_json(part, quoter)
            for key, part in value.items()
        }
    return value
