"""Hidden states of texts, for training heads on them."""

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from commonweight.catalog.gguf import Gguf
from commonweight.catalog.model import ModelCard
from commonweight.engines.llama.model.hidden_states import HiddenStateReader, count_shared_tokens
from commonweight.guard.heads.bundle import ModelIdentity
from commonweight.messages.request import MessageRequest
from commonweight.prompting import Renderer, Tokenizer
from commonweight.runtime.assistant import OnProgress
from commonweight.runtime.guard import identify_model

DEPTHS = (0.27, 0.5, 0.7, 0.9)
"""Of the layers that are read: the middle ones tell intent, the late ones wrappers."""
MAX_TEXT_TOKENS = 64
"""Of a text that is trained on: the first and the last half. Serving reads long texts in windows of as many."""
ANSWER_WINDOW_TOKENS = 32
"""Of an answer; two such stretches of each. What a smoothed logit spans, see ``guard.screening.streaming``."""
CONTEXT_TOKENS = 2048


class PromptStateReader:
    """Reads a model's hidden states of prompts that are rendered as they are served."""

    def __init__(self, gguf: Gguf, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        card = ModelCard.from_gguf(gguf)
        self._tokenizer = Tokenizer(gguf)
        self._renderer = Renderer(self._tokenizer, card.chat_template, card.generation.system)
        self._reader = HiddenStateReader(card.path, CONTEXT_TOKENS, threads=os.cpu_count() or 1)
        self.model: ModelIdentity = identify_model(gguf)
        self.layers = sorted({round(depth * self._reader.layers) for depth in DEPTHS})

    def __enter__(self) -> "PromptStateReader":
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self._reader.close()
        return False

    def read_states(self, pairs: Sequence[tuple[str, str | None]]) -> npt.NDArray[np.float32]:
        """Read the states of texts; see :data:`commonweight.workshop.heads.dataset.ReadStates`."""
        prompts, spans = [], []
        for text, answer in pairs:
            body = {
                "model": "m",
                "max_tokens": 1,
                "messages": [{"role": "user", "content": replace_surrogates(text)}],
            }
            prompt = self._renderer.render(MessageRequest.model_validate(body))
            token_ids, (start, end) = prompt.token_ids, prompt.user_span
            if end - start > MAX_TEXT_TOKENS:
                half = MAX_TEXT_TOKENS // 2
                token_ids = token_ids[: start + half] + token_ids[end - half :]
                end = start + 2 * half
            if answer is not None:
                start = len(token_ids)
                answered = self._tokenizer.encode(replace_surrogates(answer))
                token_ids = token_ids + answered[: 2 * ANSWER_WINDOW_TOKENS]
                end = len(token_ids)
            prompts.append(token_ids)
            spans.append((start, max(end, start + 1)))
        begun = count_shared_tokens(prompts)
        found = np.zeros((len(pairs), 2, len(self.layers), self._reader.width), np.float32)
        for done, (number, states) in enumerate(self._reader.read(prompts, self.layers), 1):
            start, end = (at - begun for at in spans[number])
            text_states = states[max(0, start) : end]
            is_answer = pairs[number][1] is not None
            found[number] = average_stretches(text_states) if is_answer else (text_states.mean(0), states[-1])
            self._on_progress(f"Reading {len(pairs)} texts", done / len(pairs))
        return found


def average_stretches(states: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
    """Average the states of an answer's first two stretches; of a short answer, its beginning and its end."""
    first, second = states[:ANSWER_WINDOW_TOKENS], states[ANSWER_WINDOW_TOKENS:]
    if len(second) < ANSWER_WINDOW_TOKENS // 2:
        second = states[-ANSWER_WINDOW_TOKENS:]
    return first.mean(0), second.mean(0)


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which some sources hold; the result is never empty."""
    return text.encode("utf-8", "replace").decode() or " "
