"""The base of every wire model: strict types, unknown fields ignored and logged once."""

import logging
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

log = logging.getLogger(__name__)

# Bounded, because names of unknown fields come from clients.
_MAX_NOTED = 1000
_noted: set[tuple[str, str]] = set()


class WireModel(BaseModel):
    """A JSON object of the wire.

    Types are strict (``"10"`` is not an integer), but fields we do not know are ignored: clients send fields
    of betas and of newer API versions, and must keep working. Each unknown field is logged once per process.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _note_unknown_fields(cls, data: Any) -> Any:  # noqa: ANN401 - this sees raw JSON
        if isinstance(data, dict):
            for name in data.keys() - cls.model_fields.keys():
                note = (cls.__name__, str(name)[:80])
                if note not in _noted and len(_noted) < _MAX_NOTED:
                    _noted.add(note)
                    log.info("ignoring unknown field %r of %s", note[1], note[0])
        return data
