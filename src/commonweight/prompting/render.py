"""A request to its prompt: the tokens that the model reads, and what its answer is held to."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from commonweight.messages.content import CacheTtl, ToolResultBlock, walk
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import BudgetedThinking, CountTokensRequest
from commonweight.messages.response import OutputToolUse
from commonweight.messages.tools import NamedToolChoice
from commonweight.prompting.constrain.grammar import AnswerRules, GrammarWriter
from commonweight.prompting.constrain.schema import BadSchemaError, json_grammar
from commonweight.prompting.conversation import Conversation, ConversationBuilder, find_loaded_tools, is_short_id
from commonweight.prompting.documents import Document, collect_documents
from commonweight.prompting.marks import (
    CALLED,
    REPLY,
    SAID,
    THOUGHT,
    TTL_BY_MARK,
    MarkPosition,
    extract_marks,
    read_number,
    strip_marks,
)
from commonweight.prompting.parse.output import ParserConfig
from commonweight.prompting.template.chat_template import (
    PLAIN_TEMPLATE,
    PLAIN_TURN_END,
    BadConversationError,
    ChatTemplate,
    TemplateMessage,
)
from commonweight.prompting.tokens.encoding import AnswerSpan, PromptEncoder
from commonweight.prompting.tokens.escaping import Escaper
from commonweight.prompting.tokens.replay import (
    AnswerCache,
    CachedAnswer,
    PromptKey,
    compute_answer_keys,
    compute_content_key,
)
from commonweight.prompting.tokens.special_tokens import SpecialTokens
from commonweight.prompting.tokens.splitting import DenseTextError
from commonweight.prompting.tokens.tokenizer import Tokenizer

_BUDGETS = {"low": 1024, "medium": 4096}
"""Tokens of reasoning by effort, for models that are not told how hard to think."""
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""Effort as templates know it."""


@dataclass(frozen=True)
class Prompt:
    """What the model reads, and how what it writes is to be understood."""

    token_ids: list[int]
    key: PromptKey
    """The text that the answer follows."""
    answer_prefix_ids: list[int]
    """The last of the tokens, if they are the answer's: they came after that text."""
    prefill: str
    """The client's own beginning of the answer."""
    grammar: str | None
    """What the answer is held to; None: nothing."""
    marks: list[tuple[int, CacheTtl]]
    """The client's cache marks, by the number of tokens before them."""
    parser_config: ParserConfig
    documents: list[Document]
    tenant: str = ""
    user_span: tuple[int, int] = (0, 0)
    """The tokens of what was said last before the answer, by somebody else than the assistant."""


@dataclass(frozen=True)
class _RenderedText:
    """A prompt's text, and places in it."""

    text: str
    opening: int
    """Where the answer begins: before what is there to make the model reason, or not."""
    marks: list[MarkPosition]
    """All marks in order."""


