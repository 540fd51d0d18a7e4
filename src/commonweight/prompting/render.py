"""A request to its prompt: the tokens that the model reads, and what its answer is held to."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from commonweight.messages.content import ToolResultBlock, walk
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import BudgetedThinking, CountTokensRequest
from commonweight.messages.response import OutputToolUse
from commonweight.messages.tools import NamedToolChoice
from commonweight.prompting.conversation import Conversation, Narrator, is_short_id, loaded_tools
from commonweight.prompting.cuts import DenseTextError
from commonweight.prompting.documents import Document, collect
from commonweight.prompting.encoding import Encoder, Known
from commonweight.prompting.grammar import GrammarWriter, Rules
from commonweight.prompting.marks import (
    CALLED,
    REPLY,
    SAID,
    THOUGHT,
    TTLS,
    Place,
    Ttl,
    number_of,
    take_out,
    unmarked,
)
from commonweight.prompting.output import Reading
from commonweight.prompting.quoting import Quoter, Specials
from commonweight.prompting.recollection import Answer, Origin, Recollection, answer_keys, content_key
from commonweight.prompting.schema import BadSchemaError, json_grammar
from commonweight.prompting.template import (
    PLAIN,
    PLAIN_TURN_END,
    BadConversationError,
    ChatTemplate,
    TemplateMessage,
)
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
    """The text that the answer follows."""
    begun: list[int]
    """The last of the tokens, if they are the answer's: they came after that text."""
    prefill: str
    """The client's own beginning of the answer."""
    grammar: str | None
    """What the answer is held to; None: nothing."""
    marks: list[tuple[int, Ttl]]
    """The client's cache marks, by the number of tokens before them."""
    reading: Reading
    documents: list[Document]
    tenant: str = ""
    heard: tuple[int, int] = (0, 0)
    """The tokens of what was said last before the answer, by somebody else than the assistant."""


@dataclass(frozen=True)
class _Rendered:
    """A prompt's text, and places in it."""

    text: str
    opening: int
    """Where the answer begins: before what is there to make the model reason, or not."""
    marks: list[Place]
    """All marks in order."""


