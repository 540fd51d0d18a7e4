"""Conversations with tools as the plain turns that rows hold, as our server shows them to one model."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.header import UnreadableModelError
from commonweight.catalog.model import ModelCard
from commonweight.messages.errors import InvalidRequestError
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.prompting.conversation import ConversationBuilder
from commonweight.prompting.marks import strip_marks
from commonweight.prompting.template.chat_template import BadTemplateError
from commonweight.workshop.alignment.settings import AlignmentError
from commonweight.workshop.data.rows import Message


@dataclass(frozen=True)
class PlainConversation:
    """A request as plain turns, and how long the server's prompt for it is."""

    messages: tuple[Message, ...]
    tokens: int


class PlainTurns:
    """Writes Messages requests as plain turns of system, user and assistant, for one model.

    The server's own code decides how: a template without tools gets them explained in the system text, calls in
    the text of the assistant, and results in turns of the user. Every conversation is rendered twice, as the
    request and as plain turns, and both must give the same tokens.

    Raises:
        AlignmentError: the model has no chat template, or one that writes tool calls by itself: what it makes of
            them are no turns of plain text.
    """

    def __init__(self, tokenizer: Tokenizer, card: ModelCard) -> None:
        if card.chat_template is None:
            raise AlignmentError(f"The model {card.id} has no chat template, so no row shows it a conversation.")
        default_system = card.generation.system
        try:
            self._renderer = Renderer(tokenizer, card.chat_template, default_system)
            # Training adds no system text of its own to a row.
            self._row_renderer = Renderer(tokenizer, card.chat_template) if default_system else self._renderer
        except BadTemplateError as error:
            raise AlignmentError(f"The chat template of {card.id} cannot be used.") from error
        template = self._renderer.template
        if template.has_calls:
            raise AlignmentError(
                f"The chat template of {card.id} writes tool calls by itself (the format {template.format.name}), "
                "and rows hold plain text: no tool loop can be made for it."
            )
        self._builder = ConversationBuilder(template, default_system)
        self._tokenizer = tokenizer
        self._name = card.id

    def flatten(self, request: dict[str, Any]) -> PlainConversation:
        """The plain turns of a request's conversation, up to where the model answers.

        Args:
            request: ``messages``, and ``tools`` and ``system`` if there are any, as the Messages API takes them.

        Raises:
            AlignmentError: the template refuses it, or shows the plain turns otherwise than the request.
        """
        try:
            asked = _make_request(request)
            conversation = self._builder.build(asked, ())
            messages = tuple(
                Message(message["role"], strip_marks(message["content"])) for message in conversation.messages
            )
            ids = self._renderer.render(asked).token_ids
            plain_ids = self._row_renderer.render(_make_request(_write_plain(messages))).token_ids
        except InvalidRequestError as error:
            raise AlignmentError(
                f"The prompt format of {self._name} refuses a conversation with tools."
            ) from error
        if ids != plain_ids:
            raise AlignmentError(
                f"The prompt format of {self._name} shows a tool loop otherwise than its plain turns, so no row "
                "can hold it."
            )
        return PlainConversation(messages, len(ids))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text without special tokens."""
        return len(self._tokenizer.encode(text))

    def has_special_token(self, text: str) -> bool:
        """Whether a text spells a special token: training takes no such rows."""
        return any(token in text for token in self._tokenizer.special_tokens)


@contextlib.contextmanager
def open_plain_turns(path: Path) -> Iterator[PlainTurns]:
    """Open the prompt format of a GGUF file; of the model only the vocabulary is loaded.

    Raises:
        AlignmentError: the file cannot be read, or no row can hold a tool loop for its model.
    """
    with open_vocabulary(path) as (tokenizer, card):
        yield PlainTurns(tokenizer, card)


@contextlib.contextmanager
def open_vocabulary(path: Path) -> Iterator[tuple[Tokenizer, ModelCard]]:
    """Open tokenizer and card of a GGUF file.

    Raises:
        AlignmentError: it cannot be read.
    """
    try:
        gguf = Gguf(path)
    except (UnreadableModelError, OSError) as error:
        raise AlignmentError(f"The model file {path.name} cannot be read.") from error
    with contextlib.closing(gguf):
        try:
            card = ModelCard.from_gguf(gguf)
        except UnreadableModelError as error:
            raise AlignmentError(f"The model file {path.name} does not say what it is.") from error
        yield Tokenizer(gguf), card


def _make_request(fields: dict[str, Any]) -> MessageRequest:
    return MessageRequest.model_validate({"model": "m", "max_tokens": 1} | fields)


def _write_plain(messages: tuple[Message, ...]) -> dict[str, Any]:
    """A request of plain turns."""
    has_system = messages[0].role == "system"
    system = {"system": messages[0].content} if has_system else {}
    turns = messages[1:] if has_system else messages
    return system | {"messages": [{"role": turn.role, "content": turn.content} for turn in turns]}
