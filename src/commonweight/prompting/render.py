"""Rendering of a request to its prompt: token ids, cache marks, and grammar and parser settings for the answer."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from commonweight.messages.caching import CacheTtl
from commonweight.messages.content import TextBlock, walk
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest
from commonweight.messages.response import OutputToolUse
from commonweight.prompting.constrain.answer_rules import make_answer_rules, should_think
from commonweight.prompting.constrain.grammar import GrammarWriter
from commonweight.prompting.conversation import ConversationBuilder
from commonweight.prompting.documents import Document, collect_documents
from commonweight.prompting.marks import (
    AFTER_CALL,
    AFTER_REASONING,
    AFTER_TEXT,
    BEFORE_NON_ASSISTANT,
    TTL_BY_MARK,
    read_number,
    strip_marks,
)
from commonweight.prompting.parse.output import ParserConfig
from commonweight.prompting.prompt_text import PromptText, PromptTextRenderer
from commonweight.prompting.template.chat_template import (
    PLAIN_TEMPLATE,
    PLAIN_TURN_END,
    BadConversationError,
    ChatTemplate,
)
from commonweight.prompting.tokens.encoding import AnswerSpan, PromptEncoder, TooLongError
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
from commonweight.prompting.tokens.tracing import Tracer

_HALF_CHARACTER = "messages: a text holds half of a surrogate pair"


@dataclass(frozen=True)
class Prompt:
    """Token ids for the model, and the constraints and parser settings for its answer."""

    token_ids: list[int]
    key: PromptKey
    """Key of the rendered text before the answer."""
    answer_prefix_ids: list[int]
    """Those of the last token ids that belong to the answer: tags of reasoning, the prefill."""
    prefill: str
    """Text of the client's final assistant message, which the answer continues."""
    grammar: str | None
    """Grammar of the answer; None: unconstrained."""
    marks: list[tuple[int, CacheTtl]]
    """The client's cache marks, by the number of tokens before them."""
    parser_config: ParserConfig
    unheld: tuple[str, ...]
    """Keywords of the request's schemas that the answer is not held to."""
    documents: list[Document]
    tenant: str = ""
    user_span: tuple[int, int] = (0, 0)
    """Start and exclusive end, in tokens, of the text of the last message that is not the assistant's."""