class Renderer:
    """Renders requests with one model's chat template and tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None) -> None:
        self._turn_ends = () if chat_template else (PLAIN_TURN_END,)
        self.template = ChatTemplate(
            chat_template or PLAIN,
            bos_token="" if tokenizer.bos_id is None else tokenizer.text_of(tokenizer.bos_id),
            eos_token="" if tokenizer.eos_id is None else tokenizer.text_of(tokenizer.eos_id),
        )
        thinking = self.template.thinking
        tags = [thinking.opening, thinking.closing] if thinking else []
        opening, closing = map(re.escape, tags or ["", ""])
        self._quoter = Quoter(
            Specials(tokenizer.special_tokens),
            # What a template looks for in texts is never found in a client's.
            guarded=Specials([*tokenizer.special_tokens, *tags]),
            is_thorough=self.template.may_cut_texts,
        )
        self._head = re.compile(rf"{opening}\s*({closing}\s*)?\Z")
        self._narrator = Narrator(self.template)
        self._grammars = GrammarWriter(self.template.format, thinking, tokenizer.special_tokens)
        self._encoder = Encoder(tokenizer, self._quoter)
        self._special_ids = frozenset(tokenizer.special_tokens.values())
        self._recollection = Recollection()

    def render(
        self, request: CountTokensRequest, tenant: str = "", documents: Sequence[Document] | None = None
    ) -> Prompt:
        """The prompt of a request.

        ``documents``: those of the client's own request, if this one is an edited copy of it. They keep their
        numbers, and the blocks that are left are the same objects.

        Raises:
            InvalidRequestError: a block that this model cannot read, a conversation its template refuses, or a
                schema that no answer can be held to.
        """
        documents = collect(request.messages) if documents is None else documents
        conversation = self._narrator.tell(request, documents)
        thinks = self._thinks(request) and not conversation.is_begun
        try:
            rendered = self._rendered(request, conversation, thinks)
        except BadConversationError as error:
            raise InvalidRequestError(
                f"messages: this model's chat template refuses the conversation: {error}"
            ) from error
        text, opening = rendered.text, rendered.opening
        known = self._known(request, rendered, tenant)
        cache_marks = [(place, TTLS[sign]) for place, sign in rendered.marks if sign in TTLS]
        spoken = max((place for place, sign in rendered.marks if sign == REPLY and place <= opening), default=0)
        places = [opening, spoken, *(place for place, _ in cache_marks)]
        try:
            token_ids, counts = self._encoder.encode(text, tenant, known, cut=opening, places=sorted(places))
        except UnicodeEncodeError as error:
            raise InvalidRequestError("messages: a text holds half of a surrogate pair") from error
        except DenseTextError as error:
            raise InvalidRequestError(f"messages: {error}") from error
        before = dict(zip(sorted(places), counts, strict=True))
        shown = {id(block) for message in request.messages for _, block in walk(message.content, "")}
        quotable = tuple(d.quotable.text if d.is_citable and id(d.block) in shown else "" for d in documents)
        rules = self._rules(request, conversation, quotable, thinks, text, tenant)
        return Prompt(
            token_ids=token_ids,
            origin=Origin.of(text[:opening]),
            begun=token_ids[before[opening] :],
            prefill=unmarked(conversation.prefill),
            grammar=self._grammar(request, rules),
            marks=[(before[place], ttl) for place, ttl in cache_marks],
            reading=Reading.of(rules, self.template.format, self.template.thinking, self._turn_ends),
            documents=list(documents),
            tenant=tenant,
            heard=(before[spoken], self._end_of_text(token_ids, before[spoken], before[opening])),
        )

    def _end_of_text(self, token_ids: Sequence[int], start: int, end: int) -> int:
        """Where the text that begins at a token ends: special tokens are the template's."""
        return next((i for i in range(start, end) if token_ids[i] in self._special_ids), end)

    def remember(self, prompt: Prompt, blocks: Sequence[object], token_ids: Sequence[int], reasoning: str) -> None:
        """What was generated after a prompt (without the token that ended it), and the blocks it became."""
        calls = sum(isinstance(block, OutputToolUse) for block in blocks)
        answer = Answer(prompt.origin, [*prompt.begun, *token_ids], reasoning, calls)
        self._recollection.remember(prompt.tenant, content_key(blocks, prompt.prefill), answer)

    def _rendered(self, request: CountTokensRequest, conversation: Conversation, thinks: bool) -> _Rendered:
        template = self.template
        variables: dict[str, object] = {}
        if template.thinking_switch:
            variables[template.thinking_switch] = thinks
        if template.has_effort and request.effort:
            variables["reasoning_effort"] = _EFFORTS[request.effort]
        marked = [_quoted(message, self._quoter) for message in conversation.messages]
        plain = _without_marks(marked)
        tools = self._quoter.quote_json(conversation.tools)
        prefill = self._quoter.quote(conversation.prefill)
        begun = template.render(plain, tools, **variables)
        ending = self._ending(begun, conversation, thinks)
        text = begun + ending + unmarked(prefill)
        head = self._head.search(begun + ending)
        opening = head.start() if head and not conversation.reasoning else len(text)
        marks: list[Place] = []
        if marked != plain or unmarked(prefill) != prefill:
            # Marks may change what a template does with a text. So they are in no text that becomes tokens: it is
            # rendered again with them, to see where they come out.
            marks, is_sure = self._placed(text, marked, tools, variables, ending + prefill)
            if not is_sure:
                own, _ = self._placed(text, _without_marks(marked, TTLS), tools, variables, ending + prefill)
                marks = sorted([*own, *((place, sign) for place, sign in marks if sign in TTLS)])
        return _Rendered(text, opening, marks)

    def _placed(
        self,
        text: str,
        marked: Sequence[TemplateMessage],
        tools: Sequence[Any] | None,
        variables: Mapping[str, object],
        ending: str,
    ) -> tuple[list[Place], bool]:
        """Where marks come out in a text; False if they change it, and are sure only as far as they do not."""
        try:
            bare, found = take_out(self.template.render(marked, tools, **variables) + ending)
        except BadConversationError:
            return [], False
        if bare == text:
            return found, True
        same = next(
            (i for i, (a, b) in enumerate(zip(bare, text, strict=False)) if a != b), min(len(bare), len(text))
        )
        return [(min(place, same), sign) for place, sign in found if place <= same or sign in TTLS], False

    def _ending(self, text: str, conversation: Conversation, thinks: bool) -> str:
        """What follows the template's text, up to where the answer begins or the client has begun it."""
        template = self.template
        thinking, family = template.thinking, template.format
        ending = ""
        if thinking and conversation.reasoning:
            opening = "" if text.rstrip().endswith(thinking.opening) else thinking.opening
            reasoning = self._quoter.quote(conversation.reasoning)
            ending = (
                f"{opening}{reasoning}{thinking.closing}{family.glue}"
                if family.text_openings
                else f"{opening}\n{reasoning}\n{thinking.closing}\n\n"
            )
        elif thinking and not thinks and not family.text_openings:
            if text.rstrip().endswith(thinking.opening):
                ending = f"\n{thinking.closing}\n\n"
            elif not template.thinking_switch:
                ending = f"{thinking.opening}\n\n{thinking.closing}\n\n"
        if conversation.prefill and family.text_openings:
            ending += family.text_openings[0]
        return ending

    def _known(self, request: CountTokensRequest, rendered: _Rendered, tenant: str) -> list[Known]:
        """What was generated of the conversation, with the stretches of the prompt where it stands."""
        keys = answer_keys(request.messages)
        known = []
        for key, answer in self._recollection.recall(tenant, keys.values(), rendered.text):
            start = answer.origin.length
            marks = rendered.marks[bisect_left(rendered.marks, (start, "")) :]
            replies = ((place, sign) for place, sign in marks if sign == REPLY)
            limit, _ = next(replies, (len(rendered.text), ""))
            shown: dict[str, list[int]] = {SAID: [], THOUGHT: [], CALLED: []}
            for place, sign in marks:
                # The same may have been said elsewhere; only this very message is meant.
                if place <= limit and sign[0] in shown and keys.get(number_of(sign)) == key:
                    shown[sign[0]].append(place)
            if answer.reasoning.strip() and not shown[THOUGHT]:
                continue
            kind, number = (CALLED, answer.calls) if answer.calls and self.template.has_calls else (SAID, 1)
            content = shown[kind][number - 1] if len(shown[kind]) >= number else None
            known.append(Known(answer, start, content, kind == SAID, limit))
        # Which of several is meant, the text does not tell; most likely the latest.
        return sorted(known, key=lambda one: one.limit)

    def _thinks(self, request: CountTokensRequest) -> bool:
        """Whether the model shall reason first."""
        asked = request.thinking
        if self.template.thinking is None or asked is None or asked.type == "disabled":
            return False
        if asked.type == "between_tools":
            latest = next((message for message in reversed(request.messages) if message.role == "user"), None)
            return latest is not None and any(isinstance(block, ToolResultBlock) for block in latest.content)
        return True

    def _rules(
        self,
        request: CountTokensRequest,
        conversation: Conversation,
        quotable: tuple[str, ...],
        thinks: bool,
        text: str,
        tenant: str,
    ) -> Rules:
        choice = request.tool_choice
        kind = choice.type if choice else "auto"
        tools = loaded_tools(request)
        if isinstance(choice, NamedToolChoice):
            tools = {tool.name: tool.input_schema for tool in request.tools or [] if tool.name == choice.name}
        thinking: Literal["begun", "possible", "over"] = "over"
        budget = None
        if thinks and self.template.thinking:
            begun = text.rstrip().endswith(self.template.thinking.opening)
            thinking = "begun" if begun else "possible"
            effort = None if self.template.has_effort else request.effort
            budget = _BUDGETS.get(effort or "")
            if isinstance(request.thinking, BudgetedThinking):
                budget = request.thinking.budget_tokens
        return Rules(
            tools=tools,
            must_call=kind in ("any", "tool"),
            may_call=kind != "none",
            is_parallel=not (choice and choice.disable_parallel_tool_use) and kind != "tool",
            schema=request.output_schema,
            thinking=thinking,
            budget=budget,
            quotable=quotable if any(quotable) else (),
            is_text=conversation.prefill != "",
            tenant=tenant,
        )

    def _grammar(self, request: CountTokensRequest, rules: Rules) -> str | None:
        for i, tool in enumerate(request.tools or []):
            try:
                json_grammar(tool.input_schema, rules.tenant)
            except BadSchemaError as error:
                raise InvalidRequestError(f"tools.{i}.custom.input_schema: {error}") from error
        try:
            return self._grammars.write(rules)
        except BadSchemaError as error:
            raise InvalidRequestError(f"output_config.format.schema: {error}") from error


def _quoted(message: TemplateMessage, quoter: Quoter) -> TemplateMessage:
    """A message whose texts are quoted, but for words of ours that templates compare or measure."""

    def is_ours(key: str, part: object) -> bool:
        return key in ("role", "type") or (key in ("id", "tool_call_id") and is_short_id(part))

    return {key: part if is_ours(key, part) else _quoted_part(part, quoter) for key, part in message.items()}


def _quoted_part(part: Any, quoter: Quoter) -> Any:  # noqa: ANN401 - whatever a message holds
    if isinstance(part, str):
        return quoter.quote(part)
    if isinstance(part, list):
        return [_quoted(one, quoter) for one in part]  # calls, or blocks of content
    return {"name": quoter.quote(part["name"]), "arguments": quoter.quote_json(part["arguments"])}


def _without_marks(part: Any, marks: Iterable[str] | None = None) -> Any:  # noqa: ANN401 - whatever a message holds
    match part:
        case str():
            return unmarked(part, marks)
        case list():
            return [_without_marks(one, marks) for one in part]
        case dict():
            return {key: _without_marks(one, marks) for key, one in part.items()}
        case _:
            return part
