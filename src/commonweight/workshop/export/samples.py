"""Texts and conversations that tell tokenizers and chat templates apart: the same ones every time."""

# ruff: noqa: SIM905 - as lists the texts would take a page

import random
from collections.abc import Sequence

from commonweight.engines.remote.tokenizer_probes import TOKENIZER_PROBES

TEXTS, CONVERSATIONS = 256, 48

_WORDS = (
    "the The model tokens isn't they'll WE'RE I'd've e.g. naïve Straße x Łódź Привет мир κόσμος "
    "नमस\u094dते สวัสดี 你好 世界 こんにちは カタカナ 한국어"
).split()
_SPACES = " ¦  ¦   ¦\t¦\t\t¦\n¦\n\n¦\n\n\n¦\r\n¦ \n¦\n ¦\u00a0¦\u2009¦\u3000".split("¦")
_DIGITS = "0 7 42 007 1234 3.14 1,000,000 0x1F 1e-9 ٣٤٥ ४२ ½ ² Ⅻ ①".split()
_MARKS = "e\u0301 a\u0308\u0301 n\u0303 o\u0328\u0304 Z\u0351\u036b\u0343 \u0301 क\u094dष ก\u0e49".split()
_EMOJI = (
    "😀 👍🏽 👩\u200d👩\u200d👧\u200d👦 🇩🇪 ❤\ufe0f 🏴\U000e0067\U000e0062\U000e007f ✓ ♟\ufe0f \u200d \ufe0f"
).split()
_RIGHT_TO_LEFT = "שָׁלוֹם עולם مرحبا كَيْفَ \u202b \u202c \u200f ؟ ،".split()
_CODE = (
    "def f(x):\n    return x¦if (a != b) {¦}\n\n//¦x += 1;¦foo_bar.baz[0]¦<div class='a'>¦</div>¦"
    'SELECT * FROM t WHERE a >= 1;¦#!/bin/sh\n¦$HOME/.config¦a->b::c¦λx. x¦{"k": [1, null]}¦\\n'
).split("¦")
_PUNCTUATION = "!!! ... \u2014 \u201cq\u201d 's 'S '' \" @@ ### --> <| |> [[ ~ ` \\".split()
_LOOK_ALIKES = (
    "<|im_start¦im_end|>¦< |im_start|>¦<|IM_START|>¦<|im_start |>¦<||>¦<|endoftext¦<s¦</s¦[INST¦"
    "<think¦<pad¦<unk¦<|start_header_id¦<0x0A"
).split("¦")
_MARKUP = "<|im_start|> <|im_end|> <|endoftext|> <s> </s> <think> </think> [INST] <|eot_id|>".split()
_CONTROLS = "\x00¦\x07¦\x1b[0m¦\x7f¦\u200b¦\ufeff¦\ufffd¦\ue000¦\U0010fffd".split("¦")
_FAMILIES: tuple[Sequence[str], ...] = (
    *(_WORDS, _SPACES, _DIGITS, _MARKS, _EMOJI, _RIGHT_TO_LEFT, _CODE, _PUNCTUATION, _LOOK_ALIKES, _MARKUP),
    _CONTROLS,
)
_ORDINARY = _FAMILIES[:8]
"""Those without markup, what looks like it, and control characters."""


def make_texts(special: Sequence[str] = ()) -> list[str]:
    """Texts for tokenizers: each family alone, and mixtures of them.

    Args:
        special: the model's own special tokens, which go into some of them.
    """
    draw = random.Random(0)
    families = [*_FAMILIES, special] if special else list(_FAMILIES)
    texts = list(TOKENIZER_PROBES)
    for family in families:
        texts += ["".join(family), " ".join(family), *(f"{part} {part}{part}" for part in family[:4])]
    while len(texts) < TEXTS:
        pieces = [draw.choice(draw.choice(families)) for _ in range(draw.randint(1, 40))]
        texts.append(draw.choice(("", " ")).join(pieces))
    return texts[:TEXTS]


def make_conversations() -> list[list[dict[str, str]]]:
    """Conversations for chat templates: with a system text and without, of one to four questions.

    None of their texts holds a special token: a server takes such text for what it is, and a template for markup.
    """
    draw = random.Random(1)

    def make_text(longest: int) -> str:
        pieces = [draw.choice(draw.choice(_ORDINARY)) for _ in range(draw.randint(1, longest))]
        return f"{draw.choice(_WORDS)}{draw.choice(('', ' ')).join(pieces)}{draw.choice(_WORDS)}"

    conversations = []
    for number in range(CONVERSATIONS):
        messages = [{"role": "system", "content": make_text(8)}] if number % 2 else []
        for _ in range(number // 2 % 4):
            messages.append({"role": "user", "content": make_text(20)})
            messages.append({"role": "assistant", "content": make_text(20)})
        messages.append({"role": "user", "content": make_text(20)})
        conversations.append(messages)
    return conversations
