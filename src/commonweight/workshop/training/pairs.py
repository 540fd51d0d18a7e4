"""Preferences as token ids: a prompt, and two answers that end as the model ends its own.

Prompt and answers are encoded as for fine-tuning (:mod:`loss_mask`): answers apart from what stands around them,
without what the template writes after their end token. Nothing of the prompt has a part in the loss.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from commonweight.workshop.training.dataset import Messages, Row
from commonweight.workshop.training.loss_mask import IGNORED, encode_messages
from commonweight.workshop.training.settings import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass
class EncodedPairs:
    """Pairs as token ids, and how many were dropped and why."""

    prompt_ids: list[list[int]] = field(default_factory=list)
    chosen_ids: list[list[int]] = field(default_factory=list)
    rejected_ids: list[list[int]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def count_tokens(self) -> int:
        """Tokens of both sequences of all pairs."""
        answers = sum(len(ids) for ids in self.chosen_ids + self.rejected_ids)
        return 2 * sum(len(ids) for ids in self.prompt_ids) + answers


def encode_pairs(rows: Iterable[Row], tokenizer: "PreTrainedTokenizerFast", max_length: int) -> EncodedPairs:
    """Encodes rows of preferences; drops those that teach nothing, and those that would have to be cut."""
    encoded = EncodedPairs()
    control = [str(token) for token in tokenizer.added_tokens_encoder]
    for row in rows:
        prompt, answers = row.messages or [], (row.chosen or [], row.rejected or [])
        messages = [*prompt, *answers[0], *answers[1]]
        if not prompt or any([one["role"] for one in answer] != ["assistant"] for answer in answers):
            encoded.drop("is not a prompt with two answers of one turn")
        elif any(token in message["content"] for message in messages for token in control):
            encoded.drop("spells a control token")
        elif not answers[0][0]["content"].strip():
            encoded.drop("has an empty chosen answer")
        elif answers[0][0]["content"].strip() == answers[1][0]["content"].strip():
            encoded.drop("has two equal answers")
        else:
            before, chosen = _encode_answer([*prompt, *answers[0]], tokenizer, row.row_id)
            same, rejected = _encode_answer([*prompt, *answers[1]], tokenizer, row.row_id)
            if before != same:
                raise TrainingError(f"the chat template renders the prompt of row {row.row_id} by its answer")
            if len(before) + max(len(chosen), len(rejected)) > max_length:
                encoded.drop("is longer than max_length")
            else:
                encoded.prompt_ids.append(before)
                encoded.chosen_ids.append(chosen)
                encoded.rejected_ids.append(rejected)
    return encoded


def _encode_answer(
    messages: Messages, tokenizer: "PreTrainedTokenizerFast", row_id: str
) -> tuple[list[int], list[int]]:
    """Token ids up to the last answer, and those of the answer with its end token."""
    ids, labels = encode_messages(messages, tokenizer, row_id)
    end = max(i for i, label in enumerate(labels) if label != IGNORED) + 1
    begin = max((i for i, label in enumerate(labels[:end]) if label == IGNORED), default=-1) + 1
    return ids[:begin], ids[begin:end]
