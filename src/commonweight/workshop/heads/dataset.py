"""Training data of guard heads: examples drawn from sources of labelled texts, with their representations."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter, Principle
from commonweight.guard.encoders.arrays import Floats
from commonweight.guard.heads.bundle import BundleSource
from commonweight.guard.heads.reader import PROSE_ENCODER
from commonweight.workshop.heads.augmentation import Kind, compose_permitted, draw_contexts, make_variant
from commonweight.workshop.heads.sources import LabelledSource

ReadStates = Callable[[Sequence[tuple[str, str | None]]], Floats]
"""States of prompts, ``(texts, 2, layers, width)``: the mean over the text's tokens, and the last token's.

Of pairs with an answer: the means over the first tokens of the answer, and over as many that follow them.
"""


Embed = Callable[[Sequence[str]], Floats]
"""Unit vectors of texts."""

TRAINING_SEED = 20261125
TEMPLATE_GROUPS, CONTEXTS = 5, 2
"""Groups of jailbreak prompts, and windows of each."""


@dataclass(frozen=True)
class Examples:
    """Labelled windows of text with their representations. Arrays have a row for each."""

    texts: Sequence[str]
    is_harmful: npt.NDArray[np.bool_]
    is_hard: npt.NDArray[np.bool_]
    """Harmless, and looks otherwise."""
    groups: npt.NDArray[np.int64]
    """Number of the source. What is made of a prompt has the group of its prompt."""
    kinds: Sequence[Kind]
    principles: Sequence[str | None]
    """Of harmful ones: what they go against, where that is known."""
    wholes: Sequence[str]
    """The texts that the windows are of."""
    vectors: Mapping[str, Floats]
    """By encoder."""
    words: Floats | None
    """MiniLM's vectors of what the principles that refuse restrict, in the charter's order."""
    states: Floats | None
    """Of plain texts, which come first: ``(texts, 2, layers, width)``: the mean over the text's tokens, and the
    prompt's last token."""

    @property
    def is_plain(self) -> npt.NDArray[np.bool_]:
        """Whether a text is a prompt as its source has it."""
        return np.array([kind == "plain" for kind in self.kinds], bool)

    @property
    def is_ordinary(self) -> npt.NDArray[np.bool_]:
        """Whether a text is a harmless prompt, as its source has it, that looks harmless."""
        return self.is_plain & ~self.is_harmful & ~self.is_hard

    @property
    def manipulates(self) -> npt.NDArray[np.bool_]:
        """Whether a text is wrapped in what manipulates a model, or a part of a wrapper."""
        return np.array([kind in ("wrapped", "context") for kind in self.kinds], bool)


@dataclass(frozen=True)
class Answers:
    """Labelled answers. Arrays have a row for each."""

    texts: Sequence[str]
    is_harmful: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]
    """Number of the prompt: answers to one prompt are left out together."""
    states: Floats | None
    """Of shape ``(texts, 2, layers, width)``: the means over the answer's first two stretches."""


@dataclass(frozen=True)
class TrainingData:
    """All training data of heads."""

    examples: Examples
    answers: Answers | None
    lineage: tuple[BundleSource, ...]