class Renderer:
    """Renders requests with one model's chat template and tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None) -> None:
        self._turn_ends = () if chat_template else (PLAIN_TURN_END,)
        self.template = ChatTemplate(
            chat_template or PLAIN_TEMPLATE,
            bos_token="" if tokenizer.bos_id is None else tokenizer.text_of(tokenizer.bos_id),
            eos_token="" if tokenizer.eos_id is None else tokenizer.text_of(tokenizer.eos_id),
        )
        thinking = self.template.thinking
        tags = [thinking.opening, thinking.closing] if thinking else []
        opening, closing = map(re.escape, tags or ["", ""])
        self._escaper = Escaper(
            SpecialTokens(tokenizer.special_tokens),
            # What a template looks for in texts is never found in a client's.
            guarded=SpecialTokens([*tokenizer.special_tokens, *tags]),
            is_thorough=self.template.may_cut_texts,
        )
        self._head = re.compile(rf"{opening}\s*({closing}\s*)?\Z")
        self._builder = ConversationBuilder(self.template)
        self._grammars = GrammarWriter(self.template.format, thinking, tokenizer.special_tokens)
        self._encoder = PromptEncoder(tokenizer, self._escaper)
        self._special_ids = frozenset(tokenizer.special_tokens.values())
        self._answer_cache = AnswerCache()

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
        documents = collect_documents(request.messages) if documents is None else documents
        conversation = self._builder.build(request, documents)
        thinks = self._should_think(request) and not conversation.has_prefill
        try:
            rendered = self._render_text(request, conversation, thinks)
        except BadConversationError as error:
            raise InvalidRequestError(
                f"messages: this model's chat template refuses the conversation: {error}"
            ) from error
        text, opening = rendered.text, rendered.opening
        known = self._find_known_answers(request, rendered, tenant)
        cache_marks = [(position, TTL_BY_MARK[sign]) for position, sign in rendered.marks if sign in TTL_BY_MARK]
        spoken = max(
            (position for position, sign in rendered.marks if sign == REPLY and position <= opening), default=0
        )
        positions = [opening, spoken, *(position for position, _ in cache_marks)]
        try:
            token_ids, counts = self._encoder.encode(text, tenant, known, cut=opening, positions=sorted(positions))
        except UnicodeEncodeError as error:
            raise InvalidRequestError("messages: a text holds half of a surrogate pair") from error
        except DenseTextError as error:
            raise InvalidRequestError(f"messages: {error}") from error
        before = dict(zip(sorted(positions), counts, strict=True))
        shown = {id(block) for message in request.messages for _, block in walk(message.content, "")}
        quotable = tuple(d.quotable.text if d.is_citable and id(d.block) in shown else "" for d in documents)
        rules = self._make_rules(request, conversation, quotable, thinks, text, tenant)
        return Prompt(
            token_ids=token_ids,
            key=PromptKey.of(text[:opening]),
            answer_prefix_ids=token_ids[before[opening] :],
            prefill=strip_marks(conversation.prefill),
            grammar=self._write_grammar(request, rules),
            marks=[(before[position], ttl) for position, ttl in cache_marks],
            parser_config=ParserConfig.from_rules(
                rules, self.template.format, self.template.thinking, self._turn_ends
            ),
            documents=list(documents),
            tenant=tenant,
            user_span=(before[spoken], self._end_of_text(token_ids, before[spoken], before[opening])),
        )

    def _end_of_text(self, token_ids: Sequence[int], start: int, end: int) -> int:
        """Where the text that begins at a token ends: special tokens are the template's."""
        return next((i for i in range(start, end) if token_ids[i] in self._special_ids), end)

    def remember_answer(
        self, prompt: Prompt, blocks: Sequence[object], token_ids: Sequence[int], reasoning: str
    ) -> None:
        """What was generated after a prompt (without the token that ended it), and the blocks it became."""
        calls = sum(isinstance(block, OutputToolUse) for block in blocks)
        answer = CachedAnswer(prompt.key, [*prompt.answer_prefix_ids, *token_ids], reasoning, calls)
        self._answer_cache.put(prompt.tenant, compute_content_key(blocks, prompt.prefill), answer)

    def _render_text(self, request: CountTokensRequest, conversation: Conversation, thinks: bool) -> _RenderedText:
        template = self.template
        variables: dict[str, object] = {}
        if template.thinking_switch:
            variables[template.thinking_switch] = thinks
        if template.has_effort and request.effort:
            variables["reasoning_effort"] = _EFFORTS[request.effort]
        marked = [_escape_message(message, self._escaper) for message in conversation.messages]
        plain = _strip_marks(marked)
        tools = self._escaper.escape_json(conversation.tools)
        prefill = self._escaper.escape(conversation.prefill)
        begun = template.render(plain, tools, **variables)
        ending = self._render_ending(begun, conversation, thinks)
        text = begun + ending + strip_marks(prefill)
        head = self._head.search(begun + ending)
        opening = head.start() if head and not conversation.reasoning else len(text)
        marks: list[MarkPosition] = []
        if marked != plain or strip_marks(prefill) != prefill:
            # Marks may change what a template does with a text. So they are in no text that becomes tokens: it is
            # rendered again with them, to see where they come out.
            marks, is_sure = self._find_marks(text, marked, tools, variables, ending + prefill)
            if not is_sure:
                own, _ = self._find_marks(
                    text, _strip_marks(marked, TTL_BY_MARK), tools, variables, ending + prefill
                )
                marks = sorted([*own, *((position, sign) for position, sign in marks if sign in TTL_BY_MARK)])
        return _RenderedText(text, opening, marks)

    def _find_marks(
        self,
        text: str,
        marked: Sequence[TemplateMessage],
        tools: Sequence[Any] | None,
        variables: Mapping[str, object],
        ending: str,
    ) -> tuple[list[MarkPosition], bool]:
        """Where marks come out in a text; False if they change it, and are sure only as far as they do not."""
        try:
            bare, found = extract_marks(self.template.render(marked, tools, **variables) + ending)
        except BadConversationError:
            return [], False
        if bare == text:
            return found, True
        same = next(
            (i for i, (a, b) in enumerate(zip(bare, text, strict=False)) if a != b), min(len(bare), len(text))
        )
        return [
            (min(position, same), sign) for position, sign in found if position <= same or sign in TTL_BY_MARK
        ], False

    def _render_ending(self, text: str, conversation: Conversation, thinks: bool) -> str:
        """What follows the template's text, up to where the answer begins or the client has begun it."""
        template = self.template
        thinking, family = template.thinking, template.format
        ending = ""
        if thinking and conversation.reasoning:
            opening = "" if text.rstrip().endswith(thinking.opening) else thinking.opening
            reasoning = self._escaper.escape(conversation.reasoning)
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

    def _find_known_answers(
        self, request: CountTokensRequest, rendered: _RenderedText, tenant: str
    ) -> list[AnswerSpan]:
        """What was generated of the conversation, with the stretches of the prompt where it stands."""
        keys = compute_answer_keys(request.messages)
        known = []
        for key, answer in self._answer_cache.find(tenant, keys.values(), rendered.text):
            start = answer.prompt_key.length
            marks = rendered.marks[bisect_left(rendered.marks, (start, "")) :]
            replies = ((position, sign) for position, sign in marks if sign == REPLY)
            limit, _ = next(replies, (len(rendered.text), ""))
            shown: dict[str, list[int]] = {SAID: [], THOUGHT: [], CALLED: []}
            for position, sign in marks:
                # The same may have been said elsewhere; only this very message is meant.
                if position <= limit and sign[0] in shown and keys.get(read_number(sign)) == key:
                    shown[sign[0]].append(position)
            if answer.reasoning.strip() and not shown[THOUGHT]:
                continue
            kind, number = (CALLED, answer.calls) if answer.calls and self.template.has_calls else (SAID, 1)
            content = shown[kind][number - 1] if len(shown[kind]) >= number else None
            known.append(AnswerSpan(answer, start, content, kind == SAID, limit))
        # Which of several is meant, the text does not tell; most likely the latest.
        return sorted(known, key=lambda one: one.limit)

    def _should_think(self, request: CountTokensRequest) -> bool:
        """Whether the model shall reason first."""
        asked = request.thinking
        if self.template.thinking is None or asked is None or asked.type == "disabled":
            return False
        if asked.type == "between_tools":
            latest = next((message for message in reversed(request.messages) if message.role == "user"), None)
            return latest is not None and any(isinstance(block, ToolResultBlock) for block in latest.content)
        return True

    def _make_rules(
        self,
        request: CountTokensRequest,
        conversation: Conversation,
        quotable: tuple[str, ...],
        thinks: bool,
        text: str,
        tenant: str,
    ) -> AnswerRules:
        choice = request.tool_choice
        kind = choice.type if choice else "auto"
        tools = find_loaded_tools(request)
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
        return AnswerRules(
            tools=tools,
            must_call=kind in ("any", "tool"),
            may_call=kind != "none",
            allows_parallel_calls=not (choice and choice.disable_parallel_tool_use) and kind != "tool",
            schema=request.output_schema,
            thinking=thinking,
            budget=budget,
            quotable=quotable if any(quotable) else (),
            continues_text=conversation.prefill != "",
            tenant=tenant,
        )

    def _write_grammar(self, request: CountTokensRequest, rules: AnswerRules) -> str | None:
        for i, tool in enumerate(request.tools or []):
            try:
                json_grammar(tool.input_schema, rules.tenant)
            except BadSchemaError as error:
                raise InvalidRequestError(f"tools.{i}.custom.input_schema: {error}") from error
        try:
            return self._grammars.write(rules)
        except BadSchemaError as error:
            raise InvalidRequestError(f"output_config.format.schema: {error}") from error


def _escape_message(message: TemplateMessage, escaper: Escaper) -> TemplateMessage:
    """A message whose texts are quoted, but for words of ours that templates compare or measure."""

    def is_ours(key: str, part: object) -> bool:
        return key in ("role", "type") or (key in ("id", "tool_call_id") and is_short_id(part))

    return {key: part if is_ours(key, part) else _escape_part(part, escaper) for key, part in message.items()}


def _escape_part(part: Any, escaper: Escaper) -> Any:  # noqa: ANN401 - whatever a message holds
    if isinstance(part, str):
        return escaper.escape(part)
    if isinstance(part, list):
        return [_escape_message(one, escaper) for one in part]  # calls, or blocks of content
    return {"name": escaper.escape(part["name"]), "arguments": escaper.escape_json(part["arguments"])}


def _strip_marks(part: Any, marks: Iterable[str] | None = None) -> Any:  # noqa: ANN401 - whatever a message holds
    match part:
        case str():
            return strip_marks(part, marks)
        case list():
            return [_strip_marks(one, marks) for one in part]
        case dict():
            return {key: _strip_marks(one, marks) for key, one in part.items()}
        case _:
            return part
