"""Base of the wire models: strict types, unknown fields ignored and logged once."""

import functools
import logging
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

log = logging.getLogger(__name__)

# Bounded, because names of unknown fields come from clients.
_MAX_LOGGED_FIELDS = 1000
_logged_fields: set[tuple[str, str]] = set()


def _convert_whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


MAX_INTEGER = 2**63 - 1
WholeNumber = BeforeValidator(_convert_whole)
"""For integers of requests: JSON knows only numbers, so ``16.0`` and ``1e3`` are integers, too."""
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER), WholeNumber]
"""Number of something in a request."""


class WireModel(BaseModel):
    """JSON object in a request.

    Types are strict (``"10"`` is not an integer), but fields we do not know are ignored: clients send fields
    of betas and of newer API versions, and must keep working. Each unknown field is logged once per process.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _log_unknown_fields(cls, data: Any) -> Any:  # noqa: ANN401 - this sees raw JSON
        if isinstance(data, dict):
            for name in data.keys() - _list_field_names(cls):
                note = (cls.__name__, str(name)[:80])
                if note not in _logged_fields and len(_logged_fields) < _MAX_LOGGED_FIELDS:
                    _logged_fields.add(note)
                    log.debug("ignoring unknown field %r of %s", note[1], note[0])
        return data


def optional_key() -> Any:  # noqa: ANN401 - a field of any type
    """Field of a response whose key is absent while it is None: clients refuse ``null`` where the API has none."""
    return Field(default=None, exclude_if=lambda value: value is None)


@functools.cache
def _list_field_names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


def make_validation_error(
    message: str, *, field: str | None = None, error_code: str | None = None
) -> PydanticCustomError:
    """Validation error with a message in the API's words, for validators to raise.

    The sentence follows the place that is being validated, and ``field`` in it; a check of the whole request has
    no place and names one itself. ``error_code`` is for clients that tell refusals apart.
    """
    # As a value and not as the template, because the words may quote the client.
    return PydanticCustomError(
        "refused", "{message}", {"message": message, "field": field, "error_code": error_code}
    )