def build_training_data(
    charter: Charter,
    sources: Sequence[LabelledSource],
    embed: Mapping[str, Embed],
    read_states: ReadStates | None,
    most: int = 400,
) -> TrainingData:
    """Draw at most ``most`` prompts of each source by a fixed seed, each text once over all sources, and all
    labelled answers; and make a variant of each prompt.
    """
    draw = np.random.default_rng(TRAINING_SEED)
    rows: list[_Row] = []
    templates: list[str] = []
    replies: list[tuple[str, str, bool]] = []
    used = [0] * len(sources)
    restricted = {one.id for one in charter.principles if refuses(one)}
    # A text belongs to its first source, drawn or not: so a source that is left out is left out whole.
    owners: dict[str, int] = {}
    for group, source in enumerate(sources):
        for row in source.rows if source.role != "unused" else ():
            owners.setdefault(fold_text(row.answer or row.text), group)
    seen: set[str] = set()
    for group, source in enumerate(sources):
        taken = 0
        for i in draw.permutation(len(source.rows)):
            row = source.rows[int(i)]
            key = fold_text(row.answer or row.text)
            if source.role == "unused" or key in seen or not key or owners[key] != group:
                continue
            if row.answer is None and taken >= most:
                continue
            principle = source.get_principle(row, charter) if row.is_harmful else None
            if row.answer is None and row.is_harmful and source.is_elsewhere(row, principle, restricted):
                continue
            seen.add(key)
            used[group] += 1
            taken += row.answer is None
            if row.answer is not None:
                replies.append((row.text, row.answer, row.is_harmful))
            elif source.role == "manipulation":
                templates.append(row.text)
            else:
                rows.append(
                    _Row(row.text, row.text, row.is_harmful, source.role == "hard", group, "plain", principle)
                )
    rows += [
        _Row(text, text, False, True, len(sources), "plain", None)
        for text in compose_permitted(charter)
        if fold_text(text) not in seen
    ]
    rows += _make_variants(rows, templates, len(sources) + 1)
    texts = [row.text for row in rows]
    words = [one.restricts for one in charter.principles if refuses(one)]
    plain = [row.text for row in rows if row.kind == "plain"]
    examples = Examples(
        texts=texts,
        is_harmful=np.array([row.is_harmful for row in rows], bool),
        is_hard=np.array([row.is_hard for row in rows], bool),
        groups=np.array([row.group for row in rows], np.int64),
        kinds=[row.kind for row in rows],
        principles=[row.principle for row in rows],
        wholes=[row.whole for row in rows],
        vectors={name: one(texts) for name, one in embed.items()},
        words=embed[PROSE_ENCODER](words) if PROSE_ENCODER in embed else None,
        states=read_states([(text, None) for text in plain]) if read_states else None,
    )
    answers = None
    if replies:
        answers = Answers(
            texts=[answer for _, answer, _ in replies],
            is_harmful=np.array([is_harmful for *_, is_harmful in replies], bool),
            groups=np.unique([text for text, *_ in replies], return_inverse=True)[1],
            states=read_states([(text, answer) for text, answer, _ in replies]) if read_states else None,
        )
    lineage = tuple(
        BundleSource(
            name=one.name,
            licence=one.licence,
            rows=rows,
            sha256=one.sha256,
            generator=one.generator,
            content="answers" if any(row.answer is not None for row in one.rows) else "prompts",
        )
        for one, rows in zip(sources, used, strict=True)
        if rows
    )
    return TrainingData(examples, answers, lineage)


class _Row(NamedTuple):
    text: str
    whole: str
    is_harmful: bool
    is_hard: bool
    group: int
    kind: Kind
    principle: str | None


def _make_variants(rows: Sequence[_Row], templates: Sequence[str], group: int) -> list[_Row]:
    """Make a variant of each prompt, and windows of jailbreak prompts, which have groups of their own.

    The jailbreak prompts around the prompts of a source are the same in every variant, so that what is left out
    with a source is left out with its wrappers.
    """
    found = []
    draw = random.Random(TRAINING_SEED)
    shares = {one: [*templates[one % TEMPLATE_GROUPS :: TEMPLATE_GROUPS]] for one in {row.group for row in rows}}
    for row in rows:
        made = make_variant(row.text, shares[row.group], draw)
        found.append(row._replace(text=made.window, whole=made.text, kind=made.kind))
    for i, template in enumerate(templates):
        found += [
            _Row(text, text, False, True, group + i % TEMPLATE_GROUPS, "context", None)
            for text in draw_contexts(template, CONTEXTS, draw)
        ]
    return found


def fold_text(text: str) -> str:
    """Fold a text to what makes two of them one: letters and digits, without case; empty without any letter."""
    folded = "".join(letter for letter in text.casefold() if letter.isalnum())
    return folded if any(map(str.isalpha, folded)) else ""


def refuses(principle: Principle) -> bool:
    """Whether a principle applies to input and refuses."""
    return principle.applies_to.get("input") == "refuse"
