"""The base of all that a recipe holds: types are taken as they are written, and nothing unknown passes."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Strict

_Item = TypeVar("_Item")

DEFAULT_CHARTER = "default"
"""Names the charter that ships with the package, where a recipe names one."""

Several = Annotated[tuple[_Item, ...], Strict(False)]
"""A list of a recipe. Its entries are as strict as all else: only the list itself becomes a tuple."""


class Settings(BaseModel):
    """Settings of a stage, or of a part of it.

    YAML has types, and they count: ``yes`` is no 1, ``1.0`` is no whole number, and ``"0.1"`` is text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
