"""A request to the tokens of its prompt."""

from dataclasses import dataclass
from typing import NamedTuple

from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import CountTokensRequest
from commonweight.prompting.flatten import PARAGRAPH, flatten
from commonweight.prompting.quoting import Quoter, Specials
from commonweight.prompting.template import PLAIN, PLAIN_TURN_END, ChatTemplate
from commonweight.prompting.tokenizer import Tokenizer

# Agents put a block like this first; it differs by conversation and would spoil every shared prefix.
_ATTRIBUTION = "x-anthropic-billing-header:"

# What llama.cpp takes for space beside special tokens that swallow it.
_C_SPACE = " \t\n\v\f\r"


@dataclass(frozen=True)
class Prompt:
    """What the model reads."""

    token_ids: list[int]
    continues_text: bool
    """Whether the answer continues text that the client began (a prefill)."""
    turn_ends: tuple[str, ...] = ()
    """Text that ends the turn, for want of a token that does."""


class TemplateMessage(NamedTuple):
    """One message as a template takes it."""

    role: str
    text: str


class Renderer:
    """Renders requests with one model's chat template and tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, chat_template: str | None) -> None:
        self._tokenizer = tokenizer
        self._special_ids = frozenset(tokenizer.special_tokens.values())
        self._specials = Specials(tokenizer.special_tokens)
        self._turn_ends = () if chat_template else (PLAIN_TURN_END,)
        self._template = ChatTemplate(
            chat_template or PLAIN,
            bos_token="" if tokenizer.bos_id is None else tokenizer.text_of(tokenizer.bos_id),
            eos_token="" if tokenizer.eos_id is None else tokenizer.text_of(tokenizer.eos_id),
        )

    def render(self, request: CountTokensRequest) -> Prompt:
        """The prompt of a request.

        Raises:
            InvalidRequestError: a block that this model cannot read, or a conversation its template refuses.
        """
        turns, prefill = self._turns(request)
        try:
            texts = [*(turn.text for turn in turns), prefill]
            quoter = Quoter(self._specials, texts, is_thorough=self._template.may_cut_texts)
            text = self._template.render(
                [{"role": turn.role, "content": quoter.quote(turn.text)} for turn in turns]
            )
        except ValueError as error:
            raise InvalidRequestError(
                f"messages: this model's chat template refuses the conversation: {error}"
            ) from error
        token_ids = self._encode(text + quoter.quote(prefill), quoter)
        return Prompt(token_ids, prefill != "", self._turn_ends)

    def _turns(self, request: CountTokensRequest) -> tuple[list[TemplateMessage], str]:
        """Messages that the template can take, and the text that the answer continues."""
        system = request.system or []
        if system and system[0].text.startswith(_ATTRIBUTION):
            system = system[1:]
        instructions = flatten(system, "system")
        turns = [TemplateMessage("system", instructions)] if instructions else []
        for i, message in enumerate(request.messages):
            if message.role == "system" and message.is_empty:
                continue  # carries only settings
            # Text of an assistant is one text, even when citations cut it into blocks.
            joint = "" if message.role == "assistant" else PARAGRAPH
            turns.append(TemplateMessage(message.role, flatten(message.content, f"messages.{i}.content", joint)))
        turns = _merged([self._placed(turn, is_first=i == 0) for i, turn in enumerate(turns)])
        prefill = ""
        if turns and turns[-1].role == "assistant":
            prefill = turns.pop().text
            if prefill != prefill.rstrip():
                raise InvalidRequestError("messages: final assistant content cannot end with trailing whitespace")
        return turns, prefill

    def _placed(self, turn: TemplateMessage, *, is_first: bool) -> TemplateMessage:
        """System text where the template has no place for it becomes a marked part of the user's turn."""
        if turn.role == "system":
            has_place = self._template.has_system if is_first else self._template.has_late_system
            if not has_place:
                return TemplateMessage("user", f"<system>\n{turn.text}\n</system>")
        return turn

    def _encode(self, rendered: str, quoter: Quoter) -> list[int]:
        tokenizer = self._tokenizer
        ids: list[int] = []
        pieces = list(quoter.pieces(rendered))
        for i, (text, is_special) in enumerate(pieces):
            if is_special:
                ids.append(tokenizer.special_tokens[text])
                continue
            # Text stands between special tokens, and some of them swallow the space beside them.
            swallowed_before = i > 0 and tokenizer.strips(ids[-1])[1]
            following = pieces[i + 1][0] if i + 1 < len(pieces) else None
            swallowed_after = following is not None and tokenizer.strips(tokenizer.special_tokens[following])[0]
            kept = text.lstrip(_C_SPACE) if swallowed_before else text
            kept = kept.rstrip(_C_SPACE) if swallowed_after else kept
            ids += self._encode_text(quoter.unquote(kept))
        if tokenizer.adds_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
            ids.insert(0, tokenizer.bos_id)
        return ids

    def _encode_text(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text)
        if self._special_ids.isdisjoint(ids):
            return ids
        # A user-defined token that reads like markup, which tokenizers match even in ordinary text, or a control
        # token that a vocabulary can spell: cut in two it is neither.
        ids = []
        done = 0
        for start in self._specials.beginnings(text):
            ids += self._tokenizer.encode(text[done : start + 1], continues=done > 0)
            done = start + 1
        return ids + self._tokenizer.encode(text[done:], continues=done > 0)


def _merged(turns: list[TemplateMessage]) -> list[TemplateMessage]:
    """Consecutive turns of one role are one turn."""
    merged: list[TemplateMessage] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            joint = "" if turn.role == "assistant" else PARAGRAPH
            merged[-1] = TemplateMessage(turn.role, merged[-1].text + joint + turn.text)
        else:
            merged.append(turn)
    return merged
