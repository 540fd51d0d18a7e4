"""What a plan foresees of outputs before they are made: how many rows they hold, and how large models are."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from commonweight.lineage.errors import WorkshopError

if TYPE_CHECKING:
    from commonweight.workshop.data.settings import MixSettings
    from commonweight.workshop.recipe.stage_kind import Stage

CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly."""


@dataclass(frozen=True)
class Volume:
    """How much an output of rows holds: what it does, or at most will."""

    rows: int
    characters: int
    lengths: tuple[int, ...] = ()
    """Characters of each row, where they are known."""

    @property
    def mean(self) -> float:
        """Characters of a row."""
        return self.characters / self.rows if self.rows else 0.0

    @property
    def tokens(self) -> int:
        """Roughly, in any model's tokens."""
        return self.characters // CHARACTERS_PER_TOKEN

    def take(self, rows: int | None) -> "Volume":
        """The volume of at most so many of the rows, whichever; None: of all."""
        if rows is None or rows >= self.rows:
            return self
        return Volume(rows, round(rows * self.mean))

    def answer(self, tokens: int, samples: int = 1) -> "Volume":
        """The volume of the rows with so many answers to each, of at most so many tokens."""
        rows = self.rows * samples
        return Volume(rows, samples * self.characters + rows * tokens * CHARACTERS_PER_TOKEN)


@dataclass(frozen=True)
class ModelSize:
    """How large a model is, its shape by the names of a configuration of transformers."""

    parameters: int
    num_hidden_layers: int
    hidden_size: int
    vocab_size: int
    cache_bytes: int
    """Keys and values of a token, in 16 bits."""


@dataclass(frozen=True)
class Forecast:
    """What is foreseen of a recipe's stages, one after the other."""

    stages: Mapping[str, "Stage"]
    root: Path
    """Folder that relative paths of the recipe are relative to."""
    data_root: Path | None = None
    outputs: dict[str, Volume | ModelSize] = field(default_factory=dict)
    """By stage; what cannot be foreseen is not there."""

    def get_volume(self, stage: str) -> Volume | None:
        """Rows of a stage's output."""
        found = self.outputs.get(stage)
        return found if isinstance(found, Volume) else None

    def add_volumes(self, stages: Iterable[str]) -> Volume | None:
        """Rows of several stages together."""
        found = [self.get_volume(stage) for stage in stages]
        known = [volume for volume in found if volume is not None]
        if len(known) < len(found):
            return None
        lengths = tuple(length for volume in known for length in volume.lengths)
        rows = sum(volume.rows for volume in known)
        return Volume(rows, sum(volume.characters for volume in known), lengths if len(lengths) == rows else ())

    def get_model(self, stage: str | None) -> ModelSize | None:
        """The model of a stage's output."""
        found = self.outputs.get(stage or "")
        return found if isinstance(found, ModelSize) else None


def count_lengths(lengths: Iterable[int]) -> Volume:
    """The volume of rows by their characters."""
    known = tuple(lengths)
    return Volume(len(known), sum(known), known)


def mix_volumes(settings: "MixSettings", volumes: Mapping[str, Volume]) -> Volume | None:
    """The volume of a mix, of which nothing is kept for validation; None: the inputs are too small for it."""
    from commonweight.workshop.data.mix import plan_sizes

    try:
        sizes = plan_sizes(settings, {name: volume.characters for name, volume in volumes.items()})
    except WorkshopError:
        return None
    rows = sum(size / volumes[name].mean for name, size in sizes.items())
    return Volume(round(rows), round(math.fsum(sizes.values())))


def read_volume(folder: Path) -> Volume | None:
    """The volume of a dataset folder that is there; None: it is none."""
    from commonweight.workshop.data.manifest import MANIFEST, read_manifest

    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except WorkshopError:
        return None
    return Volume(manifest.rows, manifest.characters)


def read_model_size(path: Path) -> ModelSize:
    """The size of the model in a GGUF file, by its header.

    Raises:
        UnreadableModelError: it is no GGUF file.
    """
    from commonweight.catalog.header import read_sizes

    sizes = read_sizes(path)

    def find(name: str, otherwise: int) -> int:
        return next((value for key, value in sizes.keys.items() if key.endswith(name)), otherwise)

    layers, dim = find(".block_count", 1), find(".embedding_length", 1)
    heads = max(1, find(".attention.head_count", 1))
    head_dim = find(".attention.key_length", dim // heads)
    return ModelSize(
        parameters=sizes.values,
        num_hidden_layers=layers,
        hidden_size=dim,
        vocab_size=find("tokenizer.ggml.tokens", 1),
        cache_bytes=2 * 2 * layers * find(".attention.head_count_kv", heads) * head_dim,
    )
