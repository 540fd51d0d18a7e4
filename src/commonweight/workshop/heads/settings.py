"""Settings of the stage that compiles a guard's bundle. Light: recipes are read with it."""

from pathlib import PurePosixPath

from pydantic import Field, field_validator

from commonweight.workshop.settings import DEFAULT_CHARTER, Settings, Several

BUNDLE, CHARTER = "guard.safetensors", "charter.md"
"""Files of the stage's output."""


class GuardSettings(Settings):
    """How a charter becomes a guard for a model."""

    charter: str = Field(default=DEFAULT_CHARTER, min_length=1, max_length=2000)
    """``default``, or a file, relative to the recipe."""
    texts: Several[str] = Field(min_length=1, max_length=100)
    """Files of labelled texts, or folders of them, relative to the recipe, as for `charter compile --texts`."""
    most: int = Field(default=400, ge=50, le=1_000_000)
    """Prompts of each source, at most."""

    @field_validator("charter", "texts", mode="after")
    @classmethod
    def _check_paths(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for path in (value,) if isinstance(value, str) else value:
            if PurePosixPath(path).is_absolute() or "\\" in path or not path.strip():
                raise ValueError(f"{path!r} is no path relative to the recipe, written with forward slashes.")
        return value
