"""Settings of a release: what its publisher decides and says about it."""

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from commonweight.lineage.licences import find_licence
from commonweight.workshop.settings import Settings, Several

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def _check_text(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("has a character that is not shown")
    return text


def _check_licence(text: str) -> str:
    licence = find_licence(text)
    if licence is None:
        raise ValueError("is not a licence of the table")
    return licence.id


def _read_day(value: object) -> object:
    """Read a day out of text; a number would be taken for seconds since 1970."""
    try:
        if isinstance(value, int | float):
            raise ValueError
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("a date is wanted, such as 2026-12-31") from None


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
Line = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\n]+$"), AfterValidator(_check_text)]
Text = Annotated[str, Field(max_length=20_000), AfterValidator(_check_text)]
Day = Annotated[date, Field(ge=date(2000, 1, 1)), BeforeValidator(_read_day)]
"""As YAML has it, or as text."""


class Waiver(Settings):
    """One person's decision that a row of the gate does not block, for a while."""

    row: Name
    """The row's id in the policy."""
    name: Line
    """Name of the approver."""
    reason: Line
    until: Day
    """Last day on which it holds."""


class ReleaseSettings(Settings):
    """What the publisher of a release decides."""

    name: Name
    """The model's name, as in its files."""
    title: Line
    """The model's name for people."""
    licence: Annotated[str, AfterValidator(_check_licence)]
    """Licence of the release: an SPDX identifier, or a ``LicenseRef-`` name of our table."""
    licence_text: str | None = None
    """File with the licence's text. Not needed for those that ship: Apache-2.0, MIT, BSD-2-Clause, BSD-3-Clause,
    ISC, CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0, CC0-1.0 and the public domain."""
    copyright: Line | None = None
    """Year and name of the copyright holder, such as ``2026 Ada Example``, for the text of MIT, BSD or ISC."""
    description: Text
    limitations: Text
    base_model: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$"
    )
    """The hub's id of the model that this one was made from."""
    languages: Several[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = ("en",)
    pipeline_tag: Annotated[str, Field(pattern=r"^[a-z][a-z-]{2,40}$")] = "text-generation"
    share_alike: Literal["propagate", "attribute"] = "propagate"
    """Whether share-alike material decides the licence, or is only named."""
    safetensors: bool = True
    """Whether the model in Hugging Face's layout goes out beside the GGUF files."""
    signing_key: str = "generate"
    """File with the private key (EC P-256, PEM), or ``generate``: one in the folder for keys, made once."""
    policy: str = "public"
    """The gate's policy: ``public``, ``private``, or a file."""
    waivers: Several[Waiver] = Field(default=(), max_length=50)
