"""Which tokens of a conversation a model learns: the assistant's answers and their end tokens, nothing else.

The template is rendered with the answers in their places and again with marks in their stead; what stands between
the marks is the template's. This works for any template that writes answers as they are or trimmed, and needs no
``{% generation %}`` in it. Answers are encoded apart from what stands around them, as when a model writes them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from commonweight.workshop.training.dataset import Messages, Row
from commonweight.workshop.training.settings import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
"""Label of a token that adds nothing to the loss."""
MARK = "\ue000{}\ue001"


@dataclass
class Encoded:
    """Conversations as token ids and labels, and how many were dropped and why."""

    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def encode_conversations(rows: Iterable[Row], tokenizer: "PreTrainedTokenizerFast", max_length: int) -> Encoded:
    """Encodes rows of messages, cut to a length; drops those that nothing can be learned from."""
    encoded = Encoded()
    control = [str(token) for token in tokenizer.added_tokens_encoder]
    for row in rows:
        messages = row.messages or []
        if any(token in message["content"] for message in messages for token in control):
            encoded.drop("spells a control token")
        elif not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
            encoded.drop("has no answer")
        else:
            ids, labels = encode_messages(messages, tokenizer, row.row_id, row.given)
            if any(label != IGNORED for label in labels[:max_length]):
                encoded.input_ids.append(ids[:max_length])
                encoded.labels.append(labels[:max_length])
            else:
                encoded.drop("has no answer within max_length")
    return encoded


def encode_messages(
    messages: Messages, tokenizer: "PreTrainedTokenizerFast", row_id: str, given: int = 0
) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and labels that hold those of answers and of the token that ends each.

    Args:
        given: characters at the beginning of the last answer that something else than the model wrote. They are
            encoded apart, as when it goes on from them, and what follows them is all that is learned.
    """
    ids: list[int] = []
    labels: list[int] = []
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    parts = split_rendering(messages, tokenizer, row_id)
    last = max((number for number, (_, is_answer) in enumerate(parts) if is_answer), default=0)
    if given:
        answer = next(message["content"] for message in reversed(messages) if message["role"] == "assistant")
        cut = given - (len(answer) - len(answer.lstrip()) if parts[last][0] != answer else 0)
        beginning: list[int] = tokenizer.encode(parts[last][0][:cut], add_special_tokens=False)
        parts[last] = (parts[last][0][cut:], True)
    for number, (text, is_answer) in enumerate(parts):
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
        learned = len(tokens) if is_answer else 0
        if not is_answer and number:  # what follows an answer begins with what ends it
            learned = next((i + 1 for i, token in enumerate(tokens) if token in special), 0)
            if not learned or tokenizer.decode(tokens[: learned - 1]).strip():
                raise TrainingError("the chat template does not end the assistant's answers with a control token")
        if given and number == last:
            ids += beginning
            labels += [IGNORED] * len(beginning)
        elif given and number < last:
            learned = 0
        ids += tokens
        labels += tokens[:learned] + [IGNORED] * (len(tokens) - learned)
    return ids, labels


def split_rendering(
    messages: Messages, tokenizer: "PreTrainedTokenizerFast", row_id: str
) -> list[tuple[str, bool]]:
    """The rendered conversation in parts: the template's (with all other turns) and answers, by turns."""
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    marks = iter(MARK.format(i) for i in range(len(answers)))
    marked = [
        message | {"content": next(marks)} if message["role"] == "assistant" else message for message in messages
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    rest = tokenizer.apply_chat_template(marked, tokenize=False)
    parts: list[tuple[str, bool]] = []
    for i, answer in enumerate(answers):
        before, found, rest = rest.partition(MARK.format(i))
        written = answer if text.startswith(before + answer) else answer.strip()
        if not found or not text.startswith(before + written):
            raise TrainingError(f"the chat template changes or omits an answer of row {row_id}")
        parts += [(before, False), (written, True)]
        text = text[len(before) + len(written) :]
    if text != rest:
        raise TrainingError(f"the chat template changes what stands around the answers of row {row_id}")
    return [*parts, (rest, False)]