class Renderer:
    """Renders requests with one model's chat template and tokenizer. Safe to use from several threads.

    Args:
        default_system: the system text of requests that have none; None: what the template makes of them.
    """

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None, default_system: str | None = None) -> None:
        self._turn_ends = () if chat_template else (PLAIN_TURN_END,)
        self.template = template = ChatTemplate(
            chat_template or PLAIN_TEMPLATE,
            bos_token="" if tokenizer.bos_id is None else tokenizer.get_token_text(tokenizer.bos_id),
            eos_token="" if tokenizer.eos_id is None else tokenizer.get_token_text(tokenizer.eos_id),
        )
        thinking = template.thinking
        tags = [thinking.opening, thinking.closing] if thinking else []
        special_tokens = SpecialTokens(tokenizer.special_tokens)
        # Templates search texts for the tags of reasoning, which must not be found in a client's.
        guarded = [*tokenizer.special_tokens, *tags]
        escaper = Escaper(special_tokens, guarded=SpecialTokens(guarded))
        tracer = Tracer(SpecialTokens(guarded), template.select_written(guarded))
        template.trace(tracer.stand_ins, tracer.resolve)
        self._builder = ConversationBuilder(template, default_system)
        self._text_renderer = PromptTextRenderer(template, escaper)
        self._grammar_writer = GrammarWriter(template.format, thinking, tokenizer.special_tokens)
        self._encoder = PromptEncoder(tokenizer, escaper)
        self._special_ids = frozenset(tokenizer.special_tokens.values())
        self._answer_cache = AnswerCache()

    def render(
        self,
        request: CountTokensRequest,
        tenant: str = "",
        documents: Sequence[Document] | None = None,
        window: int | None = None,
    ) -> Prompt:
        """The prompt of a request.

        ``documents``: those of the client's own request, if this one is an edited copy of it, or has documents
        that are files. They keep their numbers, and the blocks that are left are the same objects. ``window``:
        tokens; a prompt that is longer by its bytes alone is refused without counting them.

        Raises:
            InvalidRequestError: a block that this model cannot read, a conversation that its template refuses, or
                a schema that no answer can be constrained to.
        """
        documents = collect_documents(request.messages) if documents is None else documents
        if window is not None:
            self._check_length(request, window)
        conversation = self._builder.build(request, documents)
        thinks = should_think(request, self.template) and not conversation.has_prefill
        try:
            rendered = self._text_renderer.render(request, conversation, thinks)
        except BadConversationError as error:
            raise InvalidRequestError(
                f"messages: this model's chat template refuses the conversation: {error}"
            ) from error
        except UnicodeEncodeError as error:
            raise InvalidRequestError(_HALF_CHARACTER) from error
        text, answer_start = rendered.text, rendered.answer_start
        answers = self._find_cached_answers(request, rendered, tenant)
        cache_marks = [(position, TTL_BY_MARK[mark]) for position, mark in rendered.marks if mark in TTL_BY_MARK]
        user_start = max(
            (
                position
                for position, mark in rendered.marks
                if mark == BEFORE_NON_ASSISTANT and position <= answer_start
            ),
            default=0,
        )
        positions = sorted([answer_start, user_start, *(position for position, _ in cache_marks)])
        try:
            token_ids, counts = self._encoder.encode(
                text, tenant, answers, cut=answer_start, positions=positions, max_tokens=window
            )
        except TooLongError as error:
            raise _make_too_long_error(error, window) from error
        except UnicodeEncodeError as error:
            raise InvalidRequestError(_HALF_CHARACTER) from error
        except DenseTextError as error:
            raise InvalidRequestError(f"messages: {error}") from error
        tokens_before = dict(zip(positions, counts, strict=True))
        present = {id(block) for message in request.messages for _, block in walk(message.content, "")}
        rules = make_answer_rules(
            request,
            self.template,
            text,
            thinks=thinks,
            continues_text=conversation.prefill != "",
            quotable=[d.quotable.text if d.is_citable and id(d.block) in present else "" for d in documents],
            tenant=tenant,
        )
        user_span = tokens_before[user_start], tokens_before[answer_start]
        return Prompt(
            token_ids=token_ids,
            key=PromptKey.of(text[:answer_start]),
            answer_prefix_ids=token_ids[tokens_before[answer_start] :],
            prefill=strip_marks(conversation.prefill),
            grammar=self._grammar_writer.write(rules),
            marks=[(tokens_before[position], ttl) for position, ttl in cache_marks],
            parser_config=ParserConfig.from_rules(
                rules, self.template.format, self.template.thinking, self._turn_ends
            ),
            unheld=rules.unheld,
            documents=list(documents),
            tenant=tenant,
            user_span=(user_span[0], self._find_special(token_ids, *user_span)),
        )

    def _check_length(self, request: CountTokensRequest, window: int) -> None:
        """Refuse a request whose texts alone are too long, before the template is given megabytes of them."""
        users = (message.content for message in request.messages if message.role == "user")
        blocks = (block for content in users for _, block in walk(content, ""))
        try:
            self._encoder.check_length((block.text for block in blocks if isinstance(block, TextBlock)), window)
        except TooLongError as error:
            raise _make_too_long_error(error, window) from error

    def _find_special(self, token_ids: Sequence[int], start: int, end: int) -> int:
        """Index of the first special token in a span of token ids, or its end."""
        return next((i for i in range(start, end) if token_ids[i] in self._special_ids), end)

    def remember_answer(
        self, prompt: Prompt, blocks: Sequence[object], token_ids: Sequence[int], reasoning: str
    ) -> None:
        """Cache the token ids generated for a prompt (without the end token), by the blocks parsed from them.

        When these blocks come back in the history, their place in the prompt takes the same token ids.
        """
        calls = sum(isinstance(block, OutputToolUse) for block in blocks)
        answer = CachedAnswer(prompt.key, [*prompt.answer_prefix_ids, *token_ids], reasoning, calls)
        self._answer_cache.put(prompt.tenant, compute_content_key(blocks, prompt.prefill), answer)

    def _find_cached_answers(
        self, request: CountTokensRequest, rendered: PromptText, tenant: str
    ) -> list[AnswerSpan]:
        """Cached answers in the request's history, with their spans in the prompt's text."""
        keys = compute_answer_keys(request.messages)
        spans = []
        for key, answer in self._answer_cache.find(tenant, keys.values(), rendered.text):
            start = answer.prompt_key.length
            marks = rendered.marks[bisect_left(rendered.marks, (start, "")) :]
            limits = (position for position, mark in marks if mark == BEFORE_NON_ASSISTANT)
            limit = next(limits, len(rendered.text))
            positions: dict[str, list[int]] = {AFTER_TEXT: [], AFTER_REASONING: [], AFTER_CALL: []}
            for position, mark in marks:
                # Other messages may have the same content; only marks of this one count.
                if position <= limit and mark[0] in positions and keys.get(read_number(mark)) == key:
                    positions[mark[0]].append(position)
            if answer.reasoning.strip() and not positions[AFTER_REASONING]:
                continue
            ends_with_call = answer.calls > 0 and self.template.has_calls
            kind, number = (AFTER_CALL, answer.calls) if ends_with_call else (AFTER_TEXT, 1)
            content = positions[kind][number - 1] if len(positions[kind]) >= number else None
            spans.append(AnswerSpan(answer, start, content, kind == AFTER_TEXT, limit))
        # The text does not show which of several answers with one start is meant; most likely the latest.
        return sorted(spans, key=lambda span: span.limit)


def _make_too_long_error(error: TooLongError, window: int | None) -> InvalidRequestError:
    # As many tokens as there are at least: clients look for these very words, and for two numbers.
    return InvalidRequestError(f"prompt is too long: {error.tokens} tokens > {window} maximum")
