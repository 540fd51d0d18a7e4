"""Training data of guard heads: examples drawn from sources of labelled texts, with their representations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter, Principle
from commonweight.guard.arrays import Floats
from commonweight.guard.bundle import BundleSource
from commonweight.guard.encoder import TextEncoder
from commonweight.workshop.heads.sources import LabelledSource

ReadStates = Callable[[Sequence[tuple[str, str | None]]], Floats]
"""States of prompts, ``(texts, 2, layers, width)``: the mean over the text's tokens, and the last token's.

Of pairs with an answer: the means over the first tokens of the answer, and over as many that follow them.
"""


TRAINING_SEED = 20261125


@dataclass(frozen=True)
class Examples:
    """Labelled texts with their representations. Arrays have a row for each."""

    texts: Sequence[str]
    is_harmful: npt.NDArray[np.bool_]
    is_hard: npt.NDArray[np.bool_]
    """Harmless, and looks otherwise."""
    groups: npt.NDArray[np.int64]
    """Number of the source."""
    principles: Sequence[str | None]
    """Of harmful ones: what they go against, where that is known."""
    vectors: Floats | None
    """Of the encoder."""
    words: Floats | None
    """The encoder's vectors of what the principles that refuse restrict, in the charter's order."""
    states: Floats | None
    """Of shape ``(texts, 2, layers, width)``: the mean over the text's tokens, and the prompt's last token."""


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
    orders: tuple[str, ...]
    lineage: tuple[BundleSource, ...]


def build_training_data(
    charter: Charter,
    sources: Sequence[LabelledSource],
    encoder: TextEncoder | None,
    read_states: ReadStates | None,
    most: int = 400,
) -> TrainingData:
    """Draw at most ``most`` prompts of each source by a fixed seed, each text once, and all labelled answers."""
    draw = np.random.default_rng(TRAINING_SEED)
    texts: list[str] = []
    harmful: list[bool] = []
    hard: list[bool] = []
    groups: list[int] = []
    principles: list[str | None] = []
    orders: list[str] = []
    replies: list[tuple[str, str, bool]] = []
    used = [0] * len(sources)
    restricted = {one.id for one in charter.principles if refuses(one)}
    for group, source in enumerate(sources):
        seen: set[str] = set()
        for i in draw.permutation(len(source.rows)):
            row = source.rows[int(i)]
            if source.role == "unused" or (row.answer or row.text) in seen:
                continue
            if row.answer is None and len(seen) >= most:
                continue
            seen.add(row.answer or row.text)
            used[group] += 1
            principle = source.get_principle(row, charter) if row.is_harmful else None
            if row.answer is not None:
                replies.append((row.text, row.answer, row.is_harmful))
            elif source.role == "injection":
                orders.append(row.text)
            elif not row.is_harmful or not source.is_elsewhere(row, principle, restricted):
                texts.append(row.text)
                harmful.append(row.is_harmful)
                hard.append(source.role == "hard")
                groups.append(group)
                principles.append(principle)
            else:
                used[group] -= 1
    examples = Examples(
        texts=texts,
        is_harmful=np.array(harmful, bool),
        is_hard=np.array(hard, bool),
        groups=np.array(groups, np.int64),
        principles=principles,
        vectors=encoder.embed(texts) if encoder else None,
        words=encoder.embed([one.restricts for one in charter.principles if refuses(one)]) if encoder else None,
        states=read_states([(text, None) for text in texts]) if read_states else None,
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
    return TrainingData(examples, answers, tuple(orders), lineage)


def refuses(principle: Principle) -> bool:
    """Whether a principle applies to input and refuses."""
    return principle.applies_to.get("input") == "refuse"
