"""Augmentation of prompts for training: padding around them, wrappers, slips of the pen.

Everything is done to harmful and harmless prompts alike. Heads read windows, so what is learned of a long text is
the window that holds most of the prompt.
"""

import random
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from commonweight.charter.principle import Charter
from commonweight.guard.heads.recompile import split_phrases
from commonweight.guard.text.windows import split_windows
from commonweight.workshop.heads.prompt_frames import FRAMES, MANIPULATIONS, PADDING, PERMITTED

Kind = Literal["plain", "padded", "wrapped", "framed", "slips", "context"]
"""How a text was made of a prompt; ``context`` is a window of a jailbreak prompt, harmless by itself."""
SHARES: dict[Kind, float] = {"padded": 0.45, "wrapped": 0.25, "framed": 0.15, "slips": 0.15}
MAX_PADDING_WORDS = 60
"""On either side: what is further away is in other windows."""
PLACEHOLDER = re.compile(r"\[insert (?:prompt(?: here)?|x|\xd7)\\?\]", re.IGNORECASE)


class Made(NamedTuple):
    """A text that was made of a prompt."""

    text: str
    """All of it."""
    window: str
    """The window of it with most of the prompt."""
    kind: Kind


def make_variant(prompt: str, templates: Sequence[str], draw: random.Random) -> Made:
    """Make a variant of a prompt. ``templates``: jailbreak prompts to wrap it in, beside the project's own."""
    kind = draw.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "slips":
        slipped = make_slips(prompt, draw)
        return Made(slipped, find_window(slipped, slipped), kind)
    if kind == "padded":
        text = pad(prompt, draw.randrange(MAX_PADDING_WORDS), draw.randrange(MAX_PADDING_WORDS), draw)
    elif kind == "framed":
        text = draw.choice(FRAMES).replace("{}", prompt)
    elif templates and draw.random() < 0.5:
        text = fill_template(draw.choice(templates), prompt)
    else:
        text = draw.choice(MANIPULATIONS).replace("{}", prompt)
    return Made(text, find_window(text, prompt), kind)


def pad(prompt: str, before: int, after: int, draw: random.Random, sentences: Sequence[str] = PADDING) -> str:
    """Put so many harmless words before and after a prompt, in whole sentences."""
    return " ".join(
        part
        for part in (_draw_words(before, draw, sentences), prompt, _draw_words(after, draw, sentences))
        if part
    )


def fill_template(template: str, prompt: str) -> str:
    """Put a prompt in its place in a jailbreak prompt, or after it where it has none."""
    if PLACEHOLDER.search(template):
        return PLACEHOLDER.sub(lambda _: prompt, template)
    return f"{template}\n\n{prompt}"


def make_slips(prompt: str, draw: random.Random, share: float = 0.3) -> str:
    """Make slips in some of the words: letters swapped, doubled or left out."""
    words = prompt.split(" ")
    for i, word in enumerate(words):
        if len(word) > 3 and word.isalpha() and draw.random() < share:
            at = draw.randrange(1, len(word) - 2)
            swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            doubled, left_out = word[: at + 1] + word[at:], word[:at] + word[at + 1 :]
            words[i] = draw.choice((swapped, swapped, doubled, left_out))
    return " ".join(words)


def find_window(text: str, prompt: str) -> str:
    """Find the window of a text that holds most of a prompt."""
    at = max(0, text.find(prompt))
    best = max(split_windows(text), key=lambda one: min(one.end, at + len(prompt)) - max(one.start, at))
    return text[slice(*best)]


def draw_contexts(template: str, count: int, draw: random.Random) -> list[str]:
    """Draw windows of a jailbreak prompt, and all of it where it is short."""
    windows = split_windows(template)
    return [template[slice(*one)] for one in draw.sample(windows, min(count, len(windows)))]


def compose_permitted(charter: Charter) -> list[str]:
    """Compose harmless prompts that look otherwise, of what the principles permit."""
    found = []
    for number, principle in enumerate(charter.principles):
        parts = split_phrases(principle.permits)
        phrases = [phrase for part in parts[: max(1, len(parts) - 1)] for phrase in part.split(", ")]
        for i, phrase in enumerate(phrases):
            words = phrase.strip(" .;:").removeprefix("and ")
            if len(words) > 8:
                found += [PERMITTED[(i + number + k) % len(PERMITTED)].replace("{}", words) for k in range(3)]
        found += [one.text for one in principle.complying]
    return found


def _draw_words(count: int, draw: random.Random, sentences: Sequence[str]) -> str:
    drawn: list[str] = []
    while count > 0:
        sentence = draw.choice(sentences)
        drawn.append(sentence)
        count -= len(sentence.split())
    return " ".join(drawn)
