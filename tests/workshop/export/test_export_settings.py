"""Limits of the settings of import and export."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from commonweight.workshop.export.settings import ExportSettings, ImportSettings, KlBounds, ParitySettings


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (ExportSettings, {"name": ""}),
        (ExportSettings, {"name": "a/b"}),
        (ExportSettings, {"name": ".."}),
        (ExportSettings, {"name": "a" * 97}),
        (ExportSettings, {"name": "a", "quantisations": ["Q5_K_M"]}),
        (ExportSettings, {"name": "a", "quantisations": ["F16"]}),
        (ExportSettings, {"name": "a", "quantisations": ["Q8_0", "Q8_0"]}),
        (ExportSettings, {"name": "a", "unknown": 1}),
        (ParitySettings, {"tokens": 31}),
        (ParitySettings, {"tokens": 1_000_001}),
        (ParitySettings, {"perplexity_ratio": 1.0}),
        (ParitySettings, {"perplexity_ratio": float("nan")}),
        (KlBounds, {"mean": 0, "p99": 1}),
        (KlBounds, {"mean": 1, "p99": 101}),
        (ImportSettings, {"from": "starter", "model_id": "a/b"}),
        (ImportSettings, {"from": "starter", "model_id": "a/b", "licence": "MIT", "sha256": "ab"}),
    ],
)
def test_bad_settings(model: type[Any], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(values)


def test_settings_as_a_recipe_has_them() -> None:
    settings = ImportSettings.model_validate({"from": "starter", "model_id": "a/b", "licence": "MIT"})
    assert settings.location == "starter"
    assert ExportSettings(name="tiny-1.0").quantisations == ("Q8_0", "Q4_K_M")


def test_settings_load_nothing_heavy() -> None:
    program = "import sys; import commonweight.workshop.export.settings; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "gguf", "torch", "tokenizers", "transformers"} & set(loaded)
