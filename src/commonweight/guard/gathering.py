"""Sources of labelled texts to examples that heads are trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from commonweight.charter.principle import Charter
from commonweight.guard.bundle import BundleSource as Lineage
from commonweight.guard.encoder import TextEncoder
from commonweight.guard.sources import TextSource
from commonweight.guard.training import TRAINING_SEED, Answers, Examples, refuses

Floats = npt.NDArray[np.float32]
ReadStates = Callable[[Sequence[tuple[str, str | None]]], Floats]
"""States of prompts, ``(texts, 2, layers, width)``: the mean over the text's tokens, and the last token's.

Of pairs with an answer only the first part counts: the mean over the answer's first tokens.
"""


@dataclass(frozen=True)
class TrainingData:
    """What there is to train on."""

    examples: Examples
    answers: Answers | None
    orders: tuple[str, ...]
    lineage: tuple[Lineage, ...]


def build_training_data(
    charter: Charter,
    sources: Sequence[TextSource],
    encoder: TextEncoder | None,
    read_states: ReadStates | None,
    most: int = 400,
) -> TrainingData:
    """At most ``most`` texts of each source, drawn by a fixed seed, each text once."""
    draw = np.random.default_rng(TRAINING_SEED)
    texts: list[str] = []
    harmful: list[bool] = []
    hard: list[bool] = []
    groups: list[int] = []
    principles: list[str | None] = []
    orders: list[str] = []
    replies: list[tuple[str, str | None, bool, int]] = []
    restricted = {one.id for one in charter.principles if refuses(one)}
    for group, source in enumerate(sources):
        seen: set[str] = set()
        for i in draw.permutation(len(source.rows)):
            row = source.rows[int(i)]
            if (row.answer or row.text) in seen or len(seen) >= most or source.role == "unused":
                continue
            seen.add(row.answer or row.text)
            principle = source.principle_of(row, charter) if row.is_harmful else None
            if row.answer is not None:
                replies.append((row.text, row.answer, row.is_harmful, group))
            elif source.role == "injection":
                orders.append(row.text)
            elif not row.is_harmful or not source.is_elsewhere(row, principle, restricted):
                texts.append(row.text)
                harmful.append(row.is_harmful)
                hard.append(source.role == "hard")
                groups.append(group)
                principles.append(principle)
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
            texts=[answer or "" for _, answer, _, _ in replies],
            is_harmful=np.array([is_harmful for _, _, is_harmful, _ in replies], bool),
            groups=np.array([group for *_, group in replies], np.int64),
            states=read_states([(text, answer) for text, answer, _, _ in replies])[:, 0] if read_states else None,
        )
    lineage = tuple(
        Lineage(name=one.name, licence=one.licence, rows=min(most, len(one.rows)), sha256=one.sha256)
        for one in sources
        if one.role != "unused"
    )
    return TrainingData(examples, answers, tuple(orders), lineage)
