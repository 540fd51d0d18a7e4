"""Settings of the data stages: sources, the filter and mixes."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from commonweight.workshop.data.locations import HubPath, LocalPath, PackagePath, WebFile, parse_location
from commonweight.workshop.settings import Settings, Several

Format = Literal["auto", "text", "messages", "sharegpt", "alpaca", "preference", "prompts"]
Column = Literal[
    "text",
    "messages",
    "conversations",
    "instruction",
    "input",
    "output",
    "system",
    "prompt",
    "chosen",
    "rejected",
    "licence",
    "generator",
    "principle",
]
"""Columns that the formats know."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$", max_length=200)
]

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")


def is_licence_name(name: str) -> bool:
    """Whether this may be one SPDX identifier or ``LicenseRef-`` name; the licence gate knows which ones exist."""
    return _LICENCE.fullmatch(name) is not None


class SourceSettings(Settings):
    """A source: where its rows lie, how they are written, and under which terms."""

    name: Name
    """How rows, manifests and records call it."""
    location: Annotated[str, StringConstraints(min_length=1, max_length=2000)] = Field(alias="from")
    """A path relative to the recipe, ``hf:org/name@revision[/path]``, ``package:NAME/path`` or a URL."""
    format: Format = "auto"
    """How rows are written; ``auto`` decides by the columns of the first row, and holds for all."""
    licence: str
    """SPDX identifier or ``LicenseRef-`` name; a row's own column ``licence`` (or ``license``) wins."""
    generator: Label | None = None
    """Id of the model that wrote it; null: people did. A row's own column ``generator`` wins, if not null."""
    fields: dict[Column, Label] = Field(default_factory=dict, max_length=20)
    """Columns that are called otherwise in this source: ours to its."""
    principles: dict[Label, Label] = Field(default_factory=dict, max_length=200)
    """Principles of a charter by what the column ``principle`` says, where that holds categories of its own.
    Rows of other categories have none. Empty: the column holds principles."""
    leave_out: Several[Label] = Field(default=(), max_length=200)
    """Values of the column ``principle`` whose rows are left out, such as categories that no principle
    restricts."""
    limit: int | None = Field(default=None, ge=1, le=100_000_000)
    """Take no more than so many rows, the first ones."""
    sha256: Sha256 | None = None
    """Digest of the file; of a folder, that of its files' paths and digests. Required for a URL."""
    evaluation: bool = False
    """Whether something is measured on it; then it trains nothing."""
    row_characters: int = Field(default=8192, ge=256, le=1_000_000)
    """Files of plain text are cut into rows of at most so many characters, at blank lines where there are some."""
    max_megabytes: int = Field(default=2048, ge=1, le=1_000_000)
    """The largest file that is downloaded from a URL."""

    @model_validator(mode="before")
    @classmethod
    def _require_licence(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the recipe holds
        if isinstance(values, dict):
            licence = values.get("licence")
            if licence is None or (isinstance(licence, str) and not licence.strip()):
                raise ValueError(
                    f"The source {values.get('name')!r} has no licence; without one it trains nothing."
                )
        return values

    @field_validator("licence")
    @classmethod
    def _check_licence(cls, licence: str) -> str:
        if not is_licence_name(licence):
            raise ValueError(f"{licence!r} is not one SPDX identifier or LicenseRef- name.")
        return licence

    @field_validator("location")
    @classmethod
    def _check_location(cls, location: str) -> str:
        parse_location(location)
        return location

    @model_validator(mode="after")
    def _require_digest(self) -> Self:
        if self.sha256 is None and isinstance(self.parsed_location, WebFile):
            raise ValueError(
                f"The source {self.name!r} is a URL without sha256, so its content may change unseen."
            )
        return self

    @property
    def parsed_location(self) -> LocalPath | HubPath | WebFile | PackagePath:
        """What ``from`` says."""
        return parse_location(self.location)


class FilterSettings(Settings):
    """Which rows a filter drops."""

    exact_duplicates: bool = True
    """Drop rows that an earlier one equals but for white space and case."""
    near_duplicates: bool = False
    """Drop rows that are much like an earlier one; up to 200,000 rows."""
    near_duplicate_similarity: float = Field(default=0.8, ge=0.6, le=1.0)
    """How much of two rows' five-word sequences must be shared, of all that either has."""
    decontaminate: bool = True
    """Drop rows that share 13 words in a row with an evaluation set."""
    min_characters: int = Field(default=1, ge=1, le=100_000_000)
    """Drop shorter rows."""
    max_characters: int = Field(default=1_000_000, ge=1, le=100_000_000)
    """Drop longer rows."""

    @model_validator(mode="after")
    def _order_bounds(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters is above max_characters, so no row would be left.")
        return self


class MixSettings(Settings):
    """How much of each input a mix holds."""

    weights: dict[Name, Annotated[float, Field(gt=0, le=1_000_000)]] = Field(min_length=1, max_length=100)
    """Each input's share of the training characters, relative to the sum of all."""
    characters: int | None = Field(default=None, ge=1, le=10**13)
    """Training characters of the mix; null: as many as give every input at least one whole epoch, within
    ``max_epochs``."""
    max_epochs: float = Field(default=4.0, ge=1.0, le=1000.0)
    """How often a row may stand in the mix; an input that is too small for its weight bounds the others."""
    validation: float = Field(default=0.01, ge=0.0, le=0.5)
    """Share of rows that are kept apart; the same rows in every mix, since their ids decide."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Decides which rows stand in a part of an epoch."""
